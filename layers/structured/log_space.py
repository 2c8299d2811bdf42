"""Sums of probabilities in log space, where the log of zero is minus infinity.

`keras.ops.logsumexp` and `keras.ops.softmax` return NaN, or have NaN as their gradient, where all
terms are minus infinity.
"""

from keras import ops

from unroll.layers.operations import reduce_axis

IMPOSSIBLE = float("-inf")
LOWEST = -3e38  # finite in each dtype that has the range of float32


def maximum(x, axis=-1):
    """The maximum along an axis, which is kept; `LOWEST` where all values are minus infinity.

    It has no gradient, which is right for a constant that is subtracted and added again.
    """
    return ops.stop_gradient(ops.maximum(reduce_axis(ops.max, x, axis), LOWEST))


def log_sum_exp(x, axis=-1):
    """log sum exp(x) along an axis.

    >>> import numpy as np
    >>> x = np.array([[0.0, -np.inf], [-np.inf, -np.inf]], "float32")
    >>> np.array(log_sum_exp(x)).tolist()
    [0.0, -inf]
    """
    top = maximum(x, axis)
    return log(ops.sum(ops.exp(x - top), axis=axis)) + ops.squeeze(top, axis)


def softmax(x, axis=-1):
    """exp(x) / sum exp(x) along an axis; 0 where all values are minus infinity."""
    x = ops.exp(x - maximum(x, axis))
    sums = ops.sum(x, axis=axis, keepdims=True)
    return x / ops.where(sums == 0, 1.0, sums)


def log(x):
    """The logarithm, with a gradient of 0 where x is 0."""
    is_zero = x == 0
    return ops.where(is_zero, IMPOSSIBLE, ops.log(ops.where(is_zero, 1.0, x)))
