"""Selecting the best, with the same order of equal values on each backend."""

import keras
from keras import ops


def top_k(x, k: int) -> tuple:
    """The k largest values along the last axis and their indices, the largest first.

    Equal values are in the order of their indices.

    Args:
        x: `[..., n]`, without NaN.

    Returns:
        A tuple of the values and the int32 indices, `[..., k]` each.

    >>> import numpy as np
    >>> np.array(top_k(np.array([2.0, 3.0, 3.0, 3.0]), 2)[1]).tolist()
    [1, 2]
    """
    values, indices = ops.top_k(x, k)
    # TensorFlow and JAX put the lower index first; PyTorch returns equal values in any order.
    if keras.backend.backend() == "torch":
        values, indices = _lowest_indices(x, values)
    return values, ops.cast(indices, "int32")


def _lowest_indices(x, values) -> tuple:
    """The first occurrences in `x` `[..., n]` of its k largest `values` `[..., k]`."""
    n, k = x.shape[-1], values.shape[-1]
    smallest = values[..., -1:]  # [..., 1]
    is_above, is_smallest = x > smallest, x == smallest
    missing = k - ops.sum(ops.cast(is_above, "int32"), axis=-1, keepdims=True)  # [..., 1]
    is_first = ops.cumsum(ops.cast(is_smallest, "int32"), axis=-1) <= missing
    is_chosen = ops.logical_or(is_above, ops.logical_and(is_smallest, is_first))  # [..., n]
    # Numbers without ties: the indices of the chosen values in ascending order.
    indices = ops.top_k(ops.where(is_chosen, n - ops.arange(n), 0), k)[1]  # [..., k]
    chosen = ops.take_along_axis(x, indices, axis=-1)
    order = ops.argsort(-chosen, axis=-1)
    return (
        ops.take_along_axis(chosen, order, axis=-1),
        ops.take_along_axis(indices, order, axis=-1),
    )
