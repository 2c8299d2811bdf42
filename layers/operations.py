"""Operations that Keras has in a form which LiteRT's built-in ops lack."""

from keras import ops


def argmax(x):
    """The first place of the greatest number along the last axis, `[..., K]` to `[...]`, int32.

    `keras.ops.argmax` treats signed zeros bit by bit on the TensorFlow backend.

    >>> import numpy as np
    >>> int(argmax(np.array([1.0, 3.0, 3.0])))
    1
    """
    places = ops.arange(x.shape[-1], dtype="int32")
    greatest = ops.max(x, axis=-1, keepdims=True)
    return ops.min(ops.where(x == greatest, places, x.shape[-1]), axis=-1)
