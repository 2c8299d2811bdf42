"""Constants, checks and operations that several layers share."""

import numbers

import keras
from keras import ops

# The log probability of an impossible event. It is finite, so a difference of two is not NaN.
LOG_ZERO = -1e9


def require_size(name: str, size, minimum: int = 1) -> int:
    """The size as an `int`; a `ValueError` if it is not an integer of at least `minimum`.

    NumPy's integers are allowed, `True` and `False` are not.

    >>> require_size("units", 0)
    Traceback (most recent call last):
    ValueError: units must be an integer of at least 1, got 0.
    """
    is_integer = isinstance(size, numbers.Integral) and not isinstance(size, bool)
    if not is_integer or size < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {size!r}.")
    return int(size)


def argmax(x):
    """The index of the first maximum along the last axis, as `best` finds it.

    >>> import numpy as np
    >>> int(argmax(np.array([1.0, 3.0, 3.0])))
    1
    """
    return best(x)[1]


def best(x, axis: int = -1) -> tuple:
    """The maximum along an axis, and the index of the first one, int32.

    It consists of operations that LiteRT has built in. Unlike `keras.ops.argmax` on the TensorFlow
    backend, it treats 0.0 and -0.0 as equal. NaN counts as a maximum, so that the index is always
    one of the axis.
    """
    top, size = reduce_axis(ops.max, x, axis), x.shape[axis]
    shape = [1] * len(x.shape)
    shape[axis] = size
    positions = ops.reshape(ops.arange(size, dtype="int32"), shape)
    first = reduce_axis(ops.min, ops.where(x < top, size, positions), axis)
    return ops.squeeze(top, axis), ops.squeeze(first, axis)


def reduce_axis(function, x, axis: int):
    """`function` along an axis, which is kept, of a tensor that may be empty along others."""
    # In eager mode, `keras.ops.max` and `min` refuse a tensor without elements.
    return (ops.sum if 0 in x.shape else function)(x, axis=axis, keepdims=True)


def take_rows(x, rows):
    """The given rows of the second axis for each example.

    Args:
        x: `[B, n, ...]`.
        rows: int32 `[B, m]`.

    Returns:
        `[B, m, ...]`.
    """
    batch, n = ops.shape(x)[:2]
    flat = ops.reshape(x, (-1, *ops.shape(x)[2:]))
    index = rows + n * ops.arange(batch, dtype="int32")[:, None]
    # JAX returns an empty `flat` as it is.
    taken = ops.take(flat, index, axis=0)
    return ops.reshape(taken, (*ops.shape(rows), *ops.shape(x)[2:]))


def zeros_of_a_step(x):
    """Zeros of the shape of one step of `x`, `[T, ...]`, also where `x` has no steps."""
    return ops.zeros(ops.shape(x)[1:], dtype=x.dtype)


def folded(x, number, size, fill: float = 0.0, at_start: bool = False):
    """The steps of `x` in rows, `[T, ...]` to `[number, size, ...]`.

    Args:
        x: of at most `number * size` steps.
        number, size: integers, or tensors of one.
        fill: the value of the steps that are added.
        at_start: whether they are added before the others.
    """
    added = number * size - ops.shape(x)[0]
    if not (isinstance(added, int) and added == 0):
        more = ops.full((added, *ops.shape(x)[1:]), fill, dtype=x.dtype)
        x = ops.concatenate([more, x] if at_start else [x, more], axis=0)
    return ops.reshape(x, (number, size, *ops.shape(x)[1:]))


def unfolded(x, length, at_start: bool = False):
    """The `length` steps of what `folded` returned, `[number, size, ...]` to `[T, ...]`."""
    number, size = ops.shape(x)[:2]
    x = ops.reshape(x, (number * size, *ops.shape(x)[2:]))
    return x[number * size - length :] if at_start else x[:length]


def time_major(mask, dtype="bool"):
    """A mask `[B, T]` as `[T, B]`."""
    # Transposed as numbers: oneDNN does not transpose booleans, and logs that in each process.
    return ops.cast(ops.transpose(ops.cast(mask, "float32")), dtype)


# What `full_precision` returns, in the types of the backend: a loop asks for it in each step.
_FULL = set()


def full_precision(x):
    """A tensor, or a tuple or list of tensors, in float32 if it has half precision.

    Sums of many terms need it: in bfloat16, 256 + 1 is 256.

    >>> full_precision(ops.zeros(3, "bfloat16")).dtype
    tf.float32
    """
    if isinstance(x, (tuple, list)):
        return tuple(full_precision(y) for y in x)
    if not isinstance(x, keras.Variable) and x.dtype in _FULL:
        return x
    dtype = keras.backend.standardize_dtype(x.dtype)
    x = ops.cast(x, keras.backend.result_type(dtype, "float32"))
    _FULL.add(x.dtype)
    return x


def is_half(dtype) -> bool:
    """Whether a dtype has half precision."""
    return keras.backend.standardize_dtype(dtype) in ("float16", "bfloat16")


def cast_to(x, dtype):
    """A tensor in a dtype, which may be one of the backend."""
    if not isinstance(x, keras.Variable) and x.dtype == dtype:
        return x
    return ops.cast(x, keras.backend.standardize_dtype(dtype))


def cast_like(xs, others) -> tuple:
    """The tensors `xs` in the dtypes of the tensors `others`."""
    return tuple(cast_to(x, other.dtype) for x, other in zip(xs, others, strict=True))


def log_sigmoid(x):
    """The logarithm of the logistic function, of operations that LiteRT has built in."""
    return ops.minimum(x, 0.0) - ops.log(1 + ops.exp(-ops.abs(x)))


def sigmoid_gradient(y, d_y):
    """The gradient of x from that of y = sigmoid(x)."""
    return d_y * y * (1 - y)


def tanh_gradient(y, d_y):
    """The gradient of x from that of y = tanh(x)."""
    return d_y * (1 - y * y)


def add_bias(x, bias):
    """`x + bias` in the dtype of `x`, with the gradient of the bias summed in float32.

    Args:
        x: `[..., K]`.
        bias: `[K]`, a tensor or a variable, or None.
    """
    if bias is None:
        return x
    bias = ops.convert_to_tensor(bias)
    return cast_to(ops.add(full_precision(x), full_precision(bias)), x.dtype)
