"""The mLSTM over chunks of steps equals its step in Keras's loop, with all gradients."""

from functools import partial

import keras
import numpy as np
import pytest

from tests import reference
from tests.layers import running
from tests.parameters import first_of
from unroll import layers

B, D, U = 3, 5, 6
# The length, and whether the layer reads backwards and has a mask; around one and two chunks of 64.
EXAMPLES = (
    (70, False, True),
    (1, False, True),
    (2, True, False),
    (63, True, True),
    (64, False, False),
    (65, True, True),
    (128, False, True),
    (129, True, False),
    (300, True, True),
)
OPTIONS = {"heads": 2, "key_size": 5, "return_sequences": True, "return_state": True}


def example(length: int):
    """Sequences and a mask with gaps; no step of the second sequence is kept."""
    rng = np.random.default_rng(length)
    mask = rng.random((B, length)) < 0.8
    mask[1] = False
    return rng.normal(size=(B, length, D)), mask, rng


def built(dtype=running.PRECISE, scale=0.6, **options):
    layer = layers.MLSTM(U, dtype=dtype, **OPTIONS, **options)
    layer.build((None, None, D))
    rng = np.random.default_rng(2)
    layer.set_weights([rng.normal(size=w.shape, scale=scale) for w in layer.weights])
    return layer


def assert_precise(found, expected, tolerance: float):
    """The tolerance is that of the largest number of each array, which is large without decay."""
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        error, size = np.abs(a - b).max(), max(1.0, np.abs(b).max())
        assert error <= tolerance * size, f"number {k} is off by {error:.2g} of {size:.2g}"


@pytest.mark.parametrize("case", first_of(EXAMPLES), ids=str)
@pytest.mark.parametrize("forget_activation", first_of(("sigmoid", "exponential")))
def test_chunks_equal_the_steps(forget_activation, case):
    length, reverse, masked = case
    layer = built(go_backwards=reverse, forget_activation=forget_activation)
    steps = keras.layers.RNN(
        layer.cell,
        return_sequences=True,
        return_state=True,
        go_backwards=reverse,
        dtype=running.PRECISE,
    )
    inputs, mask, rng = example(length)
    mask = mask if masked else None
    states = [rng.normal(size=(B, size)) for size in layer.state_size]
    shapes = [(B, length, U), *((B, size) for size in layer.state_size)]
    factors = [rng.normal(size=shape) for shape in shapes]
    if masked:  # Keras returns zeros before the first step that is not masked
        factors[0] *= (mask[:, ::-1] if reverse else mask)[..., None]
    modes = (running.QUICK,)
    if running.BACKEND == "tensorflow":  # of dynamic and of static length; the last one is compiled
        modes = {70: ("graph",), 300: ("graph", "eager", "xla")}.get(length, ("graph", "eager"))
    expected = running.evaluate(steps, inputs, states, mask, factors, mode=modes[0])
    for mode in modes:
        found = running.evaluate(layer, inputs, states, mask, factors, mode=mode)
        if masked:
            kept = factors[0] != 0
            found.outputs[0] *= kept
            expected.outputs[0] *= kept
        assert_precise(found.outputs, expected.outputs, running.EXACT)
        assert_precise(found.gradients, expected.gradients, 10 * running.EXACT)


@pytest.mark.parametrize("size", first_of((300.0, -300.0)))
@pytest.mark.parametrize("forget_activation", first_of(("sigmoid", "exponential")))
def test_it_is_finite_for_gates_beyond_the_range_of_exp(forget_activation, size):
    layer = built("float32", forget_activation=forget_activation)
    inputs, mask, _ = example(9)
    inputs[:, 4] = 0  # with q = 0, and no bias, the quotient is 0 / 0 without a limit
    kernel, bias = layer.get_weights()
    layer.set_weights([size * kernel, 0 * bias])
    factors = [np.ones((B, 9, U)), *(np.ones((B, size)) for size in layer.state_size)]
    found = running.evaluate(layer, inputs.astype("float32"), (), mask, factors)
    for array in (*found.outputs, *found.gradients):
        assert np.isfinite(array).all()


@pytest.mark.exhaustive
@pytest.mark.parametrize("scale", [3.0, 10.0])
def test_gates_near_0_and_1_are_precise_in_float32(scale):
    layer = built("float32", scale)
    inputs, mask, _ = example(200)
    states = reference.zeros(inputs, *layer.state_size)
    expected = partial(reference.mlstm, heads=2)(layer.get_weights(), inputs, states, mask)
    found = running.outputs(layer, inputs.astype("float32"), (), mask)
    assert_precise(found, expected, 1e-3)
