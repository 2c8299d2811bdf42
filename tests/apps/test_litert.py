"""The LiteRT files of an export: options, fixed shapes, quantized weights, packed assets."""

import importlib
import json
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace

import flatbuffers
import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema

from tests.apps import toy
from tests.apps.test_contract_models import NAMES, small_config
from unroll.apps.core import export, litert
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Service, Trained, with_inputs

pytestmark = pytest.mark.usefixtures("parity_process")

ASSETS = {"digits": ["<pad>", *"123456789"], "labels": ["falling", "résumé"], "scaler": {"a": 1}}


def test_the_shapes_of_the_option():
    assert litert.parse_shapes("") == []
    assert litert.parse_shapes("1x50,4x20,1x50") == [(1, 50), (4, 20)]
    assert litert.parse_shapes("1") == [(1,)]


@pytest.mark.parametrize("text", ["0x5", "1x", "a", "x", "1x0", "-1x5", "1x5,", "1 x 5", "1x5x"])
def test_other_shapes_are_one_line(text):
    with pytest.raises(UsageError) as error:
        litert.parse_shapes(text)
    assert str(error.value) == (
        f"--litert-shapes={text}: give sizes above 0 joined by x, such as 1x50 for one sequence "
        "of 50 steps, and commas between shapes."
    )


def test_the_types_of_the_option():
    assert litert.parse_quantize("") == []
    assert litert.parse_quantize("int8,float16,int8") == ["int8", "float16"]
    for text in ("int4", "int8,", "INT8"):
        with pytest.raises(UsageError, match=rf"^--quantize={text}: '.*' is none of int8, float"):
            litert.parse_quantize(text)


def functions(**shapes) -> dict:
    """One function of these inputs."""
    specs = {name: tf.TensorSpec(shape) for name, shape in shapes.items()}
    return {"f": with_inputs(lambda inputs: inputs, specs)}


def test_a_shape_has_a_size_for_each_dynamic_axis():
    given = functions(tokens=[None, None], characters=[None, None, None], image=[None, 8, 8, 3])
    specs = litert.fixed(given, (1, 50, 12))["f"].input_signature
    assert [spec.shape.as_list() for spec in specs] == [[1, 50], [1, 50, 12], [1, 8, 8, 3]]
    with pytest.raises(UsageError) as error:
        litert.fixed(given, (1, 50))
    assert str(error.value) == (
        "--litert-shapes=1x50: give 3 sizes joined by x, one for each ? of the longest of "
        "characters [?, ?, ?], image [?, 8, 8, 3], tokens [?, ?]."
    )
    with pytest.raises(UsageError, match="all functions have fixed shapes already"):
        litert.fixed(functions(x=[1, 2]), (1, 50))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "int8", "formats": ("saved_model",)}, "need litert among the --formats"),
        ({"litert_shapes": "1x5", "formats": ("saved_model",)}, "need litert among the --formats"),
        ({"quantize": "int9"}, "--quantize=int9: 'int9' is none of int8, float16"),
        ({"litert_shapes": "1x"}, "--litert-shapes=1x: give sizes"),
        ({"litert_loops": True}, "--litert-loops is for files of fixed shapes"),
    ],
)
def test_options_are_checked_before_anything_is_loaded(options, message):
    with pytest.raises(UsageError, match=message):
        export.export(toy, None, **options)


def test_the_options_need_a_function_for_litert(tmp_path, monkeypatch):
    spec = tf.TensorSpec([None], tf.string, name="x")
    service = Service(
        {"serving_default": tf.function(lambda x: {"y": x}, input_signature=[spec])}, lambda _: {}
    )
    monkeypatch.setattr(toy, "serve", lambda trained: service)
    trained = Trained(toy.Config(), ASSETS, None)
    monkeypatch.setattr(export, "load_trained", lambda app, run: trained)
    run = SimpleNamespace(path=tmp_path / "run", read_metrics=dict)
    with pytest.raises(UsageError, match="this model has no LiteRT function"):
        export.export(toy, run, tmp_path, quantize="int8")
    assert not (tmp_path / "toy").exists()


@pytest.fixture(scope="module")
def exported(parity_process, tmp_path_factory) -> Path:
    """An export of the toy app with files of all kinds. Only large matrices are quantized."""
    keras.utils.set_random_seed(0)
    model = toy.build(toy.Config(units=110), ASSETS)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.2, size=weight.shape))
    service = toy.serve(Trained(toy.Config(), ASSETS, model))
    files = litert.files(service, [(1, 9)], ["int8"])
    parent = tmp_path_factory.mktemp("saved_models") / "toy"
    return export.write(service, ASSETS, toy.examples(), parent, ("litert",), litert_files=files)


