"""The sentiment app, on its generated data and on arbitrary texts."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.apps.variants import fixtures
from tests.apps.written_runs import write_run
from tests.parameters import first_of
from unroll.apps.core import export, training
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import load_trained
from unroll.apps.core.options import parse_train
from unroll.apps.core.protocol import Trained
from unroll.apps.core.runs import Run
from unroll.apps.sentiment import app
from unroll.apps.sentiment.examples import litert
from unroll.layers.litert_tensorflow import convert
from unroll.layers.recurrent import RECURRENT_LAYERS
from unroll.layers.scan_tensorflow import builtin_ops
from unroll.pipelines import text as texts
from unroll.pipelines.errors import DataError

ASSETS = {
    "vocabulary": ["[PAD]", "[UNK]", "good", "bad", "not", "film", ",", "0000"],
    "labels": ["negative", "positive"],
}
VARIANTS = {
    "attention": {},
    "last of two layers": {"pool": "last", "depth": 2},
    "last, forwards": {"pool": "last", "bidirectional": False},
    "max in segments, one-hot": {"pool": "max", "segment_length": 4, "encoding": "one_hot"},
    "word hashing, dense": {"encoding": "word_hashing", "skip": "dense", "depth": 2},
    "mean, residual": {"pool": "mean", "skip": "residual", "depth": 3},
}
CONVERTED = ("max in segments, one-hot", "word hashing, dense")  # and attention, by the export
LONG = 300  # tokens, more than a block of a LiteRT loop
TEXTS = [
    "",
    "   ",
    "good " * LONG,
    "😀❤️👨‍👩‍👧",
    "مرحبا بالعالم، فيلم جيد",
    "nul\0byte film",
    "这部电影不好。",
    "1987 1988",
]


def make(**options) -> Trained:
    keras.utils.set_random_seed(1)
    config = app.Config(units=6, embedding_dim=5, **options)
    model = app.build(config, ASSETS)
    # Random weights, since initial biases of zero would hide a mistake.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape))
    return Trained(config, ASSETS, model)


def probabilities(results: list[dict]) -> np.ndarray:
    return np.array([list(result["probabilities"].values()) for result in results])


served, model, plain = fixtures(app, make, VARIANTS)


def test_any_text_gets_an_answer(model):
    results = app.predict(model, TEXTS)
    assert [result["text"] for result in results] == TEXTS
    assert np.isfinite(probabilities(results)).all()
    np.testing.assert_allclose(probabilities(results).sum(axis=1), 1, atol=1e-5)
    assert results[0]["tokens"] == results[1]["tokens"] == []
    assert len(results[2]["tokens"]) == LONG


def test_an_answer_does_not_depend_on_its_batch(model):
    serving = app.serve(model).functions["serving_default"]
    together = serving(tf.constant(TEXTS))["probabilities"].numpy()
    for row, alone in zip(together, TEXTS, strict=True):
        expected = serving(tf.constant([alone]))["probabilities"].numpy()[0]
        np.testing.assert_allclose(row, expected, atol=1e-5, err_msg=alone[:20])


@pytest.mark.parametrize("variant", first_of(CONVERTED))
def test_litert_agrees_with_the_model(variant):
    from ai_edge_litert.interpreter import Interpreter

    function = app.serve(make(**VARIANTS[variant])).functions["ids"]
    specs = {spec.name: spec for spec in function.input_signature}
    run = Interpreter(model_content=convert(function, specs)).get_signature_runner()
    rng = np.random.default_rng(0)
    for batch, length in ((1, 7), (3, 60), (5, 200)):
        inputs = {"tokens": rng.integers(2, 8, (batch, length)).astype("int32")}
        inputs["tokens"][0, length // 2 :] = texts.PADDING
        unknown = rng.choice([-(2**31), -1, 8, 10**6], size=length)
        inputs["tokens"][-1, length // 2 :] = unknown[length // 2 :]
        if "trigrams" in specs:
            inputs["trigrams"] = rng.integers(0, 9, (batch, length, 4)).astype("int32")
            inputs["trigrams"][0, :2, :] = [[-1], [10**6]]
        found, expected = run(**inputs), function(**inputs)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("cell", first_of(sorted(RECURRENT_LAYERS, key="MinGRU".__ne__)))
def test_every_recurrent_layer_fits_into_the_model(cell):
    """`tests/layers` shows that each of them learns and converts."""
    model = app.build(app.Config(cell=cell, units=4, embedding_dim=3, pool="last"), ASSETS)
    found = model.predict_on_batch({"tokens": np.array([[2, 3, 4]])})
    np.testing.assert_allclose(np.sum(found), 1, atol=1e-5)


def test_ids_that_are_not_in_the_vocabulary_are_the_unknown_token(plain):
    function = app.serve(plain).functions["ids"]
    unknown, outside = ([[2, 1, 3, 1]], [[2, -5, 3, 8]])
    a, b = (function(tokens=tf.constant(rows))["probabilities"] for rows in (unknown, outside))
    np.testing.assert_array_equal(a, b)


def test_an_empty_batch_and_hostile_texts_get_an_answer(plain):
    serving = app.serve(plain).functions["serving_default"]
    empty = serving(tf.constant([], tf.string))
    assert {name: value.shape[0] for name, value in empty.items()} == dict.fromkeys(empty, 0)
    megabyte = 2**20
    hostile = [b"\0" * megabyte, b"x" * megabyte, b"\xff\xfe" * 99, b"\xe2\x80" * 9, b"\r\v"]
    found = serving(tf.constant(hostile))
    np.testing.assert_allclose(tf.reduce_sum(found["probabilities"], axis=1), 1, atol=1e-5)
    # A text of a megabyte with a token at every other byte.
    found = serving(tf.constant(["a " * (megabyte // 2)]))
    assert found["tokens"].shape == (1, texts.MAX_TOKENS)


def test_the_loops_of_a_litert_file_are_nested(plain):
    """LiteRT copies all outputs of a loop at each iteration: the time would be quadratic."""
    function = app.serve(plain).functions["ids"].python_function
    with builtin_ops():
        spec = tf.TensorSpec([None, None], tf.int32, name="tokens")
        traced = tf.function(function, autograph=False).get_concrete_function(tokens=spec)
    library = {f.signature.name: f.node_def for f in traced.graph.as_graph_def().library.function}

    def bodies(nodes) -> list[str]:
        return [node.attr["body"].func.name for node in nodes if "While" in node.op]

    outer = bodies(traced.graph.as_graph_def().node)
    middle = [name for body in outer for name in bodies(library[body])]
    inner = [name for body in middle for name in bodies(library[body])]
    assert len(outer) == len(middle) == len(inner) == 2  # forwards and backwards
    assert all("MatMul" in {node.op for node in library[body]} for body in inner)
    for body in (*outer, *middle):
        assert "MatMul" not in {node.op for node in library[body]}


def test_labels_that_training_lacks_count_as_errors(plain):
    tokens = np.array([[2, 3], [2, 3]], "int32")
    labels = np.array([-1, -1])
    dataset = tf.data.Dataset.from_tensors(({"tokens": tokens}, labels))
    assert app.score(plain, dataset) == {"examples": 2, "accuracy": 0.0}
    assert "| unseen | " in app.report(plain, dataset).text
    assert plain.model.evaluate(dataset, verbose=0)[0] == 0.0  # the loss


def test_attention_weights_are_those_of_the_tokens(plain):
    results = app.predict(plain, ["good film , not bad", "bad"])
    assert results[0]["tokens"] == ["good", "film", ",", "not", "bad"]
    for result in results:
        assert len(result["attention"]) == len(result["tokens"])
        assert sum(result["attention"]) == pytest.approx(1, abs=1e-5)
    assert "good" in app.show(results[0]).plain


def test_the_order_of_words_matters(plain):
    a, b = app.predict(plain, ["good , not bad", "bad , not good"])
    assert abs(probabilities([a]) - probabilities([b])).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "Foo"}, "cell must be one of .*ClockworkRNN"),
        ({"encoding": "vectors"}, "need each other"),
        ({"vectors": "x.txt"}, "need each other"),
        ({"pool": "last", "segment_length": 5}, "segment_length needs"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        app.Config(**options)


def test_own_files_have_a_preset_of_their_own(tmp_path):
    config = parse_train(app, [f"--data={tmp_path}", "--units=5"], "train")
    assert config == dataclasses.replace(app.OWN_FILES, data=str(tmp_path), units=5)


def test_pretrained_vectors_are_not_needed_after_training(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("good 1 2 2\nbad -2 -3 -6\n")
    config = app.Config(encoding="vectors", vectors=str(path), embedding_dim=3, units=4)
    table = app.build(config, ASSETS).weights[0].numpy()
    np.testing.assert_allclose(table[2:4], [[1 / 3, 2 / 3, 2 / 3], [-2 / 7, -3 / 7, -6 / 7]], 1e-6)
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), [0, 1, 1, 1, 1, 1, 1, 1], 1e-6)
    with pytest.raises(UsageError, match="needs --embedding-dim=3"):
        app.build(dataclasses.replace(config, embedding_dim=5), ASSETS)
    path.unlink()
    assert app.build(config, ASSETS).weights[0].shape == (8, 3)
    with pytest.raises(DataError, match="no such file"):
        app.load(dataclasses.replace(config, data="reviews", generated_size=0.02), ("train",))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run of a model with random weights."""
    return write_run(tmp_path_factory.mktemp("runs") / "run", app, make(generated_size=0.02))


