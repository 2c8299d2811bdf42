"""Helpers that several layers share."""

from keras import ops

# The log probability of what cannot happen. It is finite, so that the difference of two is not NaN.
LOG_ZERO = -1e9


def require_size(name: str, size) -> None:
    """Raises a `ValueError` if `size` is not an integer of at least one."""
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {size!r}.")


def argmax(x):
    """Index of the first maximum along the last axis, `[..., K]` to `[...]`, int32.

    It uses operations that LiteRT has built in, and it does not distinguish 0.0 from -0.0, as
    `keras.ops.argmax` does on the TensorFlow backend.

    >>> import numpy as np
    >>> int(argmax(np.array([1.0, 3.0, 3.0])))
    1
    """
    positions = ops.arange(x.shape[-1], dtype="int32")
    maximum = ops.max(x, axis=-1, keepdims=True)
    return ops.min(ops.where(x == maximum, positions, x.shape[-1]), axis=-1)


def take_rows(x, rows):
    """Rows of the second axis for each example: `x` `[B, n, ...]` and `rows` `[B, m]` to
    `[B, m, ...]`.
    """
    batch, n = ops.shape(x)[:2]
    flat = ops.reshape(x, (-1, *ops.shape(x)[2:]))
    index = rows + n * ops.arange(batch, dtype="int32")[:, None]
    return ops.take(flat, index, axis=0)


def time_major(mask, dtype="bool"):
    """A mask `[B, T]` as `[T, B]`."""
    # Transposed as numbers: oneDNN does not transpose booleans and logs that at every start.
    return ops.cast(ops.transpose(ops.cast(mask, "float32")), dtype)
