"""ONNX files of an export: which functions they have, that they are checked, every app."""

import importlib.util
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

from tests.apps.test_contract_models import APPS, NAMES, small_config
from unroll.apps.core import export, onnx_files, parity
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Service, Trained, with_inputs

pytestmark = pytest.mark.usefixtures("parity_process")


def service_of(step=None) -> Service:
    """`ids` of any shape, `step` of one row, and `ids_fixed` of fixed shapes."""
    weights = tf.Variable(np.random.default_rng(0).normal(size=(8, 8)), dtype=tf.float32)

    def ids(inputs: dict) -> dict:
        return {"y": tf.reduce_sum(tf.gather(weights, inputs["ids"] % 8), axis=1)}

    def plain_step(inputs: dict) -> dict:
        return {"y": inputs["x"] + inputs["h"], "h": tf.tanh(inputs["x"] @ weights + inputs["h"])}

    def requests(examples):
        row = np.array([[float(e)] * 8 for e in examples], "float32")
        tokens = {"ids": np.array([[int(e), 2, 3] for e in examples], "int32")}
        states = {"x": row, "h": row / 2}
        return {"serving_default": tokens, "ids": tokens, "ids_fixed": tokens, "step": states}

    any_ids = with_inputs(ids, {"ids": tf.TensorSpec([None, None], tf.int32)})
    litert = {
        "ids": any_ids,
        "ids_fixed": with_inputs(ids, {"ids": tf.TensorSpec([1, 3], tf.int32)}),
        "step": with_inputs(step or plain_step, dict.fromkeys("xh", tf.TensorSpec([1, 8]))),
    }
    return Service({"serving_default": any_ids}, requests, litert, keep=[weights])


def test_each_function_has_a_file_for_any_batch_size(tmp_path, monkeypatch):
    received, process = [], parity.run

    def run(folder, requests):
        received.extend((artifact, name, *inputs.values()) for artifact, name, inputs in requests)
        return process(folder, requests)

    monkeypatch.setattr(parity, "run", run)
    folder = export.write(service_of(), {}, ["1", "2"], tmp_path / "x", ("onnx",))
    assert sorted(path.name for path in folder.iterdir()) == [
        "ids.onnx",
        "manifest.json",
        "step.onnx",
    ]
    shapes = [(artifact, name, first.shape) for artifact, name, first, *_ in received]
    assert shapes == [
        *[("onnx", "ids", shape) for shape in ((2, 3), (1, 3), (1, 3), (1, 7), (3, 60), (5, 200))],
        *[("onnx", "step", (n, 8)) for n in (2, 1, 1, 1, 3, 5)],
    ]
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["litert"] is None
    assert manifest["largest_difference"]["onnx"] < 1e-6
    assert manifest["onnx"]["step"]["file"] == "step.onnx"
    # A model of ONNX has one name for one tensor.
    assert list(manifest["onnx"]["step"]["inputs"]) == ["h", "x"]
    assert list(manifest["onnx"]["step"]["outputs"]) == ["next_h", "y"]
    session = onnxruntime.InferenceSession(folder / "step.onnx")
    assert [each.name for each in session.get_outputs()] == ["y", "next_h"]
    assert session.get_inputs()[0].shape[1:] == [8]


def test_a_file_with_other_answers_is_refused(tmp_path, monkeypatch):
    other = service_of(lambda i: {"y": i["x"], "h": i["h"]})
    content = onnx_files.content(onnx_files.functions(other)["step"])
    functions = onnx_files.functions
    monkeypatch.setattr(onnx_files, "content", lambda function: content)
    monkeypatch.setattr(onnx_files, "functions", lambda each: {"step": functions(each)["step"]})
    with pytest.raises(
        UsageError, match=r"^The onnx differs from the model: step, output '[hy]', by"
    ):
        export.write(service_of(), {}, ["1", "2"], tmp_path / "x", ("onnx",))
    assert list(tmp_path.iterdir()) == []


def test_an_operation_without_a_counterpart_is_one_line(tmp_path):
    service = service_of(lambda i: {"y": tf.math.igamma(i["x"], i["h"])})
    message = r"^The onnx cannot be written: ONNX has no counterpart of Igamma\.$"
    with pytest.raises(UsageError, match=message):
        export.write(service, {}, ["1", "2"], tmp_path / "x", ("onnx",))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", onnx_files.PACKAGES)
def test_a_missing_package_is_one_line(name, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda x: None if x == name else find(x))
    message = rf"^--formats=onnx needs the package {name}: pip install 'unroll-keras\[onnx\]'\.$"
    with pytest.raises(UsageError, match=message):
        export.export(None, None, formats=("saved_model", "onnx"))


# Options under which an app exports other functions, or recurrent layers of another kind.
VARIANTS = {
    "forecasting": [
        {"model": "autoregressive", "output": "normal"},
        {"model": "autoregressive", "output": "negative_binomial", "scaling": "mean"},
    ],
    "image_captioning": [{"attention": "after"}],
    "key_terms": [{"characters": "none"}],
    "language_model": [{"tie_weights": True}],
    "reading_comprehension": [{"model": "recurrent"}, {"facts": "recurrent"}],
    "sentiment": [{"encoding": "one_hot", "depth": 2}, {"cell": "PeepholeLSTM"}],
    "speech_ctc": [{"bidirectional": False, "convolutions": 2}],
    "slot_filling": [{"characters": "recurrent", "context": "gate"}],
    "translation": [{"cell": "LSTM", "encoder_cell": "LSTM"}],
    "vqa": [{"history": True}],
}


CASES = [
    pytest.param(app, options, id=f"{name} {','.join(map(str, options.values()))}".strip())
    for name, app in zip(NAMES, APPS, strict=True)
    for options in ({}, *VARIANTS.get(name, ()))
]


@pytest.mark.exhaustive
@pytest.mark.parametrize(("app", "options"), CASES)
def test_every_app(app, options, tmp_path, monkeypatch):
    """The answers of ONNX Runtime for several shapes are those of an untrained model."""
    monkeypatch.setenv("UNROLL_MANUAL_DIR", str(tmp_path))
    config = small_config(app, **options)
    assets = app.load(config, ()).assets
    model = app.build(config, assets)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight + rng.normal(size=weight.shape, scale=0.1))
    service = app.serve(Trained(config, assets, model))
    folder = export.write(service, {}, app.examples(), tmp_path / "x", ("onnx",))
    functions = {name for name in service.litert if not name.endswith("_fixed")}
    assert {path.stem for path in folder.glob("*.onnx")} == functions
    for path in folder.glob("*.onnx"):
        batches = [each.type.tensor_type.shape.dim[:1] for each in onnx.load(path).graph.input]
        assert not any(size.dim_value for axes in batches for size in axes)
