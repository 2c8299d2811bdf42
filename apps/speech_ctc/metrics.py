"""Error rates of transcripts, and the baseline."""

from collections import Counter
from dataclasses import dataclass

import jiwer
import keras
import numpy as np
import tensorflow as tf
from keras import ops

from unroll import layers
from unroll.apps.core.protocol import Trained
from unroll.apps.speech_ctc import decoding
from unroll.layers.operations import LOG_ZERO
from unroll.pipelines import speech

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # a label that the model does not have


@keras.saving.register_keras_serializable(package="unroll")
class LabelErrorRate(keras.metrics.Metric):
    """Insertions, deletions and substitutions in the greedy labels, per correct label.

    In `y_true`, `[B, L]`, values of 0 or less are padding.
    """

    def __init__(self, name="label_error_rate", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.errors = self.add_weight(name="errors", initializer="zeros")
        self.labels = self.add_weight(name="labels", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        correct = tf.cast(y_true, tf.int32)
        found = layers.ctc_greedy(y_pred)
        lengths = tf.reduce_sum(tf.cast(correct > 0, tf.int32), axis=1)
        errors = edit_distances(found.labels, found.lengths, correct, lengths)
        self.errors.assign_add(tf.cast(tf.reduce_sum(errors), "float32"))
        self.labels.assign_add(tf.cast(tf.reduce_sum(lengths), "float32"))

    def result(self):
        return ops.divide_no_nan(self.errors, self.labels)


def edit_distances(found, found_lengths, correct, correct_lengths) -> tf.Tensor:
    """Levenshtein distances `[B]` between the rows of `[B, T]` and of `[B, L]`, also under XLA.

    `tf.edit_distance` does not compile. A row of the table is computed at once: an insertion costs
    one more than the entry to its left, so that an entry is the running minimum of the entries to
    its left less their positions, plus its own position.
    """
    positions = tf.range(tf.shape(found)[1] + 1)
    row = tf.broadcast_to(positions, [tf.shape(found)[0], tf.shape(found)[1] + 1])

    def running_minimum(x):
        def double(shift, x):
            before = tf.where(positions >= shift, tf.roll(x, shift, axis=1), x)
            return 2 * shift, tf.minimum(x, before)

        return tf.while_loop(lambda shift, x: shift < tf.shape(x)[1], double, [1, x])[1]

    def next_row(i, row):
        wrong = tf.cast(found != correct[:, i, tf.newaxis], tf.int32)
        best = tf.minimum(row[:, 1:] + 1, row[:, :-1] + wrong)
        best = tf.concat([row[:, :1] + 1, best], axis=1)
        best = tf.ensure_shape(running_minimum(best - positions) + positions, row.shape)
        return i + 1, tf.where((i < correct_lengths)[:, tf.newaxis], best, row)

    _, row = tf.while_loop(lambda i, _: i < tf.shape(correct)[1], next_row, [0, row])
    return tf.gather(row, found_lengths, axis=1, batch_dims=1)


@keras.saving.register_keras_serializable(package="unroll")
class KnownLabelsLoss(layers.CTCLoss):
    """CTC's loss, for transcripts that may have labels the model lacks, of the id K.

    These are impossible: such an example has the loss 0.
    """

    def call(self, y_true, y_pred):
        impossible = ops.full_like(y_pred[:, :, :1], LOG_ZERO)
        return super().call(y_true, ops.concatenate([y_pred, impossible], axis=-1))


@dataclass
class Outputs:
    """What the model makes of the recordings of a split.

    Attributes:
        references: the correct labels of each recording.
        transcripts: of each recording, by decoder: see `decoding.decoders`.
        example: the index of the longest recording of fewer than 12 labels, if there is one.
        logits: of the example, `[T, K]`.
    """

    references: list[list[str]]
    transcripts: dict[str, list[str]]
    example: int = 0
    logits: np.ndarray | None = None


def outputs(trained: Trained, dataset: tf.data.Dataset) -> Outputs:
    """Decodes the recordings of a split, one batch after another."""
    names, unit = np.array([*trained.assets["labels"], _UNKNOWN]), trained.config.unit
    decoders = decoding.decoders(trained)
    found = Outputs([], {prefix: [] for prefix in decoders})
    highest = (False, -1)
    for features, labels in dataset:
        logits = trained.model.predict_on_batch(features)  # [B, T, K]
        frames = features["lengths"].numpy() // trained.config.subsampling
        for prefix, decode in decoders.items():
            found.transcripts[prefix] += decode(logits, frames)
        for row, count, correct in zip(logits, frames, labels.numpy(), strict=True):
            reference = names[correct[correct > 0]].tolist()
            rank = (len(reference) < 12, len(speech.join_units(reference, unit)))
            if rank > highest:
                highest, found.example = rank, len(found.references)
                found.logits = row[:count].copy()
            found.references.append(reference)
    return found


def score(trained: Trained, dataset: tf.data.Dataset) -> dict:
    """The error rates of a split for each decoder."""
    found, unit = outputs(trained, dataset), trained.config.unit
    correct = [speech.join_units(labels, unit) for labels in found.references]
    figures = {"examples": len(correct)}
    for prefix, decoded in found.transcripts.items():
        rates = error_rates(correct, decoded, unit)
        figures |= {prefix + name: value for name, value in rates.items()}
    return figures


def error_rates(correct: list[str], decoded: list[str], unit: str) -> dict[str, float]:
    """The error rates of labels, words and characters, and the accuracy of whole transcripts."""
    words = jiwer.wer(correct, decoded)
    equal = [a == b for a, b in zip(correct, decoded, strict=True)]
    rates = {"accuracy": float(np.mean(equal))}
    if unit == "phones":
        return rates | {"label_error_rate": words}
    characters = jiwer.cer(correct, decoded)
    labels = words if unit == "words" else characters
    return rates | {
        "label_error_rate": labels,
        "word_error_rate": words,
        "character_error_rate": characters,
    }


def baseline(training: list[str], correct: list[str], unit: str) -> dict:
    """The error rates of the most frequent training transcript, predicted for each recording."""
    [(most_frequent, _)] = Counter(training).most_common(1)
    rates = error_rates(correct, [most_frequent] * len(correct), unit)
    return {"what": "always the most frequent transcript"} | rates


def label_probabilities(
    logits: np.ndarray, names: list[str], labels: list[str]
) -> dict[str, list[float]]:
    """The probabilities of the blank and of some labels in each frame.

    Args:
        logits: of one recording, `[T, K]`.
        names: of the K labels, the blank first.
        labels: those that are returned.
    """
    probabilities = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
    shown = dict.fromkeys([names[0], *labels])
    return {
        label: [round(float(p), 4) for p in probabilities[:, names.index(label)]] for label in shown
    }
