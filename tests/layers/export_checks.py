"""What every layer must pass on its way to TensorFlow Serving and LiteRT: TensorFlow alone."""

import tempfile

import keras
import numpy as np

from tests.layers import running
from tests.layers.cases import Case
from tests.layers.checks import assert_near

# The weights are small: a random network of large ones is chaotic, and doubles what rounding leaves
# in every few steps.
SHAPES = ((1, 7), (3, 60), (5, 1), (2, 13))  # batch and length


def signature(case: Case) -> dict:
    import tensorflow as tf

    # No size that is dynamic is known to the graph.
    shape = (*(None,) * case.dynamic, *case.inputs.shape[case.dynamic :])
    found = {"inputs": tf.TensorSpec(shape, "float32" if case.differentiable else "int32")}
    if case.mask is not None:
        found["mask"] = tf.TensorSpec((None, None), tf.bool)
    return found


def arguments(case: Case, batch: int, time: int) -> dict:
    rng = np.random.default_rng(batch)
    shape = (batch, time, *case.inputs.shape[2:])
    if case.differentiable:
        found = {"inputs": rng.normal(size=shape).astype("float32")}
    else:
        found = {"inputs": rng.choice(case.inputs.ravel(), size=shape)}
    if case.mask is not None:
        found["mask"] = rng.random((batch, time)) > 0.3
    return found


def serve(layer):
    def function(inputs, mask=None):
        found = running.call(layer, inputs, mask=mask)
        return {f"output_{k}": y for k, y in enumerate(found)}

    return function


def compare(case: Case, layer, answer):
    for batch, time in SHAPES:
        given = arguments(case, batch, time)
        expected = running.outputs(layer, given["inputs"], mask=given.get("mask"))
        found = answer(given)
        ordered = [np.asarray(found[f"output_{k}"]) for k in range(len(found))]
        assert_near(ordered, expected, 1e-5, f"batch {batch}, length {time}")


def check_saved_model(case: Case):
    import tensorflow as tf

    layer = case.build("float32", scale=0.3)
    function = serve(layer)
    if case.mask is None:
        traced = tf.function(lambda inputs: function(inputs), autograph=False)
    else:
        traced = tf.function(lambda inputs, mask: function(inputs, mask), autograph=False)
    archive = keras.export.ExportArchive()
    archive.track(layer)
    archive.add_endpoint("serve", traced, list(signature(case).values()))
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        served = tf.saved_model.load(folder).signatures["serve"]
        compare(case, layer, lambda given: served(**{k: tf.constant(v) for k, v in given.items()}))


def check_litert(case: Case):
    from ai_edge_litert.interpreter import Interpreter

    from layers.litert_tensorflow import convert

    layer = case.build("float32", scale=0.3)
    function = serve(layer)
    try:
        file = convert(
            function if case.mask is not None else lambda inputs: function(inputs), signature(case)
        )
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise AssertionError(f"does not convert with built-in ops alone: {first}") from error
    interpreter = Interpreter(model_content=file, num_threads=1)
    compare(case, layer, lambda given: interpreter.get_signature_runner()(**given))
