"""A LiteRT file with several functions, each of which is checked."""

import json

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from unroll.apps.core import export, litert, parity
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Service

pytestmark = pytest.mark.usefixtures("parity_process")


def several(scale=1.0) -> Service:
    """A LiteRT file of two functions with the same weights, one of them of fixed shapes."""
    weights = tf.Variable(np.random.default_rng(0).normal(size=(64, 64)), dtype=tf.float32)

    def function(rows):
        spec = tf.TensorSpec([rows, 64], tf.float32, name="x")
        return tf.function(lambda x: {"y": scale * x @ weights}, input_signature=[spec])

    def requests(examples):
        x = np.array([[float(e)] * 64 for e in examples], "float32")
        return {name: {"x": x} for name in ("serving_default", "one", "more")}

    functions = {"serving_default": function(None)}
    litert = {"one": function(1), "more": function(None)}
    return Service(functions, requests, litert=litert, keep=[weights])


def test_a_litert_file_may_have_several_functions(tmp_path, monkeypatch):
    service, received = several(), []

    def run(folder, requests):
        received.extend((artifact, name, inputs["x"].shape) for artifact, name, inputs in requests)
        return process(folder, requests)

    process = parity.run
    monkeypatch.setattr(parity, "run", run)
    folder = export.write(service, {}, ["1", "2"], tmp_path / "x", ("litert",))
    more = [(2, 64), (1, 64), (1, 64), (1, 64), (3, 64), (5, 64)]
    assert received == [
        *[("litert", "one", (1, 64))] * 2,
        *[("litert", "more", shape) for shape in more],
    ]
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["litert"]["one"]["inputs"] == {"x": {"dtype": "float32", "shape": [1, 64]}}
    interpreter = Interpreter(str(folder / "model.tflite"))
    assert set(interpreter.get_signature_list()) == {"one", "more"}
    # The weights are there once.
    assert (folder / "model.tflite").stat().st_size < 1.5 * 4 * 64 * 64


def test_each_function_of_a_litert_file_is_checked(tmp_path, monkeypatch):
    convert = litert.convert_functions
    monkeypatch.setattr(
        litert,
        "convert_functions",
        lambda functions, *_: convert({**functions, "one": several(1.001).litert["one"]}),
    )
    with pytest.raises(UsageError, match=r"The litert differs from the model: one, output 'y'"):
        export.write(several(), {}, ["1", "2"], tmp_path / "x", ("litert",))


def test_requests_that_no_function_accepts_are_a_defect(tmp_path):
    service = several()
    three = service.requests(["1", "2", "3"])
    service.requests = lambda examples: three
    with pytest.raises(ValueError, match="no requests of the shapes of one"):
        export.check(service, tmp_path, ["1"], ("litert",))
