"""The gradient of the time loop is that of a plain loop, by automatic differentiation."""

import sys
from itertools import product

import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.case import MASK, SEQUENCES, B, T, U
from tests.layers.checks import assert_near
from unroll import layers
from unroll.layers import backend
from unroll.layers.recurrent.recurrence import StepWithGradient, pre_activation, recurrence

V, G = 7, 11  # the size of the second state, and the number of columns of R
ADDED = 6


def step(z, states, decay, gain):
    """Two states of different sizes and two weights; h depends on itself only through z."""
    _, slow = states
    if z.shape[-1] > G:  # only the first columns are added
        added, x, product = z[..., :ADDED], z[..., ADDED:G], z[..., G:]
        z = ops.concatenate([added, x * product], axis=-1)
    slow = ops.sigmoid(decay) * slow + z[..., U:]  # [..., V]
    return ops.tanh(z[..., :U] + gain * slow[..., :U]), slow


def plain_loop(inputs, h, slow, kernel, decay, gain, added, mask, dropout_mask, reverse):
    states, collected = [h, slow], [None] * T
    for t in reversed(range(T)) if reverse else range(T):
        h = states[0] if dropout_mask is None else states[0] * dropout_mask
        x, product = inputs[t], ops.matmul(h, kernel)
        z = x + product
        if added is not None:
            z = ops.concatenate([z[:, :added], x[:, added:], product[:, added:]], axis=-1)
        new = step(z, states, decay, gain)
        if mask is not None:
            new = [ops.where(mask[t][:, None], a, b) for a, b in zip(new, states, strict=True)]
        states = list(new)
        collected[t] = states[0]
    return (ops.stack(collected), *states)


@pytest.mark.parametrize("added", [None, ADDED])
@pytest.mark.parametrize(("masked", "dropped", "reverse"), list(product((False, True), repeat=3)))
def test_values_and_gradients_are_those_of_a_plain_loop(masked, dropped, reverse, added):
    rng = np.random.default_rng(10)
    shapes = ((T, B, G), (B, U), (B, V), (U, G), (V,), (U,))
    primals = tuple(
        ops.convert_to_tensor(rng.normal(size=shape, scale=0.7), dtype=running.PRECISE)
        for shape in shapes
    )
    cotangents = tuple(
        ops.convert_to_tensor(rng.normal(size=shape), dtype=running.PRECISE)
        for shape in ((T, B, U), (B, U), (B, V))
    )
    mask = ops.convert_to_tensor(MASK.T) if masked else None
    dropout_mask = None
    if dropped:
        choice = rng.integers(0, 2, size=(B, U)) * 2.0
        dropout_mask = ops.convert_to_tensor(choice, dtype=running.PRECISE)

    def by_recurrence(inputs, h, slow, kernel, decay, gain):
        outputs, states = recurrence(
            step,
            inputs,
            (h, slow),
            kernel,
            (decay, gain),
            added_columns=added,
            mask=mask,
            dropout_mask=dropout_mask,
            reverse=reverse,
        )
        return (outputs, *states)

    def by_plain_loop(*arguments):
        return plain_loop(*arguments, added, mask, dropout_mask, reverse)

    found, expected = (
        [
            [running.numpy(x) for x in function(*primals)],
            [running.numpy(x) for x in backend.vjp(function, primals, cotangents)],
        ]
        for function in (by_recurrence, by_plain_loop)
    )
    assert_near(found[0], expected[0], running.EXACT)
    assert_near(found[1], expected[1], 10 * running.EXACT, "gradients")


# The sizes of the weights of each step that has a gradient of its own.
OWN_GRADIENTS = {
    "LSTM": (),
    "PeepholeLSTM": (U, U, U),
    "CoupledLSTM": (),
    "ContextLSTM": (),
    "LayerNormLSTM": (4 * U, U, U),
}


