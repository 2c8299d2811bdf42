"""Predictions on a split, the field's figures, and the baseline."""

import functools
from collections import Counter, defaultdict
from dataclasses import dataclass, fields

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from seqeval.metrics import f1_score

from unroll.apps.core.protocol import Assets, Data, Trained
from unroll.pipelines import tagging, text

UNSEEN_INTENT = "unseen"  # any intent that the training split lacks


@dataclass(frozen=True)
class Predictions:
    """The sentences of a split: the correct tags and intents, and the predicted ones.

    Attributes:
        tokens: the tokens of each sentence, as in the vocabulary.
        tags, predicted_tags: of each token of each sentence.
        intents, predicted_intents: of each sentence; empty without intents.
        unknown: whether a sentence has a token that the vocabulary lacks.
    """

    tokens: list[list[str]]
    tags: list[list[str]]
    predicted_tags: list[list[str]]
    intents: list[str]
    predicted_intents: list[str]
    unknown: list[bool]


def predictions(model, assets: Assets, dataset: tf.data.Dataset) -> Predictions:
    """What a model, or `MostFrequent`, predicts for each sentence of a split."""
    vocabulary = np.array(assets["vocabulary"])
    tag_name = functools.cache(lambda tag: tagging.tag_name(tag, assets["tags"]))
    intents = np.array([*assets["intents"], UNSEEN_INTENT])
    rows = defaultdict(list)
    for features, targets in dataset:
        predicted = model.predict_on_batch(features)
        for k, correct in enumerate(targets["tags"].numpy()):
            real = correct >= 0
            rows["tokens"].append(vocabulary[features["tokens"].numpy()[k][real]].tolist())
            rows["tags"].append([tag_name(int(tag)) for tag in correct[real]])
            rows["predicted_tags"].append([tag_name(int(t)) for t in predicted["tags"][k][real]])
        if assets["intents"]:
            rows["intents"] += intents[targets["intent"]].tolist()
            rows["predicted_intents"] += intents[np.argmax(predicted["intent"], axis=-1)].tolist()
        unknown = features["tokens"] == text.UNKNOWN
        rows["unknown"] += tf.reduce_any(unknown, axis=1).numpy().tolist()
    return Predictions(*(rows[field.name] for field in fields(Predictions)))


class MostFrequent:
    """Predicts the most frequent tag of each word and the most frequent intent of the training."""

    def __init__(self, train: tf.data.Dataset, assets: Assets):
        self.intents = len(assets["intents"])
        of_word, of_all, intents = defaultdict(Counter), Counter(), Counter()
        for features, targets in train:
            for words, tags in zip(
                features["tokens"].numpy(), targets["tags"].numpy(), strict=True
            ):
                for word, tag in zip(words[tags >= 0], tags[tags >= 0], strict=True):
                    of_word[word][tag] += 1
                    of_all[tag] += 1
            if self.intents:
                intents.update(targets["intent"].numpy().tolist())
        self.of_word = {word: counts.most_common(1)[0][0] for word, counts in of_word.items()}
        self.tag = of_all.most_common(1)[0][0]
        self.intent = intents.most_common(1)[0][0] if intents else None

    def predict_on_batch(self, features: dict) -> dict:
        """Tags and intents like those of the model."""
        of_word = np.vectorize(lambda word: self.of_word.get(word, self.tag))
        predicted = {"tags": of_word(features["tokens"].numpy())}
        if self.intents:
            predicted["intent"] = np.eye(self.intents)[[self.intent] * len(predicted["tags"])]
        return predicted


def figures(found: Predictions) -> dict:
    """The figures of a split.

    `slot_f1` counts spans like conlleval (micro-averaged, by seqeval). A sentence is correct if all
    its tags and its intent are. The F1 of sentences with and without unknown words follows.
    """
    correct = [a == b for a, b in zip(found.tags, found.predicted_tags, strict=True)]
    results = {"examples": len(correct), "slot_f1": _f1(found.tags, found.predicted_tags)}
    if found.intents:
        intents = np.array(found.intents) == np.array(found.predicted_intents)
        results["intent_accuracy"] = float(intents.mean())
        correct = np.logical_and(correct, intents)
    results["sentence_accuracy"] = float(np.mean(correct))
    for name, kind in (("known", False), ("unknown", True)):
        chosen = [k for k, unknown in enumerate(found.unknown) if unknown == kind]
        tags, predicted = ([rows[k] for k in chosen] for rows in (found.tags, found.predicted_tags))
        if any(tag != "O" for row in tags for tag in row):
            results[f"slot_f1_{name}_words"] = _f1(tags, predicted)
            results[f"examples_{name}_words"] = len(chosen)
    return results


def _f1(tags: list, predicted: list) -> float:
    return float(f1_score(tags, predicted, zero_division=0))


def score(trained: Trained, dataset: tf.data.Dataset) -> dict:
    """The figures of a trained model on a split."""
    return figures(predictions(trained.model, trained.assets, dataset))


def baseline(data: Data, split: str) -> dict:
    """The most frequent tag of each word, and the most frequent intent."""
    model = MostFrequent(data["train"], data.assets)
    results = figures(predictions(model, data.assets, data[split]))
    return {"what": "most frequent tag of each word, most frequent intent"} | {
        name: value for name, value in results.items() if "examples" not in name
    }


@keras.saving.register_keras_serializable(package="unroll")
class SentenceAccuracy(keras.metrics.Mean):
    """The fraction of sentences whose tags are all correct. Tags below zero are padding."""

    def __init__(self, name="sentence_accuracy", dtype=None):
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true = ops.cast(y_true, "int32")
        correct = ops.logical_or(y_true < 0, y_true == ops.cast(y_pred, "int32"))
        return super().update_state(ops.cast(ops.all(correct, axis=-1), "float32"))
