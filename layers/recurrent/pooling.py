"""Pooling of sequences over time."""

from keras import ops


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
    if mask is None:
        return ops.max(sequences, axis=1)
    valid = ops.expand_dims(ops.cast(mask, "bool"), -1)  # [B, T, 1]
    highest = ops.max(ops.where(valid, sequences, -3e4), axis=1)  # [B, D]
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
    if mask is None:
        return ops.mean(sequences, axis=1)
    valid = ops.expand_dims(ops.cast(mask, "bool"), -1)  # [B, T, 1]
    total = ops.sum(ops.where(valid, sequences, 0.0), axis=1)  # [B, D]
    return total / ops.maximum(ops.sum(ops.cast(valid, sequences.dtype), axis=1), 1.0)
