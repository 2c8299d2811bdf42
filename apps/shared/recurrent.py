"""Options and blocks of recurrent networks."""

import inspect

from unroll import layers
from unroll.layers.recurrent import RECURRENT_LAYERS


def require_cell(name: str, value: str) -> None:
    """Raises a `ValueError` if `value` is not the name of a recurrent layer of `layers`."""
    if value not in RECURRENT_LAYERS:
        known = ", ".join(RECURRENT_LAYERS)
        raise ValueError(f"{name} must be one of {known}, got {value!r}.")


def has_argument(cell: str, name: str) -> bool:
    """Whether the recurrent layer of this name has an argument, such as a rate of dropout."""
    return name in inspect.signature(getattr(layers, cell)).parameters


def recurrent_layers(cell: str, units: int, depth: int) -> list:
    """`depth` recurrent layers, for `layers.Stack`."""
    return [getattr(layers, cell)(units) for _ in range(depth)]
