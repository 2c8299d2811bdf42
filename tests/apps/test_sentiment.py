"""The sentiment app, on its generated data and on arbitrary texts."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from unroll.apps.core import export, training
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import evaluate, load_trained
from unroll.apps.core.evaluation import report as report_on
from unroll.apps.core.protocol import Trained
from unroll.apps.core.runs import Run
from unroll.apps.sentiment import app
from unroll.apps.sentiment.examples import litert
from unroll.layers.litert_tensorflow import convert
from unroll.layers.recurrent import RECURRENT_LAYERS
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
    "max in segments": {"pool": "max", "segment_length": 4},
    "mean, one-hot": {"pool": "mean", "encoding": "one_hot"},
    "word hashing, dense": {"encoding": "word_hashing", "skip": "dense", "depth": 2},
    "residual": {"pool": "max", "skip": "residual", "depth": 3},
}
TEXTS = [
    "",
    "   ",
    "good " * 10_000,
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


@pytest.fixture(params=VARIANTS, scope="module")
def model(request) -> Trained:
    return make(**VARIANTS[request.param])


def test_any_text_gets_an_answer(model):
    results = app.predict(model, TEXTS)
    assert [result["text"] for result in results] == TEXTS
    assert np.isfinite(probabilities(results)).all()
    np.testing.assert_allclose(probabilities(results).sum(axis=1), 1, atol=1e-5)
    assert results[0]["tokens"] == results[1]["tokens"] == []
    assert len(results[2]["tokens"]) == 10_000


def test_an_answer_does_not_depend_on_its_batch(model):
    serving = app.serve(model).functions["serving_default"]
    together = serving(tf.constant(TEXTS))["probabilities"].numpy()
    for row, alone in zip(together, TEXTS, strict=True):
        expected = serving(tf.constant([alone]))["probabilities"].numpy()[0]
        np.testing.assert_allclose(row, expected, atol=1e-5, err_msg=alone[:20])


def test_litert_agrees_with_the_model(model):
    from ai_edge_litert.interpreter import Interpreter

    function = app.serve(model).functions["ids"]
    specs = {spec.name: spec for spec in function.input_signature}
    run = Interpreter(model_content=convert(function, specs)).get_signature_runner()
    rng = np.random.default_rng(0)
    for batch, length in ((1, 7), (3, 60), (5, 200)):
        inputs = {"tokens": rng.integers(2, 8, (batch, length)).astype("int32")}
        inputs["tokens"][0, length // 2 :] = texts.PADDING
        if "trigrams" in specs:
            inputs["trigrams"] = rng.integers(0, 9, (batch, length, 4)).astype("int32")
        found, expected = run(**inputs), function(**inputs)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("cell", RECURRENT_LAYERS)
def test_every_recurrent_layer_learns_and_converts(cell):
    """The task: whether "good" comes before "bad"."""
    from ai_edge_litert.interpreter import Interpreter

    keras.utils.set_random_seed(2)
    config = app.Config(cell=cell, units=8, embedding_dim=6, pool="last", learning_rate=0.02)
    model = app.build(config, ASSETS)
    tokens = np.random.default_rng(1).integers(4, 8, (256, 6)).astype("int32")
    labels = np.arange(256) % 2
    tokens[:, 1], tokens[:, 4] = 2 + labels, 3 - labels
    history = model.fit({"tokens": tokens}, labels, batch_size=32, epochs=12, verbose=0)
    assert history.history["accuracy"][-1] > 0.9
    function = app.serve(Trained(config, ASSETS, model)).functions["ids"]
    specs = {spec.name: spec for spec in function.input_signature}
    run = Interpreter(model_content=convert(function, specs)).get_signature_runner()
    found, expected = run(tokens=tokens[:3]), function(tokens=tokens[:3])
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-5)


def test_attention_weights_are_those_of_the_tokens():
    results = app.predict(make(), ["good film , not bad", "bad"])
    assert results[0]["tokens"] == ["good", "film", ",", "not", "bad"]
    for result in results:
        assert len(result["attention"]) == len(result["tokens"])
        assert sum(result["attention"]) == pytest.approx(1, abs=1e-5)
    assert "good" in app.show(results[0]).plain


def test_the_order_of_words_matters():
    a, b = app.predict(make(), ["good , not bad", "bad , not good"])
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


def test_pretrained_vectors_are_not_needed_after_training(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("good 1 2 3\nbad -1 -2 -3\n")
    config = app.Config(encoding="vectors", vectors=str(path), embedding_dim=3, units=4)
    table = app.build(config, ASSETS).weights[0].numpy()
    assert table[2].tolist() == [1, 2, 3]
    assert table[3].tolist() == [-1, -2, -3]
    with pytest.raises(UsageError, match="needs --embedding-dim=3"):
        app.build(dataclasses.replace(config, embedding_dim=5), ASSETS)
    path.unlink()
    assert app.build(config, ASSETS).weights[0].shape == (8, 3)
    with pytest.raises(DataError, match="no such file"):
        app.load(dataclasses.replace(config, data="reviews", generated_size=0.02), ("train",))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """The generated preset."""
    run = Run(tmp_path_factory.mktemp("run"))
    training.train(app, dataclasses.replace(app.PRESETS["reviews"], patience=2), run)
    return run


def test_the_generated_reviews_are_learned_and_a_bag_of_words_is_not_enough(run):
    figures = evaluate(app, run, "test")
    assert figures["examples"] == 1000
    trained = load_trained(app, run)
    config, assets = trained.config, trained.assets
    baseline = app.baseline(config, app.load(config, ("train", "valid", "test"), assets), "test")
    assert baseline["accuracy"] < 0.75
    assert figures["accuracy"] >= 0.95
    assert figures["accuracy"] >= baseline["accuracy"] + 0.20
    labels = [result["label"] for result in app.predict(trained, app.examples()[:3])]
    assert labels == ["negative", "positive", "negative"]


def test_the_example_scripts_agree_with_predict(run, tmp_path, parity_process, run_example):
    folder = export.export(app, run, tmp_path)
    expected = app.predict(load_trained(app, run), app.examples())
    for script in ("serving", "litert"):
        lines = run_example("sentiment", script, folder, *app.examples())
        for line, result in zip(lines, expected, strict=True):
            most = max(result["probabilities"].values())
            assert line.split()[:2] == [result["label"], f"{most:.1%}"]
            assert line.endswith(result["text"])


def test_the_exported_model_takes_any_text(run, tmp_path, parity_process):
    folder = export.export(app, run, tmp_path, ("saved_model",))
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    outputs = served(text=tf.constant(TEXTS))
    expected = probabilities(app.predict(load_trained(app, run), TEXTS))
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)


def test_the_report_lists_classes_and_errors(run):
    text, files = report_on(app, run, "valid")
    assert "| positive |" in text
    assert [path.name for path in files] == ["valid.md", "valid-confusion.png"]
    assert all(path.stat().st_size for path in files)


def test_the_plot_is_an_image(tmp_path):
    [result] = app.predict(make(), ["good film , not bad"])
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
