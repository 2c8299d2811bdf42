"""Layers for batches of images with several texts each."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="unroll")
class Merge(keras.layers.Layer):
    """Merges the axes of images and texts: `[P, Q, ...]` to `[P * Q, ...]`."""

    def call(self, x):
        return ops.reshape(x, (-1, *ops.shape(x)[2:]))


@keras.saving.register_keras_serializable(package="unroll")
class Split(keras.layers.Layer):
    """The inverse of `Merge`: `[P * Q, ...]` to `[P, Q, ...]`, with P and Q those of `like`."""

    def call(self, x, like):
        return ops.reshape(x, (*ops.shape(like)[:2], *ops.shape(x)[1:]))


@keras.saving.register_keras_serializable(package="unroll")
class ForEach(keras.layers.Layer):
    """Repeats a vector per image for each of its texts: `[P, U]` to `[P * Q, U]`.

    Q is that of `like`, `[P, Q, ...]`.
    """

    def call(self, x, like):
        return ops.repeat(x, ops.shape(like)[1], axis=0)