@pytest.fixture(scope="module")
def trained(run) -> Trained:
    return load_trained(app, run)


@pytest.mark.exhaustive
def test_the_generated_reviews_are_learned_and_a_bag_of_words_is_not_enough(tmp_path):
    """In `make test`, tests/test_packaging.py trains the app from the command line."""
    run = Run(tmp_path)
    training.train(app, dataclasses.replace(app.PRESETS["reviews"], patience=2), run)
    trained = load_trained(app, run)
    data = app.load(trained.config, ("train", "valid", "test"), trained.assets)
    figures = app.score(trained, data["test"])
    assert figures["examples"] == 1000
    baseline = app.baseline(trained.config, data, "test")
    assert baseline["accuracy"] < 0.75
    assert figures["accuracy"] >= 0.95
    assert figures["accuracy"] >= baseline["accuracy"] + 0.20
    labels = [result["label"] for result in app.predict(trained, app.examples()[:3])]
    assert labels == ["negative", "positive", "negative"]


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory, parity_process):
    """The export of the run."""
    return export.export(app, run, tmp_path_factory.mktemp("saved"))


def test_the_example_scripts_agree_with_predict(trained, folder, run_example):
    expected = app.predict(trained, app.examples())
    for script in ("serving", "litert"):
        lines = run_example("sentiment", script, folder, *app.examples())
        for line, result in zip(lines, expected, strict=True):
            most = max(result["probabilities"].values())
            assert line.split()[:2] == [result["label"], f"{most:.1%}"]
            assert line.endswith(result["text"])


