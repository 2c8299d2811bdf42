"""Export: its files, the check of the artifacts, and that a failure leaves no files."""

import json
import os
import re
import threading
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from google.protobuf import text_format
from served import load_saved_model
from tensorflow_serving.config import model_server_config_pb2

from tests.apps import server_rules, toy
from tests.apps.conftest import LongLivedProcess
from unroll.apps.core import export, litert, parity
from unroll.apps.core.errors import UsageError
from unroll.apps.core.files import read_assets, unique_name
from unroll.apps.core.protocol import Service, Trained

# One of each type.
ASSETS = {
    "digits": ["<pad>", *"123456789"],
    "labels": ["falling", "r\u00e9sumé\r"],
    "scaler": {"mean": 0.5, "name": "é"},
    "subwords": b"\x00\xff\n",
    "vectors": np.array([[1.5, np.inf]], "float32"),
}

pytestmark = pytest.mark.usefixtures("parity_process")


@pytest.fixture(scope="module")
def service() -> Service:
    """The service of the toy app, with weights that give each example another output."""
    keras.utils.set_random_seed(0)
    model = toy.build(toy.Config(), ASSETS)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.7, size=weight.shape))
    return toy.serve(Trained(toy.Config(), ASSETS, model))


@pytest.fixture(scope="module")
def exported(service, parity_process, tmp_path_factory) -> Path:
    """A checked export. `tests/test_packaging.py` has one as the command line makes it."""
    parent = tmp_path_factory.mktemp("saved_models") / "toy"
    return export.write(service, ASSETS, toy.examples(), parent, about={"data": "digits"})


@pytest.fixture
def no_conversion(monkeypatch) -> None:
    """The content of the LiteRT file does not matter."""
    monkeypatch.setattr(litert, "convert_functions", lambda *_: b"TFL3")
    monkeypatch.setattr(litert, "pack", lambda model, name, files: model)


def one_function(function, keep=(), litert=None, value=(1.0, 2.0)) -> Service:
    """A service with one function of `x`, `[B, T]`."""
    spec = tf.TensorSpec([None, None], tf.float32, name="x")
    return Service(
        {"serving_default": tf.function(function, input_signature=[spec])},
        lambda examples: {"serving_default": {"x": np.array([value] * len(examples), "float32")}},
        litert=litert,
        keep=keep,
    )


def test_the_folder_has_the_layout_of_tf_serving(exported):
    assert exported.name == "1"
    names = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert names >= {
        "saved_model.pb",
        "variables/variables.index",
        "assets.extra/tf_serving_warmup_requests",
        "model.tflite",
        "manifest.json",
    }
    assert [path.name for path in exported.parent.iterdir()] == ["1"]
    assert exported.stat().st_mode & 0o777 == 0o755


def test_assets_of_all_types_are_exported(exported):
    assert (exported / "labels.txt").read_bytes() == "falling\nr\u00e9sumé\r\n".encode()
    assert json.loads((exported / "scaler.json").read_text(encoding="utf-8")) == ASSETS["scaler"]
    assert (exported / "subwords.bin").read_bytes() == ASSETS["subwords"]
    np.testing.assert_array_equal(np.load(exported / "vectors.npy"), ASSETS["vectors"])
    assert read_assets(exported).keys() >= ASSETS.keys()


