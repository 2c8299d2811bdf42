"""Runs a layer, with its gradients, on the backend that Keras uses."""

from typing import NamedTuple

import keras
import numpy as np

BACKEND = keras.backend.backend()
# Keras's operations support float64 on TensorFlow only. The oracle and its central differences are
# float64 on each backend.
PRECISE = "float64" if BACKEND == "tensorflow" else "float32"
EXACT = 1e-12 if BACKEND == "tensorflow" else 2e-5
SLOPE = 1e-7 if BACKEND == "tensorflow" else 2e-4
# The fastest mode for a single call, and the modes that must give the same results. A TensorFlow
# graph ("graph") has dynamic batch and time axes, "xla" has static shapes.
QUICK = {"tensorflow": "eager", "jax": "xla", "torch": "eager"}[BACKEND]
OTHER_MODES = {"tensorflow": ("graph", "xla"), "jax": ("eager",), "torch": ()}[BACKEND]
# Eager gradients are not tested on JAX: it compiles each operation, which takes long.
GRADIENT_MODES = {"jax": ("xla",)}.get(BACKEND, ("eager", "graph", "xla"))
# The policies to test, and how far their outputs may differ from those of float32.
POLICIES = {"mixed_bfloat16": 0.06, "mixed_float16": 0.01}
if BACKEND == "torch":
    POLICIES.pop("mixed_bfloat16")


class Result(NamedTuple):
    outputs: list[np.ndarray]
    dtypes: list[str]
    # With respect to the inputs (None for integers), each state and each trainable weight.
    gradients: list[np.ndarray]


# How to call a layer that has other arguments than a sequence, an initial state and a mask:
# `f(layer, inputs, states, mask, training)`, where the states are its other inputs, `[B, size]`.
CALLS = {}

# Compiled functions by layer and options. They keep their layer alive, so no id is reused.
_COMPILED = {}


def call(layer, inputs, states=(), mask=None, training=False) -> list:
    """Calls a layer and returns its outputs as a flat list of tensors."""
    if type(layer) in CALLS:
        return keras.tree.flatten(CALLS[type(layer)](layer, inputs, states, mask, training))
    arguments = {}
    if len(states):
        arguments["initial_state"] = list(states)
    if mask is not None:
        arguments["mask"] = mask
    if training:
        arguments["training"] = True
    return keras.tree.flatten(layer(inputs, **arguments))


def outputs(layer, inputs, states=(), mask=None, training=False) -> list[np.ndarray]:
    """The outputs of an eager call, as arrays."""
    found = call(layer, *tensors(inputs, list(states), mask), training=training)
    return [numpy(x) for x in found]


def in_graph(function):
    """A function as a graph on TensorFlow, where an eager loop over many steps takes seconds."""
    if BACKEND != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, autograph=False)


def tensors(*structures):
    return keras.tree.map_structure(
        lambda x: None if x is None else keras.ops.convert_to_tensor(x),
        structures,
        none_is_leaf=True,
    )


def numpy(x) -> np.ndarray:
    x = keras.ops.convert_to_numpy(x)
    return x if x.dtype.kind in "fiub" and x.dtype.name != "bfloat16" else x.astype("float32")


def evaluate(
    layer, inputs, states=(), mask=None, cotangents=None, training=False, mode=QUICK
) -> Result:
    """The outputs of a built layer, and the gradients of the sum of outputs times `cotangents`."""
    given = tensors(inputs, list(states), mask)
    weights = layer.trainable_variables
    function = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[BACKEND]
    found, gradients = function(layer, given, weights, cotangents or [], training, mode)
    if len(gradients) and np.asarray(inputs).dtype.kind != "f":
        gradients = [None, *gradients[1:]]
    dtypes = [keras.backend.standardize_dtype(x.dtype) for x in found]
    return Result(
        [numpy(x) for x in found], dtypes, [None if g is None else numpy(g) for g in gradients]
    )


def _tensorflow(layer, given, weights, cotangents, training, mode):
    import tensorflow as tf

    inputs, states, mask = given
    n, masked = 1 + len(states), mask is not None

    def run(*flat):
        inputs, states, cotangents = flat[0], list(flat[1:n]), flat[n + masked :]
        with tf.GradientTape() as tape:
            tape.watch((inputs, states))
            found = call(layer, inputs, states, flat[n] if masked else None, training)
        if not cotangents:
            return found, []
        gradients = tape.gradient(
            found,
            [inputs, *states, *(w.value for w in weights)],
            output_gradients=[tf.cast(c, y.dtype) for c, y in zip(cotangents, found, strict=True)],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return found, [tf.convert_to_tensor(g) for g in gradients]

    flat = [inputs, *states, *([mask] if masked else []), *(tf.constant(c) for c in cotangents)]
    if mode == "eager":
        return run(*flat)
    signature = [_dynamic(x) for x in flat] if mode == "graph" else None
    key = (id(layer), mode, training, n, masked, len(cotangents), str(signature))
    if key not in _COMPILED:
        # Without AutoGraph, as in `fit`. The check of SavedModels traces with it.
        _COMPILED[key] = tf.function(
            run, input_signature=signature, jit_compile=mode == "xla", autograph=False
        )
    return _COMPILED[key](*flat)


def _dynamic(x):
    """The specification of a tensor whose batch and time axes are dynamic."""
    import tensorflow as tf

    axes = 1 if x.shape.rank < 3 and x.dtype.is_floating else 2
    return tf.TensorSpec([None] * axes + x.shape[axes:], x.dtype)


def _jax(layer, given, weights, cotangents, training, mode):
    import jax

    inputs, *_ = given
    integers = inputs.dtype.kind != "f"
    variables = layer.non_trainable_variables

    def run(values, other_values, inputs, states, mask, cotangents):
        def function(values, x, states):
            new = zip([*weights, *variables], [*values, *other_values], strict=True)
            with keras.StatelessScope(state_mapping=list(new)) as scope:
                found = call(layer, inputs if integers else x, states, mask, training)
            return found, [scope.get_current_value(v) for v in variables]

        x = np.zeros(()) if integers else inputs
        if not cotangents:
            found, after = function(values, x, states)
            return found, [], after
        found, pullback, after = jax.vjp(function, values, x, states, has_aux=True)
        d_values, d_x, d_states = pullback(
            [jax.numpy.asarray(c, y.dtype) for c, y in zip(cotangents, found, strict=True)]
        )
        return found, [d_x, *d_states, *d_values], after

    if mode == "xla":
        run = _COMPILED.setdefault((id(layer), training), jax.jit(run))
    found, gradients, after = run(
        [w.value for w in weights], [v.value for v in variables], *given, cotangents
    )
    for variable, value in zip(variables, after, strict=True):
        variable.assign(value)
    return found, gradients


def _torch(layer, given, weights, cotangents, training, mode):
    import torch

    inputs, states, mask = given
    integers = not inputs.is_floating_point()
    wanted = [x.requires_grad_() for x in ([] if integers else [inputs]) + list(states)]
    wanted += [w.value for w in weights]
    found = call(layer, inputs, states, mask, training)
    if not cotangents:
        return found, []
    total = sum(
        (y * torch.as_tensor(c, dtype=y.dtype, device=y.device)).sum()
        for y, c in zip(found, cotangents, strict=True)
    )
    gradients = torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)
    return found, ([None] if integers else []) + list(gradients)
