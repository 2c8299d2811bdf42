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


@keras.saving.register_keras_serializable(package="unroll")
class SlotF1(keras.metrics.Metric):
    """The F1 of whole spans of BIO tags, as conlleval counts them.

    Args:
        tags: the names of the tags.

    Call arguments:
        y_true: the tags, `[B, T]`; below zero for padding. An id that is not one of the K tags
            belongs to no span.
        y_pred: the predicted tags, `[B, T]`.
    """

    def __init__(self, tags: list[str], name="slot_f1", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.tags = list(tags)
        types = sorted({tag[2:] for tag in self.tags})
        # Of each tag: whether it begins or continues a span, and the type of the span. The last
        # entry is for other ids.
        self.kinds = [{"B": 1, "I": 2}.get(tag[:1], 0) for tag in self.tags] + [0]
        self.types = [types.index(tag[2:]) for tag in self.tags] + [-1]
        self.counts = [
            self.add_weight(name=name, initializer="zeros")
            for name in ("correct", "spans", "predicted_spans")
        ]

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred = ops.cast(y_true, "int32"), ops.cast(y_pred, "int32")
        last = len(self.tags)
        is_tag = ops.logical_and(y_true >= 0, y_true < last)
        y_pred = ops.where(y_true >= 0, y_pred, last)  # [B, T]
        y_true = ops.where(is_tag, y_true, last)
        starts, inside, types = self._describe(y_true)
        predicted_starts, predicted_inside, predicted_types = self._describe(y_pred)
        in_span = ops.logical_or(starts, inside)
        same = ops.logical_and(starts == predicted_starts, inside == predicted_inside)
        same = ops.logical_and(same, types == predicted_types)
        # A predicted span is longer if its next tag continues it where the correct one ends.
        longer = ops.logical_and(predicted_inside, ops.logical_not(inside))
        longer = ops.concatenate([longer[:, 1:], ops.zeros_like(longer[:, :1])], axis=1)
        wrong = ops.logical_and(in_span, ops.logical_or(ops.logical_not(same), longer))
        # The number of the span of each token, over the whole batch; 0 is none.
        starts = ops.reshape(starts, (-1,))
        spans = ops.where(ops.reshape(in_span, (-1,)), ops.cumsum(ops.cast(starts, "int32")), 0)
        count = ops.sum(ops.cast(starts, "int32"))
        errors = ops.segment_sum(
            ops.cast(ops.reshape(wrong, (-1,)), "int32"), spans, num_segments=ops.size(spans) + 1
        )
        with_errors = ops.sum(ops.cast(errors[1:] > 0, "int32"))
        totals = (
            count - with_errors,
            count,
            ops.sum(ops.cast(predicted_starts, "int32")),
        )
        for total, value in zip(self.counts, totals, strict=True):
            total.assign_add(ops.cast(value, total.dtype))

    def _describe(self, tags) -> tuple:
        """Whether each tag begins a span, whether it continues one, and the type of the span."""
        kinds = ops.take(ops.array(self.kinds, "int32"), tags)
        return kinds == 1, kinds == 2, ops.take(ops.array(self.types, "int32"), tags)

    def result(self):
        correct, spans, predicted = self.counts
        return 2 * correct / ops.maximum(spans + predicted, 1)

    def get_config(self):
        return {"tags": self.tags, "name": self.name, "dtype": self.dtype}