def test_the_manifest_describes_the_export(exported):
    manifest = json.loads((exported / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["data"] == "digits"
    assert manifest["signatures"]["serving_default"] == {
        "inputs": {"text": {"dtype": "string", "shape": [None]}},
        "outputs": {
            "label": {"dtype": "string", "shape": [None]},
            "probabilities": {"dtype": "float32", "shape": [None, 2]},
        },
    }
    assert manifest["signatures"]["ids"]["inputs"] == {
        "digits": {"dtype": "int32", "shape": [None, None]}
    }
    assert manifest["litert"] == {"ids": manifest["signatures"]["ids"]}
    differences = manifest["largest_difference"]
    assert differences.keys() == {"saved_model", "saved_model_session", "litert"}
    assert max(differences.values()) <= 1e-5
    assert manifest["bytes"]["model.tflite"] == (exported / "model.tflite").stat().st_size
    assert manifest["packages"]["tensorflow"] == tf.__version__
    assert "commit" in manifest


def test_warm_up_requests_call_every_signature_with_every_example(exported, service):
    loaded = tf.saved_model.load(str(exported))
    requests = server_rules.warm_up_requests(exported)
    for name, inputs in requests:
        answers = loaded.signatures[name](**{k: tf.constant(v) for k, v in inputs.items()})
        assert answers["probabilities"].shape == [1, 2]
    texts = [inputs["text"].tolist() for name, inputs in requests if name == "serving_default"]
    assert texts == [[example.encode()] for example in toy.examples()]
    assert len(requests) == len(service.functions) * len(toy.examples())


def test_the_server_finds_the_version_and_its_functions(exported):
    """`test_tf_serving.py` has more of its rules, for all apps."""
    assert server_rules.versions(exported.parent) == {1: "1"}
    server_rules.check_signatures(exported)


def test_an_input_of_another_rank_is_an_error_of_the_request(exported):
    answer = load_saved_model(exported)
    found = answer("ids", {"digits": np.array([1, 2], "int32")})
    assert re.match(r"InvalidArgumentError: .* is not compatible with expected shape", found)


def test_the_litert_file_has_only_built_in_ops(exported):
    interpreter = Interpreter(str(exported / "model.tflite"))
    interpreter.allocate_tensors()
    names = {op["op_name"] for op in interpreter._get_ops_details()}
    assert "WHILE" in names
    assert not {name for name in names if name.startswith(("Flex", "CUSTOM"))}


def test_litert_alone_becomes_the_next_version(service, tmp_path):
    for name in ("7", "notes", "9" * 20):
        (tmp_path / "toy" / name).mkdir(parents=True)
    folder = export.write(service, ASSETS, toy.examples(), tmp_path / "toy", ("litert",))
    assert folder == tmp_path / "toy" / "8"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "model.tflite",
        "manifest.json",
        "digits.txt",
        "labels.txt",
        "scaler.json",
        "subwords.bin",
        "vectors.npy",
    }


def test_litert_is_checked_with_longer_inputs_than_the_examples(service, exported, monkeypatch):
    shapes = []

    def run(folder, requests):
        shapes.extend(inputs["digits"].shape for _, _, inputs in requests)
        return [export._call(service.functions[name], inputs) for _, name, inputs in requests]

    monkeypatch.setattr(parity, "run", run)
    export.check(service, exported, toy.examples(), ("litert",))
    assert shapes == [(4, 7), (1, 3), (1, 5), (1, 7), (1, 2), (1, 7), (3, 60), (5, 200)]


def counter() -> Service:
    """Its output depends on the number of calls."""
    calls = tf.Variable(0.0)

    def function(x):
        calls.assign_add(1.0)
        return {"y": tf.reduce_sum(x, axis=1) + calls}

    return one_function(function, keep=[calls])


def dice() -> Service:
    """Its output is random."""
    return one_function(lambda x: {"y": tf.reduce_sum(x, axis=1) + tf.random.uniform([])})


def python() -> Service:
    """It calls a Python function, which another process lacks."""

    def function(x):
        y = tf.numpy_function(lambda x: x.sum(axis=1), [x], tf.float32)
        return {"y": tf.ensure_shape(y, [None])}

    return one_function(function)


def left_out() -> Service:
    """It uses a table that is not in `keep`."""
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.0)
    return one_function(lambda x: {"y": x[:, 0] + table.lookup(tf.constant(1, tf.int64))})


def not_built_in() -> Service:
    """It uses an op that LiteRT lacks."""
    return one_function(lambda x: {"y": tf.math.bessel_i0e(x)}, litert="serving_default")


def cudnn() -> Service:
    """It calls a function with a cuDNN op."""

    @tf.function
    def recurrent(x):
        state = tf.zeros([1, 1, 4])
        return tf.raw_ops.CudnnRNN(input=x, input_h=state, input_c=state, params=tf.zeros([99]))[0]

    return one_function(lambda x: {"y": recurrent(x[:, tf.newaxis])})


def placed() -> Service:
    """It places an op on a GPU."""

    def function(x):
        with tf.device("/GPU:0"):
            return {"y": x + 1.0}

    return one_function(function)


BROKEN = {
    counter: r"The saved_model\w* differs from the model: serving_default, output 'y', by \d",
    dice: r"The saved_model\w* differs from the model: serving_default, output 'y', by 0\.\d",
    python: "does not run in a clean process: saved_model: ",
    left_out: "The saved_model cannot be written: .*untracked",
    not_built_in: "The litert cannot be written: .*BesselI0e",
    cudnn: "serving_default needs one device: op CudnnRNN ",
    placed: r"serving_default needs one device: op \w+ on /device:GPU:0",
}


@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__)
def test_a_broken_service_is_rejected_and_leaves_no_files(make, tmp_path, capfd):
    formats = ("litert",) if make is not_built_in else export.FORMATS
    with pytest.raises(UsageError, match=BROKEN[make]) as error:
        export.write(make(), {}, ["a", "b"], tmp_path / "models" / "toy", formats)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_model_that_only_python_can_restore_is_rejected(service, tmp_path, monkeypatch):
    # Tracks the variables of Keras, which a server finds without a value.
    monkeypatch.setattr(export, "_trackable", lambda service: service)
    with pytest.raises(
        UsageError, match=r"clean process: saved_model_session: .*not find variable"
    ):
        export.write(service, {}, toy.examples(), tmp_path / "toy", ("saved_model",))
    assert list(tmp_path.iterdir()) == []