def test_the_exported_model_takes_any_text(trained, folder):
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    outputs = served(text=tf.constant(TEXTS))
    expected = probabilities(app.predict(trained, TEXTS))
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)


def test_the_report_lists_classes_and_errors(trained):
    made = app.report(trained, app.load(trained.config, ("valid",), trained.assets)["valid"])
    assert "| positive |" in made.text
    assert list(made.figures) == ["confusion"]


def test_the_plot_is_an_image(plain, tmp_path):
    [result] = app.predict(plain, ["good film , not bad"])
    app.plot(result, tmp_path / "plot.png")
    assert min(tf.io.decode_image((tmp_path / "plot.png").read_bytes()).shape[:2]) > 100


def test_the_tokenizer_of_the_litert_example_agrees_on_plain_english():
    for sentence in (*app.examples(), "It wasn't 'bad': I'd give 10/10!", "", "the boys' film"):
        expected = texts.tokenize(tf.constant([sentence])).to_list()[0]
        assert litert.tokenize(sentence) == [token.decode() for token in expected]


@pytest.mark.parametrize(("data", "classes"), [("sst2", 2), ("sst5", 5)])
def test_published_test_splits_are_complete(manual_dir, monkeypatch, data, classes):
    monkeypatch.setenv("UNROLL_MANUAL_DIR", str(manual_dir))
    loaded = app.load(app.PRESETS[data], ("test",))
    assert len(loaded.assets["labels"]) == classes
    examples = {"sst2": 1821, "sst5": 2210}[data]
    assert sum(len(labels) for _, labels in loaded["test"]) == examples
