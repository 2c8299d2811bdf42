"""Texts in groups: several to a picture, in one batch with it."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="unroll")
class Merge(keras.layers.Layer):
    """The texts of all pictures in one row: `[P, Q, ...]` to `[P * Q, ...]`."""

    def call(self, x):
        return ops.reshape(x, (-1, *ops.shape(x)[2:]))


@keras.saving.register_keras_serializable(package="unroll")
class Split(keras.layers.Layer):
    """What `Merge` merged: `[P * Q, ...]` to `[P, Q, ...]`, as in `like`, `[P, Q, ...]`."""

    def call(self, x, like):
        return ops.reshape(x, (*ops.shape(like)[:2], *ops.shape(x)[1:]))


@keras.saving.register_keras_serializable(package="unroll")
class ForEach(keras.layers.Layer):
    """What each text is given of its picture: `[P, U]` to `[P * Q, U]`; `like` is `[P, Q, ...]`."""

    def call(self, x, like):
        return ops.repeat(x, ops.shape(like)[1], axis=0)