def test_a_litert_file_of_another_model_is_rejected(service, tmp_path, monkeypatch):
    def other(functions, *_):
        def shifted(digits):
            # The same outputs for inputs as short as the examples.
            long = tf.cast(tf.shape(digits)[1] > 100, tf.float32)
            probabilities = functions["ids"].python_function(digits)["probabilities"]
            return {"probabilities": probabilities + 1e-4 * long}

        specs = functions["ids"].input_signature
        return convert({"ids": tf.function(shifted, input_signature=specs)})

    convert = litert.convert_functions
    monkeypatch.setattr(litert, "convert_functions", other)
    message = r"The litert differs from the model: ids, .* by 0.0001"
    with pytest.raises(UsageError, match=message):
        export.write(service, {}, toy.examples(), tmp_path / "toy", ("litert",))
    assert list(tmp_path.iterdir()) == []


def change(outputs: dict, name: str, how) -> dict:
    return {**outputs, name: how(outputs[name])}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda o: change(o, "label", lambda v: v + b"!"), "'label', by inf"),
        (lambda o: change(o, "label", lambda v: v[:, None]), "'label', by inf"),
        (lambda o: change(o, "probabilities", lambda v: v.astype("float64")), "by inf"),
        (lambda o: change(o, "probabilities", lambda v: v + np.float32(2e-5)), "by 2e-05"),
        (lambda o: change(o, "probabilities", lambda v: v * np.float32("nan")), "by nan"),
        (lambda o: {"label": o["label"]}, r"returns \['label'\], but the model \["),
    ],
    ids=["string", "shape", "dtype", "float", "nan", "output"],
)
def test_any_difference_is_rejected(service, exported, monkeypatch, how, message):
    def run(folder, requests):
        answers = [export._call(service.functions[name], inputs) for _, name, inputs in requests]
        return [how(a) if "label" in a and len(a["label"]) == 4 else a for a in answers]

    monkeypatch.setattr(parity, "run", run)
    with pytest.raises(UsageError, match=message):
        export.check(service, exported, toy.examples(), ("saved_model",))


def test_a_function_without_requests_is_a_defect(service, exported):
    incomplete = Service(service.functions, lambda examples: {"ids": {}}, litert="ids")
    with pytest.raises(ValueError, match="no requests for serving_default"):
        export.check(incomplete, exported, toy.examples(), ("saved_model",))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError("disk full")])
@pytest.mark.usefixtures("no_conversion")
def test_an_interrupted_export_changes_nothing(service, tmp_path, monkeypatch, stop):
    def interrupted(*arguments):
        raise stop

    (tmp_path / "toy" / "1").mkdir(parents=True)
    monkeypatch.setattr(export, "check", interrupted)
    with pytest.raises(stop if isinstance(stop, type) else OSError):
        export.write(service, ASSETS, toy.examples(), tmp_path / "toy", ("litert",))
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["toy", "toy/1"]


@pytest.mark.usefixtures("no_conversion")
def test_folders_of_killed_exports_are_removed(service, tmp_path, monkeypatch):
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    live = f".export-{unique_name()}"
    for name in (live, live.replace(str(os.getpid()), str(child))):
        (tmp_path / name / "variables").mkdir(parents=True)
    monkeypatch.setattr(export, "check", lambda *arguments: ({}, {}))
    folder = export.write(service, ASSETS, toy.examples(), tmp_path, ("litert",))
    assert {path.name for path in tmp_path.iterdir()} == {live, folder.name}


@pytest.mark.parametrize("name", ["write_assets", "write_json"])
@pytest.mark.usefixtures("no_conversion")
def test_a_full_disk_leaves_no_export(service, tmp_path, monkeypatch, name):
    def full(path, value):
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr(export, "check", lambda *arguments: ({}, {}))
    monkeypatch.setattr(export, name, full)
    with pytest.raises(OSError, match="No space left on device"):
        export.write(service, ASSETS, toy.examples(), tmp_path / "toy", ("litert",))
    assert list(tmp_path.iterdir()) == []


