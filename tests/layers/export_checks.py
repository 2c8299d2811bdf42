"""The checks of exports to TensorFlow Serving and LiteRT, on the TensorFlow backend."""

import tempfile

import keras
import numpy as np

from tests.layers import running
from tests.layers.case import Case
from tests.layers.checks import assert_near

SHAPES = ((1, 7), (3, 24), (5, 1))  # batch and length


def signature(case: Case) -> dict:
    import tensorflow as tf

    # Each dynamic size is unknown to the graph.
    shape = (*(None,) * case.dynamic, *case.inputs.shape[case.dynamic :])
    found = {"inputs": (shape, case.input_dtype)}
    if case.mask is not None:
        found["mask"] = ((None, None), "bool")
    for k, size in enumerate(case.states if case.needs_states else ()):
        found[f"state_{k}"] = ((None, size), "float32")
    return {name: tf.TensorSpec(*spec, name=name) for name, spec in found.items()}


def arguments(case: Case, batch: int, time: int) -> dict:
    rng = np.random.default_rng(batch)
    sizes = (batch, time)[: case.dynamic]
    shape = (*sizes, *case.inputs.shape[len(sizes) :])
    if case.differentiable:
        found = {"inputs": rng.normal(size=shape).astype("float32")}
    else:
        found = {"inputs": rng.choice(case.inputs.ravel(), size=shape)}
    for k, size in enumerate(case.states if case.needs_states else ()):
        found[f"state_{k}"] = rng.normal(size=(batch, size)).astype("float32")
    if case.mask is not None:
        found["mask"] = rng.random((batch, time)) > 0.3
    return found


def serve(layer):
    """The layer as a function of named arguments with named results."""

    def function(inputs, mask=None, **states):
        found = running.call(layer, inputs, list(states.values()), mask)
        return {f"output_{k}": y for k, y in enumerate(found)}

    return function


def assert_exported(case: Case, answer):
    """`answer` must map the same named arguments to the outputs of an eager call of the layer."""
    for batch, time in SHAPES:
        given = arguments(case, batch, time)

        def compute(given=given):
            states = [given[name] for name in given if name.startswith("state_")]
            layer = case.layer("float32")
            return running.outputs(layer, given["inputs"], states, given.get("mask"))

        expected = case.shared(("exported", batch, time), compute)
        found = answer(given)
        ordered = [np.asarray(found[f"output_{k}"]) for k in range(len(found))]
        assert_near(ordered, expected, 1e-5, f"batch {batch}, length {time}")


def check_saved_model(case: Case):
    import tensorflow as tf

    layer = case.layer("float32")
    specs, function = signature(case), serve(layer)
    archive = keras.export.ExportArchive()
    archive.track(layer)
    # With AutoGraph, which converts what a user's function calls.
    archive.add_endpoint(
        "serve",
        tf.function(lambda *given: function(**dict(zip(specs, given, strict=True)))),
        list(specs.values()),
    )
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        served = tf.saved_model.load(folder).signatures["serve"]
        assert_exported(case, lambda given: served(**{k: tf.constant(v) for k, v in given.items()}))


def check_litert(case: Case):
    from ai_edge_litert.interpreter import Interpreter

    from unroll.layers.litert_tensorflow import convert

    try:
        file = convert(serve(case.layer("float32")), signature(case))
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise AssertionError(f"does not convert with built-in ops alone: {first}") from error
    interpreter = Interpreter(model_content=file, num_threads=1)
    assert_exported(case, lambda given: interpreter.get_signature_runner()(**given))
