"""Predictions on a split, their accuracy by type of question, VQA's accuracy, and the baseline."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Assets, Data, Trained
from unroll.pipelines.visual_questions import FIRST_ANSWER, NO_QUESTION

# The number of question types that have an accuracy of their own.
NUM_QUESTION_TYPES = 8


@dataclass
class Predictions:
    """The questions of a split and the predicted answers.

    Attributes:
        tokens: the token ids of N questions.
        labels: the labels of the answers to each question.
        predicted: N labels.
    """

    tokens: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)
    predicted: list[int] = field(default_factory=list)

    def add(self, tokens: np.ndarray, labels: np.ndarray, predicted: np.ndarray) -> None:
        """Adds the questions of a batch: `[P, Q, T]`, `[P, Q, N]` and `[P, Q]`."""
        present = labels[..., 0] != NO_QUESTION
        self.tokens.extend(tokens[present])
        self.labels.extend(labels[present])
        self.predicted.extend(predicted[present].tolist())

    @property
    def correct(self) -> np.ndarray:
        """Whether the first answer is predicted, `[N]`."""
        return np.array([labels[0] for labels in self.labels]) == np.array(self.predicted)

    def question_types(self, vocabulary: list[str]) -> np.ndarray:
        """The first two words of each question, `[N]`."""
        return np.array(
            [" ".join(vocabulary[i] for i in tokens[:2] if i) for tokens in self.tokens]
        )


def predictions(trained: Trained, dataset: tf.data.Dataset) -> Predictions:
    """The model's answer to each question of a split."""
    found = Predictions()
    for features, labels in dataset:
        logits = np.asarray(trained.model.predict_on_batch(features))
        found.add(features["tokens"].numpy(), labels.numpy(), logits.argmax(-1) + FIRST_ANSWER)
    return found


def most_frequent_answers(data: Data, split: str) -> Predictions:
    """For each question the most frequent training answer to questions with its first two words."""
    by_type, of_all = defaultdict(Counter), Counter()
    for features, labels in data["train"]:
        known = labels.numpy()[..., 0] >= FIRST_ANSWER
        for tokens, label in zip(
            features["tokens"].numpy()[known], labels.numpy()[known][:, 0], strict=True
        ):
            by_type[tuple(tokens[:2])][int(label)] += 1
            of_all[int(label)] += 1
    found = Predictions()
    for features, labels in data[split]:
        tokens = features["tokens"].numpy()
        predicted = [
            [_most_frequent(by_type.get(tuple(row[:2]), of_all)) for row in rows] for rows in tokens
        ]
        found.add(tokens, labels.numpy(), np.array(predicted))
    return found


def _most_frequent(counts: Counter) -> int:
    return max(counts, key=lambda label: (counts[label], -label))


def figures(found: Predictions, assets: Assets) -> dict:
    """`accuracy`, `accuracy_<question type>`, and `vqa_accuracy` of questions with many answers."""
    correct = found.correct
    result = {"examples": len(correct), "accuracy": float(correct.mean())}
    if max((labels > NO_QUESTION).sum() for labels in found.labels) > 1:
        scores = [
            vqa_accuracy(int((labels == predicted).sum()), int((labels > NO_QUESTION).sum()))
            for labels, predicted in zip(found.labels, found.predicted, strict=True)
        ]
        result["vqa_accuracy"] = float(np.mean(scores))
    types = found.question_types(assets["vocabulary"])
    for name in assets["question_types"]:
        of_type = correct[types == name]
        if len(of_type):
            result[f"accuracy_{name.replace(' ', '_')}"] = float(of_type.mean())
    return result


def vqa_accuracy(agreeing: int, people: int) -> float:
    """The accuracy of an answer that `agreeing` of `people` gave (Antol et al. 2015).

    An answer is correct if three people gave it, and in part if one or two did. This is averaged
    over all subsets of `people - 1` people.

    >>> [round(vqa_accuracy(n, 10), 2) for n in (0, 1, 2, 3, 4, 10)]
    [0.0, 0.3, 0.6, 0.9, 1.0, 1.0]
    """
    if people == 1:
        return float(agreeing)
    without_one = agreeing * min(1, (agreeing - 1) / 3)
    return (without_one + (people - agreeing) * min(1, agreeing / 3)) / people


def baseline(data: Data, split: str) -> dict:
    """The accuracy of the most frequent answer by the first two words of the question."""
    found = figures(most_frequent_answers(data, split), data.assets)
    return {
        "what": "most frequent answer to questions with the same first two words",
        "accuracy": found["accuracy"],
    }