FILES = ["model-1x9-int8.tflite", "model-1x9.tflite", "model-int8.tflite", "model.tflite"]


def test_each_file_is_checked_and_described(exported):
    assert sorted(path.name for path in exported.glob("*.tflite")) == FILES
    manifest = json.loads((exported / "manifest.json").read_text("utf-8"))
    differences = manifest["largest_difference"]
    assert differences.keys() == {"litert", "litert-int8", "litert-1x9", "litert-1x9-int8"}
    assert max(differences["litert"], differences["litert-1x9"]) <= 1e-5
    # The weights in a loop stay float32; those of the fused operation do not.
    assert 1e-5 < differences["litert-1x9-int8"] <= 0.1
    lines = litert.describe(manifest)
    assert sorted(line.partition(":")[0] for line in lines) == FILES
    size = (exported / "model-1x9-int8.tflite").stat().st_size
    assert any(f"model-1x9-int8.tflite: {size:,} bytes, largest difference" in x for x in lines)


def test_a_file_has_the_assets_and_the_signatures(exported):
    for name in FILES:
        with zipfile.ZipFile(exported / name) as archive:
            assert archive.testzip() is None
            packed = {member: archive.read(member) for member in archive.namelist()}
            # Android's reader has no compression.
            assert {each.compress_type for each in archive.infolist()} == {zipfile.ZIP_STORED}
        for file in ("digits.txt", "labels.txt", "scaler.json"):
            assert packed[file] == (exported / file).read_bytes()
        signatures = json.loads(packed["signatures.json"])
        assert signatures["ids"]["outputs"]["probabilities"]["dtype"] == "float32"
        shape = [1, 9] if "1x9" in name else [None, None]
        assert signatures["ids"]["inputs"] == {"digits": {"dtype": "int32", "shape": shape}}


def tables(table: flatbuffers.table.Table, field: int) -> list:
    """The tables of a vector, at the number of its field."""
    offset = table.Offset(4 + 2 * field)
    start, count = table.Vector(offset), table.VectorLen(offset)
    places = (table.Indirect(start + 4 * k) for k in range(count))
    return [flatbuffers.table.Table(table.Bytes, place) for place in places]


def name_of(table: flatbuffers.table.Table) -> str:
    return table.String(table.Pos + table.Offset(4)).decode()


def test_a_file_has_the_metadata_of_tflite(exported):
    """Read field by field, as the schema numbers them."""
    model = schema.Model.GetRootAs((exported / "model-1x9.tflite").read_bytes(), 0)
    (entry,) = (
        model.Metadata(k)
        for k in range(model.MetadataLength())
        if model.Metadata(k).Name() == b"TFLITE_METADATA"
    )
    metadata = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    assert metadata[4:8] == b"M001"
    root = flatbuffers.table.Table(metadata, int.from_bytes(metadata[:4], "little"))
    assert name_of(root) == "toy"
    kinds = {
        name_of(file): file.GetSlot(8, 0, flatbuffers.number_types.Int8Flags)
        for file in tables(root, 6)
    }
    assert kinds == {"signatures.json": 0, "digits.txt": 3, "labels.txt": 3, "scaler.json": 0}
    (subgraph,) = tables(root, 3)
    assert name_of(subgraph) == "ids"
    assert [name_of(tensor) for tensor in tables(subgraph, 2)] == ["digits"]
    assert [name_of(tensor) for tensor in tables(subgraph, 3)] == ["probabilities"]


def test_a_file_of_fixed_shape_ignores_padding_and_what_it_read_before(exported):
    interpreter = Interpreter(str(exported / "model-1x9.tflite"))
    interpreter.allocate_tensors()
    assert interpreter.get_input_details()[0]["shape"].tolist() == [1, 9]
    fixed = Interpreter(str(exported / "model-1x9.tflite")).get_signature_runner("ids")
    dynamic = Interpreter(str(exported / "model.tflite")).get_signature_runner("ids")
    for digits in ([1, 5, 9], [8, 2, 2, 4, 3, 1, 1, 9, 7], [2, 3], [1, 5, 9]):
        padded = np.array([digits + [0] * (9 - len(digits))], "int32")
        np.testing.assert_allclose(
            fixed(digits=padded)["probabilities"],
            dynamic(digits=np.array([digits], "int32"))["probabilities"],
            atol=1e-6,
        )


