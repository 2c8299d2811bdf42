"""The checks of every layer as a Keras layer: ways to save it, quantization, policies, configs."""

import copy
import inspect
import json
import pickle
import tempfile
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np

from tests.layers import running
from tests.layers.case import Case
from tests.layers.checks import assert_near, config_of, constructor_arguments
from tests.layers.function_cases import FUNCTION_NAMES
from tests.layers.recurrent_checks import assert_refused
from tests.layers.robustness_checks import (
    call_arguments,
    given_states,
    symbolic_states,
    untrained,
    with_dtype,
)


def functional(case: Case, layer) -> keras.Model:
    """A model of the layer alone, with an input for each tensor of the call."""
    arguments = _arrays(case, layer)
    time = case.inputs.shape[1] if case.dynamic > 1 else None

    def symbolic(x):
        dims = [None if k == 0 and n == time else n for k, n in enumerate(x.shape[1:])]
        return keras.Input(dims, dtype=keras.backend.standardize_dtype(x.dtype))

    (_, first), *others = arguments.items()
    first = symbolic(first)
    others = {name: keras.tree.map_structure(symbolic, x) for name, x in others}
    outputs = keras.tree.flatten(layer(first, **others))
    return keras.Model([first, *keras.tree.flatten(list(others.values()))], outputs)


def _arrays(case: Case, layer) -> dict:
    inputs = case.inputs.astype(case.input_dtype)
    states = [s.astype("float32") for s in case.initial_state()]
    return call_arguments(case, layer, inputs, states, case.mask)


def predictions(case: Case, model, layer) -> list[np.ndarray]:
    given = [running.numpy(x) for x in keras.tree.flatten(list(_arrays(case, layer).values()))]
    return [running.numpy(y) for y in keras.tree.flatten(model(running.tensors(given)[0]))]


def check_saved_forms(case: Case):
    """Each way to save or to copy a model gives its outputs again, compiled or not."""
    layer = untrained(case, "float32")
    model = functional(case, layer)
    expected = predictions(case, model, layer)

    def assert_same(other, what: str):
        assert config_of(other.get_layer(layer.name)) == config_of(layer), what
        assert_near(predictions(case, other, layer), expected, 1e-6, what)

    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_same(clone, "clone_model")
    revived = type(model).from_config(json.loads(json.dumps(model.get_config())))
    revived.set_weights(model.get_weights())
    assert_same(revived, "config as JSON")
    assert_same(copy.deepcopy(model), "deepcopy")
    # Only float outputs have a loss.
    mean = keras.losses.MeanSquaredError
    losses = [mean() if "float" in y.dtype else None for y in model.outputs]
    model.compile("sgd", loss=losses)
    assert_same(pickle.loads(pickle.dumps(model)), "pickle, compiled")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("model.keras", "model.h5"):
            path = Path(folder) / name
            model.save(path)
            assert_same(keras.saving.load_model(path), f"{name}, compiled")
        path = Path(folder) / "model.weights.h5"
        model.save_weights(path)
        clone.set_weights([np.zeros_like(w) for w in clone.get_weights()])
        clone.load_weights(path)
        assert_same(clone, "weights.h5")
    config = case.make().get_config()
    assert type(layer).from_config(copy.deepcopy(config)).get_config() == config


def check_quantize(case: Case):
    """A model quantized to int8 gives the same within its rounding, or a ValueError of ours."""
    layer = with_dtype(replace(case), "float32")
    model = functional(case, layer)
    expected = predictions(case, model, layer)
    with warnings.catch_warnings():
        # Keras warns of each layer that it leaves as it is.
        warnings.filterwarnings("ignore", ".*does not have a `quantize", UserWarning)
        warnings.filterwarnings("ignore", "Layer .* quantize", UserWarning)
        try:
            model.quantize("int8")
        except ValueError as caught:
            error = str(caught)
        else:
            error = None
    if error:
        assert type(layer).__name__ in error or layer.name in error, error
        return
    found = predictions(case, model, layer)
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        # Products of about ten numbers, each of 127 steps: some percent at most.
        error, size = np.sqrt(np.mean((a - b) ** 2)), np.sqrt(np.mean(b**2.0))
        assert error <= 0.03 * size, f"output {k} is off by {error:.2g} of {size:.2g}"


