"""Figures: accuracy over all questions and by how they begin; VQA's where ten people answered."""

from collections import Counter, defaultdict
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Assets, Data
from unroll.pipelines.visual_questions import FIRST_ANSWER, NO_QUESTION

OPENINGS = 8  # so many kinds of questions are told apart


class Answers(NamedTuple):
    """Of N questions: the ids of their words, the labels of their answers, what was answered."""

    tokens: list[np.ndarray]
    labels: list[np.ndarray]
    chosen: list[int]


def answers(model: keras.Model, dataset: tf.data.Dataset) -> Answers:
    """What a model answers to each question of a split."""
    found = Answers([], [], [])
    for features, labels in dataset:
        logits = np.asarray(model.predict_on_batch(features))
        chosen = logits.argmax(-1) + FIRST_ANSWER
        _collect(found, features["tokens"].numpy(), labels.numpy(), chosen)
    return found


def _collect(found: Answers, tokens, labels, chosen) -> None:
    there = labels[..., 0] != NO_QUESTION
    found.tokens.extend(tokens[there])
    found.labels.extend(labels[there])
    found.chosen.extend(chosen[there].tolist())


def by_opening(data: Data, split: str) -> Answers:
    """To each question the most frequent answer to those of the training data that begin alike."""
    seen, all_seen = defaultdict(Counter), Counter()
    for features, labels in data.train:
        there = labels.numpy()[..., 0] >= FIRST_ANSWER
        for words, label in zip(
            features["tokens"].numpy()[there], labels.numpy()[there][:, 0], strict=True
        ):
            seen[tuple(words[:2])][int(label)] += 1
            all_seen[int(label)] += 1
    found = Answers([], [], [])
    for features, labels in getattr(data, split):
        tokens = features["tokens"].numpy()
        chosen = np.array(
            [
                [_most(seen.get(tuple(words[:2]), all_seen)) for words in of_picture]
                for of_picture in tokens
            ]
        )
        _collect(found, tokens, labels.numpy(), chosen)
    return found


def _most(counts: Counter) -> int:
    return max(counts, key=lambda label: (counts[label], -label))


def figures(found: Answers, assets: Assets) -> dict:
    """`accuracy`; for each frequent opening `accuracy_<words>`; and where there are several answers
    to a question `vqa_accuracy`.

    Antol et al. 2015: an answer is right in part if one or two of the other people gave it too, and
    wholly if three did; that is averaged over all choices of those others.
    """
    right = np.array([labels[0] for labels in found.labels]) == np.array(found.chosen)
    result = {"examples": len(right), "accuracy": float(right.mean())}
    if max((labels > NO_QUESTION).sum() for labels in found.labels) > 1:
        agreed = [
            agreement(int((labels == chosen).sum()), int((labels > NO_QUESTION).sum()))
            for labels, chosen in zip(found.labels, found.chosen, strict=True)
        ]
        result["vqa_accuracy"] = float(np.mean(agreed))
    vocabulary = assets["vocabulary"]
    kinds = np.array([" ".join(vocabulary[k] for k in words[:2] if k) for words in found.tokens])
    for kind in assets["openings"]:
        of_kind = right[kinds == kind]
        if len(of_kind):
            result[f"accuracy_{kind.replace(' ', '_')}"] = float(of_kind.mean())
    return result


def agreement(same: int, people: int) -> float:
    """VQA's accuracy of an answer that so many of the people gave.

    >>> [round(agreement(same, 10), 2) for same in (0, 1, 2, 3, 4, 10)]
    [0.0, 0.3, 0.6, 0.9, 1.0, 1.0]
    """
    if people == 1:
        return float(same)
    of_others = same * min(1, (same - 1) / 3) + (people - same) * min(1, same / 3)
    return of_others / people
