"""Masks of the steps of a sequence."""

import keras
from keras import ops


def zero_masked(x, mask):
    """`x` `[B, S, ...]` with zeros where `mask` `[B, S]` is False; `x` itself without a mask.

    The values there, NaN and infinity included, then have no effect, and their gradient is zero.
    A weight of zero alone would not do: 0 times NaN is NaN.
    """
    if mask is None:
        return x
    mask = ops.cast(mask, "bool")
    for _ in range(len(x.shape) - len(mask.shape)):
        mask = ops.expand_dims(mask, -1)
    return ops.where(mask, x, ops.zeros((), x.dtype))


def carried_mask(x):
    """The mask that Keras carries on a tensor, or None.

    A layer gets it as a call argument. A function that is not the call of a layer asks for it here.
    """
    # TensorFlow has no scopes that begin with an underscore, as the name of the class does.
    return _CarriedMask(name="carried_mask")(x)


class _CarriedMask(keras.layers.Layer):
    def call(self, x, mask=None):
        return mask

    def compute_mask(self, x, mask=None):
        return None
