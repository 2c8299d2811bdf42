"""The checks of every differentiable layer: second derivatives, and forward mode on JAX."""

import keras
import numpy as np

from tests.layers import running
from tests.layers.case import Case
from tests.layers.checks import assert_near
from tests.layers.robustness_checks import given_states

BACKEND = running.BACKEND


def small(case: Case) -> tuple:
    """A batch of two for a function of the inputs alone, and the layer that it calls."""
    inputs = case.inputs[:2].astype(running.PRECISE)
    states = [s[:2].astype(running.PRECISE) for s in given_states(case)]
    return case.shared(("precise",), lambda: case.build()), inputs, states


def check_second_order(case: Case):
    """The gradient of a gradient equals differences of gradients, compiled where Keras compiles."""
    layer, inputs, states = small(case)
    direction = np.random.default_rng(50).normal(size=inputs.shape)
    step = 1e-5 if running.PRECISE == "float64" else 1e-2
    function = {"tensorflow": _twice_tensorflow, "jax": _twice_jax, "torch": _twice_torch}[BACKEND]
    apply = function(layer, states)
    _, found = apply(inputs, direction)
    above, below = (apply(inputs + s * direction, direction)[0] for s in (step, -step))
    expected = (above - below) / (2 * step)
    scale = max(1.0, np.abs(expected).max())
    tolerance = 1e-5 if running.PRECISE == "float64" else 2e-2
    assert_near([found / scale], [expected / scale], tolerance)


def _energy(layer, x, states):
    """A function of the inputs that is not linear in the outputs."""
    outputs = running.call(layer, x, states)
    return sum(keras.ops.sum(keras.ops.square(y)) for y in outputs)


def _twice_tensorflow(layer, states):
    import tensorflow as tf

    @tf.function(jit_compile=True, autograph=False)
    def apply(x, direction):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                energy = _energy(layer, x, [tf.constant(s) for s in states])
            gradient = inner.gradient(energy, x)
            slope = tf.reduce_sum(gradient * direction)
        return gradient, outer.gradient(slope, x)

    return lambda *given: [y.numpy() for y in apply(*map(tf.constant, given))]


def _twice_jax(layer, states):
    import jax

    def gradient(x):
        return jax.grad(lambda x: _energy(layer, x, states))(x)

    def apply(x, direction):
        return gradient(x), jax.grad(lambda x: (gradient(x) * direction).sum())(x)

    compiled = jax.jit(apply)
    return lambda *given: [np.asarray(y) for y in compiled(*(x.astype("float32") for x in given))]


def _twice_torch(layer, states):
    import torch

    def apply(x, direction):
        x = torch.tensor(x, dtype=torch.float32, requires_grad=True)
        energy = _energy(layer, x, [torch.tensor(s) for s in states])
        (gradient,) = torch.autograd.grad(energy, x, create_graph=True)
        slope = (gradient * torch.tensor(direction, dtype=torch.float32)).sum()
        (second,) = torch.autograd.grad(slope, x)
        return gradient.detach().numpy(), second.numpy()

    return apply


def check_forward_mode(case: Case):
    """On JAX: a Jacobian times a vector, of inputs and weights, fits the gradients."""
    import jax

    layer, inputs, states = small(case)
    weights = [w.value for w in layer.trainable_variables]

    def function(x, values):
        mapping = list(zip(layer.trainable_variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return running.call(layer, x, states)

    def both(x, values, d_x, d_values, factors):
        _, tangents = jax.jvp(function, (x, values), (d_x, d_values))
        forward = sum((c * y).sum() for c, y in zip(factors, tangents, strict=True))
        _, pullback = jax.vjp(function, x, values)
        g_x, g_values = pullback(factors)
        pairs = [(g_x, d_x), *zip(g_values, d_values, strict=True)]
        return forward, sum((g * d).sum() for g, d in pairs)

    rng = np.random.default_rng(51)

    def like(x):
        return rng.normal(size=x.shape).astype("float32")

    outputs = jax.eval_shape(function, inputs, weights)
    forward, reverse = jax.jit(both)(
        inputs, weights, like(inputs), [like(w) for w in weights], [like(y) for y in outputs]
    )
    assert_near([forward], [reverse], 1e-3)


# Saving