def answers(labels, score) -> dict:
    return {"labels": np.array(labels, "int32"), "score": np.array(score, "float32")}


def test_quantized_answers_have_a_tolerance():
    agreement = litert.Agreement(0.1, 0.2)
    agreement.add("f", answers([1, 2, 3, 4], 0.5), answers([1, 2, 3, 4], 0.55))
    assert agreement.error() is None
    assert (agreement.share, agreement.largest) == (1.0, pytest.approx(0.05))
    # Another label: its score is not compared.
    agreement.add("f", answers([1, 2, 3, 4], 0.5), answers([1, 2, 0, 4], 9.0))
    assert agreement.error() is None
    assert agreement.share == 7 / 8
    agreement.add("f", answers([1, 2], 0.5), answers([1, 2, 3], 0.5))
    assert agreement.error() == "in 30.0% of the integers (at most 20% is allowed)"
    for score in (0.7, np.nan, np.inf):
        agreement = litert.Agreement(0.1, 0.2)
        agreement.add("f", answers([1], 0.5), answers([1], score))
        agreement.add("f", answers([1], 0.5), answers([1], 0.5))
        assert agreement.error().startswith("f, output 'score', by ")


def test_a_quantized_file_that_differs_is_not_exported(tmp_path, monkeypatch):
    def run(folder, requests):
        return [answers([1, 0], 0.5) for _ in requests]

    spec = tf.TensorSpec([None], tf.float32, name="x")
    function = tf.function(
        lambda x: {"labels": tf.constant([1, 2]), "score": tf.reduce_sum(x)}, input_signature=[spec]
    )
    service = Service({}, lambda _: {"f": {"x": np.zeros(2, "float32")}}, {"f": function})
    monkeypatch.setattr(export.parity, "run", run)
    files = [litert.File(service.litert, quantize="int8")]
    with pytest.raises(UsageError, match=r"^The litert-int8 differs from the model: in 50.0% of"):
        export.check(service, tmp_path, ["a"], ("litert",), files)


@pytest.mark.exhaustive
def test_the_command_prints_the_sizes(call, run):
    options = ["--formats=litert", "--quantize=float16", "--litert-shapes=1x9"]
    code, printed, errors = call("toy", "export", run, *options)
    assert (code, printed) == (0, ["saved_models/toy/1"])
    line = r"unroll: (model\S*\.tflite): [0-9,]+ bytes, largest difference \S+"
    assert sorted(re.fullmatch(line, each)[1] for each in errors) == [
        "model-1x9-float16.tflite",
        "model-1x9.tflite",
        "model-float16.tflite",
        "model.tflite",
    ]
    for option in ("--litert-shapes=0x5", "--litert-shapes=1x5x5", "--quantize=int4"):
        code, printed, errors = call("toy", "export", run, option)
        assert (code, printed, len(errors)) == (2, [], 1)
        assert errors[0].startswith(f"unroll: {option}: ")


# The sizes of the dynamic axes, if they are not a batch and a length.
SIZES = {
    "image_captioning": (1,),
    "key_terms": (1, 20, 12),
    "reading_comprehension": (1, 12, 10),
    "slot_filling": (1, 20, 12),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_every_app_has_files_of_all_kinds(name, tmp_path):
    app = importlib.import_module(f"unroll.apps.{name}.app")
    keras.utils.set_random_seed(0)
    config = small_config(app)
    assets = app.load(config, ()).assets
    service = app.serve(Trained(config, assets, app.build(config, assets)))
    # The greedy search of an untrained model finds another text with int8.
    kinds = ["float16"] if name == "translation" else ["int8", "float16"]
    files = litert.files(service, [SIZES.get(name, (1, 20))], kinds)
    folder = export.write(
        service, assets, app.examples(), tmp_path / name, ("litert",), litert_files=files
    )
    assert len(list(folder.glob("*.tflite"))) == 2 * (1 + len(kinds))
    for path in folder.glob("*.tflite"):
        interpreter = Interpreter(str(path))
        interpreter.allocate_tensors()
        names = {each["op_name"] for each in interpreter._get_ops_details()}
        assert not {each for each in names if each.startswith(("Flex", "CUSTOM"))}
