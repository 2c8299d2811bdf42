"""Sequences to single vectors, without weights."""

from keras import ops


def max_over_time(sequences, mask=None):
    """The largest value of each feature.

    Collobert et al. 2011, "Natural language processing (almost) from scratch", section 3.3.2.

    Args:
        sequences: `[B, T, D]`.
        mask: `[B, T]`, boolean; steps where it is False do not count.

    Returns:
        `[B, D]`; zeros for a sequence without a step that counts.

    >>> import numpy as np
    >>> x = np.array([[[1.0, 5.0], [3.0, 2.0], [9.0, 9.0]]], "float32")
    >>> np.array(max_over_time(x, np.array([[True, True, False]]))).tolist()
    [[3.0, 5.0]]
    """
    if mask is None:
        return ops.max(sequences, axis=1)
    counts = ops.expand_dims(ops.cast(mask, "bool"), -1)  # [B, T, 1]
    highest = ops.max(ops.where(counts, sequences, -3e4), axis=1)  # [B, D]
    return ops.where(ops.any(counts, axis=1), highest, 0.0)


def mean_over_time(sequences, mask=None):
    """The mean of each feature.

    Args:
        sequences: `[B, T, D]`.
        mask: `[B, T]`, boolean; steps where it is False do not count.

    Returns:
        `[B, D]`; zeros for a sequence without a step that counts.

    >>> import numpy as np
    >>> x = np.array([[[1.0, 5.0], [3.0, 2.0], [9.0, 9.0]]], "float32")
    >>> np.array(mean_over_time(x, np.array([[True, True, False]]))).tolist()
    [[2.0, 3.5]]
    """
    if mask is None:
        return ops.mean(sequences, axis=1)
    counts = ops.expand_dims(ops.cast(mask, "bool"), -1)  # [B, T, 1]
    total = ops.sum(ops.where(counts, sequences, 0.0), axis=1)  # [B, D]
    return total / ops.maximum(ops.sum(ops.cast(counts, sequences.dtype), axis=1), 1.0)
