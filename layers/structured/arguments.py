"""Checks of the values of arguments."""

from keras import ops


def require(is_valid, x, name: str, allowed: str):
    """`is_valid`; in eager mode, a `ValueError` if it is False for an element of `x`.

    The values of a graph are not known when it is traced.

    >>> import numpy as np
    >>> x = np.array([1, 5])
    >>> require(x < 4, x, "labels", "below 4")
    Traceback (most recent call last):
    ValueError: labels must be below 4, got 5.
    """
    try:
        valid, values = ops.convert_to_numpy(is_valid), ops.convert_to_numpy(x)
    except (NotImplementedError, TypeError):  # of a graph of TensorFlow, of a tracer of JAX
        return is_valid
    if not valid.all():
        raise ValueError(f"{name} must be {allowed}, got {values[~valid][0]}.")
    return is_valid
