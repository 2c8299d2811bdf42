"""The forms of the linear recurrence equal each other and the definition, with their gradients."""

import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.checks import assert_near
from tests.parameters import first_of
from unroll.layers import backend
from unroll.layers.recurrent.linear_recurrence import FORMS, linear_recurrence

B, U = 3, 2
LENGTHS = (7, 1, 2, 3, 16, 17, 64, 101, 1023, 4096)


def definition(a, b, h, mask, reverse):
    """The recurrence of complex or real numbers in float64, and its gradients."""
    before, outputs = np.empty_like(b), np.empty_like(b)
    steps = range(len(b))[::-1] if reverse else range(len(b))
    for t in steps:
        before[t] = h
        h = np.where(mask[t][:, None], a[t] * h + b[t], h)
        outputs[t] = h

    def gradients(d_outputs, d_last):
        d_a, d_b, d_h = np.zeros_like(a), np.zeros_like(b), d_last
        for t in reversed(steps):
            g = d_h + d_outputs[t]
            keep = mask[t][:, None]
            d_a[t] = np.where(keep, np.conj(before[t]) * g, 0)
            d_b[t] = np.where(keep, g, 0)
            d_h = np.where(keep, np.conj(a[t]) * g, g)
        return d_a, d_b, d_h

    return outputs, h, gradients


def parts(x) -> tuple:
    """A complex array as its real and imaginary part."""
    return (x.real, x.imag) if np.iscomplexobj(x) else (x,)


def example(length: int, is_complex: bool):
    """a (near 0, near 1 and between), b, h, cotangents and a mask with gaps anywhere."""
    rng = np.random.default_rng(length)

    def normal(*shape):
        x = rng.normal(size=shape)
        return x + 1j * rng.normal(size=shape) if is_complex else x

    size = rng.choice([1e-9, 0.3, 0.9, 1 - 1e-9], size=(length, B, U))
    phase = np.exp(1j * rng.normal(size=size.shape)) if is_complex else rng.choice([1.0, -1.0])
    mask = rng.random((length, B)) < 0.8
    mask[:, 1] = False
    return size * phase, normal(length, B, U), normal(B, U), mask, normal, rng


@pytest.mark.parametrize("length", first_of(LENGTHS))
@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("masked", first_of([True, False]), ids=["masked", "full"])
@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_the_definition(form, masked, reverse, is_complex, length):
    a, b, h, mask, normal, _ = example(length, is_complex)
    kept = mask if masked else np.ones_like(mask)
    outputs, last, gradients = definition(a, b, h, kept, reverse)
    d_outputs, d_last = normal(*b.shape), normal(*h.shape)
    expected = [*parts(outputs), *parts(last)]
    expected_gradients = [p for x in gradients(d_outputs, d_last) for p in parts(x)]

    def run(*primals):
        n = len(primals) // 3
        found = linear_recurrence(
            primals[:n],
            primals[n : 2 * n],
            primals[2 * n :],
            ops.convert_to_tensor(mask) if masked else None,
            reverse,
            form,
        )
        return (*found[0], *found[1])

    def tensors(*arrays):
        return tuple(
            ops.convert_to_tensor(p, dtype=running.PRECISE) for x in arrays for p in parts(x)
        )

    primals, cotangents = tensors(a, b, h), tensors(d_outputs, d_last)
    found = [running.numpy(x) for x in run(*primals)]
    assert_near(found, expected, running.EXACT)
    found = [running.numpy(x) for x in backend.vjp(run, primals, cotangents)]
    assert_near(found, expected_gradients, 10 * running.EXACT, "gradients")
