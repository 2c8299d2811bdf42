"""The time loop's own gradient against automatic differentiation of a plain loop."""

from itertools import product

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.case import MASK, B, T, U
from tests.layers.checks import assert_near
from unroll.layers.recurrent import recurrence as module
from unroll.layers.recurrent.recurrence import recurrence

V, G = 7, 11  # the size of the second state, the columns of R


SUMMED = 6


def step(z, states, decay, gain):
    """Two states of different sizes and two weights; h does not see itself but through z."""
    _, slow = states
    if z.shape[-1] > G:  # only the first columns are summed
        summed, x, product = z[..., :SUMMED], z[..., SUMMED:G], z[..., G:]
        z = ops.concatenate([summed, x * product], axis=-1)
    slow = ops.sigmoid(decay) * slow + z[..., U:]  # [..., V]
    return ops.tanh(z[..., :U] + gain * slow[..., :U]), slow


def plain_loop(inputs, h, slow, kernel, decay, gain, summed, mask, dropout_mask, reverse):
    states, collected = [h, slow], [None] * T
    for t in reversed(range(T)) if reverse else range(T):
        h = states[0] if dropout_mask is None else states[0] * dropout_mask
        x, product = inputs[t], ops.matmul(h, kernel)
        z = x + product
        if summed is not None:
            z = ops.concatenate([z[:, :summed], x[:, summed:], product[:, summed:]], axis=-1)
        new = step(z, states, decay, gain)
        if mask is not None:
            new = [ops.where(mask[t][:, None], a, b) for a, b in zip(new, states, strict=True)]
        states = list(new)
        collected[t] = states[0]
    return (ops.stack(collected), *states)


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="PyTorch differentiates the loop by itself"
)
@pytest.mark.parametrize("summed", [None, SUMMED])
@pytest.mark.parametrize(("masked", "dropped", "reverse"), list(product((False, True), repeat=3)))
def test_gradient_is_that_of_a_plain_loop(masked, dropped, reverse, summed):
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
            summed=summed,
            mask=mask,
            dropout_mask=dropout_mask,
            reverse=reverse,
        )
        return (outputs, *states)

    def by_plain_loop(*arguments):
        return plain_loop(*arguments, summed, mask, dropout_mask, reverse)

    found, expected = (
        [
            [running.numpy(x) for x in function(*primals)],
            [running.numpy(x) for x in module.backend.vjp(function, primals, cotangents)],
        ]
        for function in (by_recurrence, by_plain_loop)
    )
    assert_near(found[0], expected[0], running.EXACT)
    assert_near(found[1], expected[1], 10 * running.EXACT, "gradients")