# The protocol of `keras.layers.Layer`


def check_policies(case: Case):
    """The policy of a layer is that of its outputs, real and declared, and of all its parts."""
    policies = ["float64"] if running.BACKEND == "tensorflow" else []
    for policy in (*policies, "mixed_bfloat16", "mixed_float16"):
        layer = untrained(case, policy)
        kind = keras.dtype_policies.get(policy)
        weights = {w.dtype for w in layer.weights if w.dtype.startswith(("float", "bfloat"))}
        assert weights <= {kind.variable_dtype}, f"{policy}: weights of {weights}"
        inputs = case.inputs.astype(case.input_dtype)
        states = given_states(case)
        states = [s.astype("float32") for s in states]
        found = running.call(layer, *running.tensors(inputs, states))
        symbolic = case.symbolic(case.input_dtype)
        spec = running.call(layer, symbolic, symbolic_states(case) if states else ())
        real = [keras.backend.standardize_dtype(y.dtype) for y in found]
        declared = [y.dtype for y in spec]
        assert declared == real, f"{policy}: declared {declared}, real {real}"
        floats = {name for name in real if "float" in name}
        expected = {kind.compute_dtype}
        assert floats <= expected or case.name in FUNCTION_NAMES, f"{policy}: outputs {real}"


def check_built_and_declared(case: Case):
    """`build` creates all weights; `compute_output_shape` is defined, and right."""
    built = untrained(case, "float32")
    layer, inputs = case.make(), case.inputs.astype(case.input_dtype)
    arguments = call_arguments(case, layer, inputs, given_states(case))
    shapes = {
        f"{name}_shape": keras.tree.map_structure(lambda part: tuple(part.shape), x)
        for name, x in arguments.items()
    }
    if not built.weights and "build" not in vars(type(layer)):
        assert layer.built, "a layer without weights is not built from the start"
    layer.build(**_accepted(layer.build, shapes))
    assert layer.built
    assert [w.shape for w in layer.weights] == [w.shape for w in built.weights]
    method = type(layer).compute_output_shape
    assert method is not keras.layers.Layer.compute_output_shape, "no compute_output_shape"
    declared = layer.compute_output_shape(**_accepted(layer.compute_output_shape, shapes))
    states = given_states(case)
    real = running.outputs(built, inputs, states)
    first = [tuple(s) for s in _flat_shapes(declared)][: len(real)]
    assert first == [y.shape for y in real]


def _accepted(method, shapes: dict) -> dict:
    """Shapes by the names of the arguments of a method. A single one has any name."""
    names = list(inspect.signature(method).parameters)
    known = {name: shapes[name] for name in names if name in shapes}
    return known or {names[0]: next(iter(shapes.values()))}


def _flat_shapes(shapes) -> list[tuple]:
    if all(n is None or isinstance(n, int) for n in shapes):
        return [tuple(shapes)]
    return [shape for part in shapes for shape in _flat_shapes(part)]


def check_sizes(case: Case):
    """Integer arguments may be NumPy's, and are then Python's in the config; not True or False."""
    layer = case.make()
    config = layer.get_config()
    names = [
        name
        for name in constructor_arguments(layer)
        if isinstance(case.options.get(name), int)
        and not isinstance(case.options.get(name), bool)
        and name != "seed"
        and type(config.get(name)) is int
    ]
    for name in names:
        made = case.make(**{name: np.int64(config[name])}).get_config()[name]
        assert made == config[name], name
        assert type(made) is int, name
        for wrong in (True, False):
            assert_refused(partial(case.make, **{name: wrong}), name)


# Memory
