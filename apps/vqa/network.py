"""Parts of the network: an encoder of pictures, the rounds of a dialog, loss and metric."""

import keras
from keras import ops

from pipelines.visual import FIRST_ANSWER, NO_QUESTION


def residual_encoder(size: int, filters: int, stages: int, dropout: float) -> keras.Model:
    """A small residual network (He et al. 2016) from `[B, S, S, 3]` to a grid `[B, H, W, D]`.

    Each stage halves the sides, and doubles the filters from the second on. The place of each cell
    of the grid, from -1 to 1, is added to its features.
    """
    image = keras.Input((size, size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = low = _convolution(x, filters, 2)
    for stage in range(stages - 1):
        width = filters * 2 ** (stage + 1)
        y = _convolution(x, width, 2)
        y = _convolution(y, width, 1, activation=None)
        shortcut = _convolution(x, width, 2, kernel=1, activation=None)
        x = keras.layers.Activation("relu")(y + shortcut)
    shrink = low.shape[1] // x.shape[1]
    x = ops.concatenate([x, keras.layers.AveragePooling2D(shrink)(low)], axis=-1)
    x = keras.layers.SpatialDropout2D(dropout)(x)
    return keras.Model(image, _with_places(x), name="encoder")


def _convolution(x, filters: int, strides: int, kernel: int = 3, activation="relu"):
    x = keras.layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return keras.layers.Activation(activation)(x) if activation else x


def _with_places(x):
    height, width = x.shape[1:3]
    rows = ops.broadcast_to(ops.linspace(-1.0, 1.0, height)[:, None, None], (height, width, 1))
    columns = ops.broadcast_to(ops.linspace(-1.0, 1.0, width)[None, :, None], (height, width, 1))
    places = ops.concatenate([columns, rows], axis=-1)[None]  # [1, H, W, 2]
    return ops.concatenate([x, ops.zeros_like(x[..., :2]) + places], axis=-1)


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
