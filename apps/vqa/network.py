"""Parts of the network: word vectors, the rounds of a dialog, loss and metric."""

import keras
from keras import ops

from pipelines.visual import FIRST_ANSWER, NO_QUESTION


def word_embedding(vocabulary_size: int, size: int) -> keras.layers.Embedding:
    """Word vectors that begin as far apart as published ones are.

    With Keras's smaller default, attention was learned epochs later on drawn scenes.
    """
    return keras.layers.Embedding(
        vocabulary_size, size, keras.initializers.RandomNormal(stddev=0.3)
    )


@keras.saving.register_keras_serializable(package="unroll")
class RoundsBefore(keras.layers.Layer):
    """The rounds that each question of a dialog looks back on.

    Of `facts` `[P, R, U]`, `there` `[P, R]` and `like` `[P, Q, ...]`, whose questions are those of
    the last Q rounds: `[P * Q, R, U]`, and which of them are before the question, `[P * Q, R]`.
    """

    def call(self, facts, there, like):
        rounds, questions = ops.shape(there)[1], ops.shape(like)[1]
        number = ops.arange(rounds)
        before = number[None, :] < number[rounds - questions :, None]  # [Q, R]
        there = ops.logical_and(ops.expand_dims(there, 1), ops.expand_dims(before, 0))
        each = ops.zeros((1, questions, 1, 1), facts.dtype)
        facts = ops.expand_dims(facts, 1) + each  # [P, Q, R, U]
        return (
            ops.reshape(facts, (-1, rounds, facts.shape[-1])),
            ops.reshape(there, (-1, rounds)),
        )


@keras.saving.register_keras_serializable(package="unroll")
class AnswerLoss(keras.losses.Loss):
    """Cross entropy of the first answer of each question, where the vocabulary has it.

    Labels are `[P, Q, N]`, logits `[P, Q, A]`.
    """

    def __init__(self, name="answer_loss", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        first = ops.cast(y_true[..., 0], "int32")
        known = ops.cast(first >= FIRST_ANSWER, y_pred.dtype)
        wanted = ops.maximum(first - FIRST_ANSWER, 0)
        each = keras.losses.sparse_categorical_crossentropy(wanted, y_pred + 0, from_logits=True)
        return ops.sum(each * known) / ops.maximum(ops.sum(known), 1)


@keras.saving.register_keras_serializable(package="unroll")
class AnswerAccuracy(keras.metrics.Metric):
    """The share of questions whose first answer the logits name; `[P, Q, N]` and `[P, Q, A]`."""

    def __init__(self, name="accuracy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.right = self.add_weight(name="right", initializer="zeros")
        self.asked = self.add_weight(name="asked", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        first = ops.cast(y_true[..., 0], "int32")
        chosen = ops.cast(ops.argmax(y_pred, axis=-1), "int32") + FIRST_ANSWER
        self.right.assign_add(ops.sum(ops.cast(first == chosen, "float32")))
        self.asked.assign_add(ops.sum(ops.cast(first != NO_QUESTION, "float32")))

    def result(self):
        return self.right / ops.maximum(self.asked, 1)


def mean_over_regions(regions, mask=None):
    """`[B, S, D]` or `[B, H, W, D]` to `[B, D]`, without those where the mask `[B, S]` is False."""
    if mask is None:
        return ops.mean(regions, axis=list(range(1, len(regions.shape) - 1)))
    weights = ops.expand_dims(ops.cast(mask, regions.dtype), -1)
    return ops.sum(regions * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1)
