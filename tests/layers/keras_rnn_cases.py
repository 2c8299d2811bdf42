"""Layers with constant weights, and inputs, for the tests beside Keras's layers."""

import keras
import numpy as np
import pytest

from tests.layers import running
from unroll import layers

ALL = pytest.mark.parametrize("layer_class", [layers.LSTM, layers.GRU, layers.ElmanRNN])
CELLS = {
    layers.LSTM: layers.LSTMCell,
    layers.GRU: layers.GRUCell,
    layers.ElmanRNN: layers.ElmanRNNCell,
}
TOLERANCE = 1e-5


def counting(*shape) -> np.ndarray:
    """The numbers from zero, in the given shape."""
    return np.arange(np.prod(shape)).reshape(shape).astype("float32")


LONG, SHORT, NARROW = counting(3, 6, 4), counting(2, 3, 4), counting(2, 4, 3)
GAPS = np.array([[True, True, False, True], [True, False, False, True]])
RIGHT = np.array([[True, True, True, False], [True, True, False, False]])
LEFT = np.array([[False, True, True, True], [False, False, True, True]])


def constant(layer_class, units: int, kernel=0.01, recurrent=0.02, bias=0.03, **options):
    """A layer whose weights are constants."""
    return layer_class(
        units,
        kernel_initializer=keras.initializers.Constant(kernel),
        recurrent_initializer=keras.initializers.Constant(recurrent),
        bias_initializer=keras.initializers.Constant(bias),
        **options,
    )


def called(layer, *inputs, **arguments) -> list[np.ndarray]:
    return [running.numpy(y) for y in keras.tree.flatten(layer(*inputs, **arguments))]


def columns(values, units: int) -> np.ndarray:
    """The given values for each of the units."""
    return np.repeat(np.array(values)[..., None], units, axis=-1)


def label(value):
    if isinstance(value, dict):
        return "-".join(f"{k}={v}" for k, v in value.items()) or "plain"
    return value if isinstance(value, str) else None
