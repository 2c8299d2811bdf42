"""Removal of steps from sequences."""

from keras import ops


def left_align(x, keep, padding: int):
    """Moves the kept values of each row to its beginning, in their order.

    It takes memory linear in T, and consists of operations that LiteRT has built in.

    Args:
        x: `[B, T]`.
        keep: `[B, T]`, boolean.
        padding: the value of the rest.

    Returns:
        `[B, T]`.

    >>> import numpy as np
    >>> keep = np.array([[False, True, True]])
    >>> np.array(left_align(np.array([[5, 6, 7]]), keep, -1)).tolist()
    [[6, 7, -1]]
    """
    batch, time = ops.shape(x)
    counts = ops.cumsum(ops.cast(keep, "int32"), axis=1)
    # Each row has one more column, for the values that are not kept.
    columns = ops.where(keep, counts - 1, time)
    rows = (time + 1) * ops.expand_dims(ops.arange(batch, dtype="int32"), 1)
    index = ops.reshape(rows + columns, (batch * time, 1))
    moved = ops.scatter(index, ops.reshape(x - padding, (batch * time,)), (batch * (time + 1),))
    return ops.reshape(moved, (batch, time + 1))[:, :-1] + padding
