"""The one softmax of all attention."""

import keras
from keras import ops


def masked_softmax(scores, mask=None):
    """Softmax over the last axis, of the places that `mask` allows.

    Args:
        scores: `[..., S]`.
        mask: boolean, of the shape of `scores` or one that broadcasts to it.

    Returns:
        `[..., S]`: exactly zero where the mask is False, and all zeros, not NaN, where it is False
        everywhere.

    >>> import numpy as np
    >>> weights = masked_softmax(np.zeros((1, 3), "float32"), np.array([[True, True, False]]))
    >>> np.array(weights).tolist()
    [[0.5, 0.5, 0.0]]
    """
    if mask is None:
        return ops.softmax(scores, axis=-1)
    mask = ops.cast(mask, "bool")
    # The least finite number and not -inf: a row of -inf has no maximum to subtract.
    floor = -3e4 if keras.backend.standardize_dtype(scores.dtype) == "float16" else -1e30
    scores = ops.where(mask, scores, ops.cast(floor, scores.dtype))
    exponentials = ops.where(
        mask, ops.exp(scores - ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True))), 0.0
    )
    total = ops.sum(exponentials, axis=-1, keepdims=True)
    return exponentials / ops.where(total > 0, total, ops.ones_like(total))