@pytest.mark.parametrize("name", OWN_GRADIENTS)
def test_a_step_has_the_gradient_that_the_backend_derives(name):
    cell, sizes = getattr(layers, name)(U).cell, OWN_GRADIENTS[name]
    if name == "LayerNormLSTM" and running.BACKEND == "torch":
        assert cell.step_with_gradient is None
        return
    rng = np.random.default_rng(11)
    columns = (2 if cell.added_columns == 0 else 1) * cell.gates * U
    z, h, c, d_h, d_c, *weights = (
        ops.convert_to_tensor(rng.normal(size=shape), dtype=running.PRECISE)
        for shape in ((T, B, columns), *[(T, B, U)] * 4, *((size,) for size in sizes))
    )
    states, d_new = (h, c), (d_h, d_c)
    found, expected = [], []
    for step, into in ((cell.step_with_gradient, found), (StepWithGradient(cell.step), expected)):
        new, stored = step.run(z, states, weights)
        d_z, (d_h, d_c) = step.gradient(stored, states, weights, d_new)
        into += [*new, d_z, ops.zeros_like(h) if d_h is None else d_h, d_c]
        if weights:
            into += step.weight_gradients(stored, states, tuple(weights), d_z, d_new)
    assert_near(*([running.numpy(x) for x in xs] for xs in (found, expected)), 10 * running.EXACT)


class NegatedCell(layers.LSTMCell):
    def step(self, z, states):
        return super().step(-z, states)


class Negated(layers.LSTM):
    cell_class = NegatedCell


def test_a_subclass_with_another_step_has_its_own_gradient():
    """An LSTM of the negated weights has the same outputs, and the negated gradients of weights."""
    first, second = (made(U, dtype=running.PRECISE) for made in (Negated, layers.LSTM))
    for layer in (first, second):
        layer.build(SEQUENCES.shape)
    second.set_weights([-w for w in first.get_weights()])
    cotangents = [np.ones((B, U))]
    found, expected = (
        running.evaluate(layer, SEQUENCES, cotangents=cotangents) for layer in (first, second)
    )
    assert_near(found.outputs, expected.outputs, running.EXACT)
    d_inputs, *d_weights = expected.gradients
    assert_near(found.gradients, [d_inputs, *(-g for g in d_weights)], 10 * running.EXACT)


@pytest.mark.skipif(running.BACKEND != "jax", reason="only JAX does both")
@pytest.mark.parametrize("name", [*OWN_GRADIENTS, "GRU", "SCRN", "IndRNN", "SRU", "MinGRU"])
def test_a_loop_may_project_its_inputs_and_sum_the_gradients_of_weights(name, monkeypatch):
    made = [getattr(layers, name)(U, return_sequences=True) for _ in range(3)]
    for layer in made:
        layer.build(SEQUENCES.shape)
        layer.set_weights(made[0].get_weights())
    rng = np.random.default_rng(12)
    cotangents = [rng.normal(size=(B, T, made[0].cell.output_size)).astype("float32")]
    inputs, found = SEQUENCES.astype("float32"), []
    for layer, in_loop, batch in zip(made, (False, True, True), (1, B + 1, B), strict=True):
        monkeypatch.setattr(backend, "computes_in_loops", lambda chosen=in_loop: chosen)
        module = sys.modules[recurrence.__module__]
        monkeypatch.setattr(module, "MIN_BATCH_OF_PRODUCTS", batch)
        monkeypatch.setattr(module, "MIN_WEIGHTS_OF_PRODUCTS", 1)
        found.append(running.evaluate(layer, inputs, mask=MASK, cotangents=cotangents))
    for other in found[1:]:
        assert_near(other.outputs, found[0].outputs, running.EXACT)
        assert_near(other.gradients, found[0].gradients, 10 * running.EXACT)


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        (None, [[11, 22, 33]]),
        (3, [[11, 22, 33]]),
        (2, [[11, 22, 3, 30]]),
        (0, [[1, 2, 3, 10, 20, 30]]),
    ],
)
def test_pre_activation_adds_the_first_columns(added, expected):
    found = pre_activation(np.array([[1.0, 2, 3]]), np.array([[10.0, 20, 30]]), added)
    assert running.numpy(found).tolist() == expected