def test_concurrent_exports_get_different_versions(tmp_path):
    folders = [tmp_path / f".export-{i}" for i in range(16)]
    for folder in folders:
        folder.mkdir()
        (folder / "saved_model.pb").write_text(folder.name)
    start = threading.Barrier(len(folders))
    moved = {}

    def move(folder):
        start.wait()
        moved[folder.name] = export._move_into_place(folder, tmp_path)

    threads = [threading.Thread(target=move, args=[folder]) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(path.name) for path in moved.values()) == list(range(1, 17))
    for name, path in moved.items():
        assert (path / "saved_model.pb").read_text() == name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, range(1, 17)))


@pytest.mark.parametrize("formats", [(), ("torch",), ("saved_model", "torch"), ("",)])
def test_an_unknown_format_is_refused_before_anything_is_loaded(formats):
    with pytest.raises(UsageError, match="choose from saved_model, litert, onnx"):
        export.export(toy, None, formats=formats)


def test_litert_needs_a_function_for_it(tmp_path):
    service = one_function(lambda x: {"y": x})
    with pytest.raises(UsageError, match="no LiteRT or ONNX function"):
        export.write(service, {}, ["a"], tmp_path / "toy", ("litert",))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_created_is_one_line(service, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/toy cannot be written to: Not a directory"):
        export.write(service, ASSETS, toy.examples(), tmp_path / "file" / "toy")


@pytest.mark.parametrize("name", [None, "my_digits"])
@pytest.mark.usefixtures("no_conversion")
def test_an_export_of_a_run_records_its_source(service, tmp_path, monkeypatch, name):
    figures = {"test": {"accuracy": 0.5}}
    run = SimpleNamespace(path="runs/toy/digits-1", read_metrics=lambda: figures)
    trained = Trained(toy.Config(), ASSETS, None)
    monkeypatch.setattr(toy, "serve", lambda trained: service)
    monkeypatch.setattr(export, "load_trained", lambda app, run: trained)
    monkeypatch.setattr(export, "check", lambda *arguments: ({}, {}))
    monkeypatch.setattr(export.card, "for_export", lambda app, run: b"")
    folder = export.export(toy, run, tmp_path, ("litert",), name)
    assert folder == tmp_path / (name or "toy") / "1"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["app"], manifest["data"], manifest["run"]) == ("toy", "digits", run.path)
    assert manifest["metrics"] == figures


def test_a_run_in_mixed_precision_is_exported_in_float32(tmp_path, monkeypatch):
    config = toy.Config(precision="mixed_bfloat16")
    keras.config.set_dtype_policy(config.precision)
    try:
        model = toy.build(config, ASSETS)
    finally:
        keras.config.set_dtype_policy("float32")
    for weight in model.trainable_weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    run = SimpleNamespace(path="runs/toy/digits-1", read_metrics=dict)
    trained = Trained(config, ASSETS, model)
    monkeypatch.setattr(export, "load_trained", lambda app, run: trained)
    monkeypatch.setattr(export, "write", lambda service, *others: service)
    monkeypatch.setattr(export.card, "for_export", lambda app, run: b"")
    service = export.export(toy, run, tmp_path)
    inputs = service.requests(toy.examples())["ids"]
    exported = export._call(service.functions["ids"], inputs)["probabilities"]
    expected = model(inputs).numpy()
    np.testing.assert_allclose(exported, expected, atol=0.05)
    assert np.abs(exported - expected).max() > 1e-5
    assert litert.convert_functions(service.litert)[4:8] == b"TFL3"


def test_the_documented_server_configuration_is_valid():
    text = (Path(__file__).parents[2] / "saved_models" / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```\n(model_config_list.*?)```", text, re.DOTALL)[1]
    config = text_format.Parse(block, model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("sentiment", "/models/sentiment")


def test_one_process_answers_several_jobs_and_continues_after_an_error(
    exported, parity_process, tmp_path
):
    request = ("litert", "ids", {"digits": np.array([[1, 2]], "int32")})
    starts = parity_process.starts
    outputs = [parity.run(exported, [request])[0]["probabilities"] for _ in range(2)]
    np.testing.assert_array_equal(*outputs)
    with pytest.raises(RuntimeError, match=r"^litert: ValueError: Could not open "):
        parity.run(tmp_path, [request])
    np.testing.assert_array_equal(parity.run(exported, [request])[0]["probabilities"], outputs[0])
    assert parity_process.starts - starts <= 1


def test_a_process_that_ended_is_an_error_and_starts_again(exported):
    request = ("litert", "ids", {"digits": np.array([[1, 2]], "int32")})
    with parity.Process() as process:
        process._process.kill()
        with pytest.raises(RuntimeError, match=r"^exit code -9$"):
            process.run(exported, [request])
    restarted = LongLivedProcess()
    try:
        for starts in (1, 2):
            assert restarted.run(exported, []) == []
            assert restarted.starts == starts
            restarted.kill()
    finally:
        restarted.close()
