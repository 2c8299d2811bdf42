"""Runs a layer, and takes its gradients, on whichever backend there is."""

from typing import NamedTuple

import keras
import numpy as np

BACKEND = keras.backend.backend()
# Where nothing is said of the shapes, TensorFlow's graphs are traced for any batch and length.
MODES = {"tensorflow": ("eager", "graph", "xla"), "jax": ("eager", "xla"), "torch": ("eager",)}[
    BACKEND
]
# The mode that costs least for one call.
QUICK = "xla" if BACKEND == "jax" else "eager"
# The operations of Keras know float64 on TensorFlow alone. The oracle and its central differences
# are of float64 in any case.
PRECISE = "float64" if BACKEND == "tensorflow" else "float32"
EXACT = 1e-12 if BACKEND == "tensorflow" else 2e-5
SLOPE = 1e-7 if BACKEND == "tensorflow" else 2e-4


class Result(NamedTuple):
    outputs: list[np.ndarray]
    dtypes: list[str]
    # Of the inputs (None for integers), of each state, of each trainable weight.
    gradients: list[np.ndarray]


# How a layer is called that takes more than sequences, an initial state and a mask:
# `f(layer, inputs, states, mask, training)`, where the states are its other inputs, `[B, size]`.
CALLS = {}


def call(layer, inputs, states=(), mask=None, training=False) -> list:
    """The layer's outputs as a flat list of tensors, of tensors or arrays."""
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
    """The layer's outputs as arrays, called as a user calls it."""
    found = call(layer, *tensors(inputs, list(states), mask), training=training)
    return [numpy(x) for x in found]


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
    """Outputs, and the gradients of the sum of outputs times `cotangents`."""
    given = tensors(inputs, list(states), mask)
    weights = layer.trainable_variables
    cotangents = cotangents or []
    function = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[BACKEND]
    found, gradients = function(layer, given, weights, cotangents, training, mode)
    if len(gradients) and np.asarray(inputs).dtype.kind != "f":
        gradients = [None, *gradients[1:]]
    dtypes = [keras.backend.standardize_dtype(x.dtype) for x in found]
    return Result(
        [numpy(x) for x in found], dtypes, [None if g is None else numpy(g) for g in gradients]
    )


def _tensorflow(layer, given, weights, cotangents, training, mode):
    import tensorflow as tf

    def run(inputs, states, mask):
        with tf.GradientTape() as tape:
            tape.watch((inputs, states))
            found = call(layer, inputs, states, mask, training)
        if not cotangents:
            return found, []
        wanted = [inputs, *states, *(w.value for w in weights)]
        gradients = tape.gradient(
            found,
            wanted,
            output_gradients=[tf.cast(c, y.dtype) for c, y in zip(cotangents, found, strict=True)],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return found, [tf.convert_to_tensor(g) for g in gradients]

    if mode == "eager":
        return run(*given)
    if mode == "xla":
        return tf.function(run, jit_compile=True)(*given)
    inputs, states, mask = given

    def spec(x, dynamic):
        return tf.TensorSpec([None] * dynamic + x.shape[dynamic:], x.dtype)

    signature = (
        spec(inputs, 2),
        [spec(s, 1) for s in states],
        None if mask is None else spec(mask, 2),
    )
    if mask is None:
        traced = tf.function(lambda x, s: run(x, s, None), input_signature=signature[:2])
        return traced(inputs, states)
    return tf.function(run, input_signature=signature)(*given)


def _jax(layer, given, weights, cotangents, training, mode):
    import jax

    inputs, states, mask = given
    integers = inputs.dtype.kind != "f"
    seeds = layer.non_trainable_variables

    def run(values, seed_values, inputs, states):
        def function(values, x, states):
            mapping = [*zip(weights, values, strict=True), *zip(seeds, seed_values, strict=True)]
            with keras.StatelessScope(state_mapping=mapping) as scope:
                found = call(layer, inputs if integers else x, states, mask, training)
            return found, [scope.get_current_value(v) for v in seeds]

        x = np.zeros(()) if integers else inputs
        found, pullback, after = jax.vjp(function, values, x, states, has_aux=True)
        if not cotangents:
            return found, [], after
        d_values, d_x, d_states = pullback(
            [jax.numpy.asarray(c, y.dtype) for c, y in zip(cotangents, found, strict=True)]
        )
        return found, [d_x, *d_states, *d_values], after

    if mode == "xla":
        run = jax.jit(run)
    found, gradients, after = run(
        [w.value for w in weights], [s.value for s in seeds], inputs, states
    )
    for variable, value in zip(seeds, after, strict=True):
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
        (y * torch.as_tensor(c, dtype=y.dtype)).sum()
        for y, c in zip(found, cotangents, strict=True)
    )
    gradients = torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)
    return found, ([None] if integers else []) + list(gradients)
