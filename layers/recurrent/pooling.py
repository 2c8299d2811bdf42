"""Pooling of sequences over time."""

from keras import ops

from unroll.layers.masks import zero_masked
from unroll.layers.operations import cast_to, full_precision


def max_over_time(sequences, mask=None):
    """The maximum of each feature over time.

    Collobert et al. 2011, "Natural language processing (almost) from scratch", section 3.3.2.

    Args:
        sequences: `[B, T, D]`.
        mask: `[B, T]`, boolean. Steps where it is False are ignored.

    Returns:
        `[B, D]`; zeros for a sequence without steps.

    >>> import numpy as np
    >>> x = np.array([[[1.0, 5.0], [3.0, 2.0], [9.0, 9.0]]], "float32")
    >>> np.array(max_over_time(x, np.array([[True, True, False]]))).tolist()
    [[3.0, 5.0]]
    """
    if 0 in sequences.shape:  # not every backend has a maximum of nothing
        return ops.sum(sequences, axis=1)
    if mask is None and sequences.shape[1] is not None:
        return ops.max(sequences, axis=1)
    valid = ops.ones(ops.shape(sequences)[:2], "bool") if mask is None else ops.cast(mask, "bool")
    valid = ops.expand_dims(valid, -1)  # [B, T, 1]
    highest = ops.max(ops.where(valid, sequences, -float("inf")), axis=1)  # [B, D]
    return ops.where(ops.any(valid, axis=1), highest, 0.0)


def mean_over_time(sequences, mask=None):
    """The mean of each feature over time.

    Args:
        sequences: `[B, T, D]`.
        mask: `[B, T]`, boolean. Steps where it is False are ignored.

    Returns:
        `[B, D]`; zeros for a sequence without steps.

    >>> import numpy as np
    >>> x = np.array([[[1.0, 5.0], [3.0, 2.0], [9.0, 9.0]]], "float32")
    >>> np.array(mean_over_time(x, np.array([[True, True, False]]))).tolist()
    [[2.0, 3.5]]
    """
    x = full_precision(sequences)
    if mask is None:
        count = ops.cast(ops.shape(x)[1], x.dtype)
    else:
        x = zero_masked(x, mask)
        count = ops.sum(ops.cast(mask, x.dtype), axis=1, keepdims=True)  # [B, 1]
    return cast_to(ops.sum(x, axis=1) / ops.maximum(count, 1), sequences.dtype)
