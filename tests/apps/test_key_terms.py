"""The key term app, on arbitrary texts and on its generated data."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.apps.variants import fixtures
from unroll.apps.core import export, training
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import load_trained
from unroll.apps.core.options import parse_train
from unroll.apps.core.protocol import Trained, query
from unroll.apps.core.runs import Run
from unroll.apps.key_terms import app
from unroll.apps.key_terms.examples import litert
from unroll.layers.litert_tensorflow import convert
from unroll.pipelines import tagging

ASSETS = {
    "vocabulary": ["[PAD]", "[UNK]", "neural", "network", "and", "sodium", "."],
    "characters": ["[PAD]", "[UNK]", *"adeklmnorstuw."],
    "tags": ["B-KEY", "B-TASK", "I-KEY", "I-TASK", "O"],
}
MODELS = ("tagger", "attention")
TEXTS = [
    "",
    "   ",
    "Neural network. " * 60,
    "😀❤️👨‍👩‍👧",
    "nul\0byte network",
    "从 波士顿 到 丹佛",
    "network, network and NETWORK",
]


def make(model: str, **options) -> Trained:
    keras.utils.set_random_seed(1)
    small = {
        "units": 6,
        "embedding_dim": 5,
        "character_units": 4,
        "max_words": 3,
        "threshold": 0.05,
    }
    config = app.Config(model=model, **(small | options))
    network = app.build(config, ASSETS)
    # Random weights, since initial biases of zero would hide a mistake.
    rng = np.random.default_rng(0)
    for weight in network.trainable_weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape))
    return Trained(config, ASSETS, network)


served, model, plain = fixtures(app, make, {kind: {"model": kind} for kind in MODELS})


@pytest.mark.exhaustive
def test_any_text_gets_an_answer(model):
    results = app.predict(model, TEXTS)
    assert [result["text"] for result in results] == TEXTS
    assert results[0]["tokens"] == results[1]["terms"] == []
    assert len(results[2]["tags"]) == 180
    assert sum(len(result["mentions"]) for result in results) > 10
    for result in results:
        assert set(result["tags"]) <= set(ASSETS["tags"])
        assert sum(tag[:2] == "B-" for tag in result["tags"]) == len(result["mentions"])
        best = {}
        for mention in result["mentions"]:
            own = result["text"][mention["begin"] : mention["end"]]
            assert mention["text"] == own != ""
            words = tagging.split_words(tf.constant([own]), documents=True)[0].to_list()[0]
            term = " ".join(word.decode() for word in words).casefold()
            best[term] = max(best.get(term, 0.0), mention["score"])
        # The different terms with their best score, the best first.
        assert {each["term"].casefold(): each["score"] for each in result["terms"]} == best
        scores = [each["score"] for each in result["terms"]]
        assert scores == sorted(scores, reverse=True)
        assert ("attention" in result) == (model.config.model == "attention")
        if result["tokens"] and "attention" in result:
            assert sum(result["attention"]) == pytest.approx(1, abs=1e-5)
    json.dumps(results)
    shown = app.show(results[6]).plain
    assert all(word in shown for word in results[6]["tokens"])
    assert all(f"[{mention['score']:.2f}]" in shown for mention in results[6]["mentions"])


def test_an_answer_does_not_depend_on_its_batch(model):
    service = app.serve(model)
    for text, whole in zip(TEXTS, query(service, TEXTS), strict=True):
        (alone,) = query(service, [text])
        for name in ("tags", "spans", "terms"):
            count = len(alone[name])
            assert alone[name] == whole[name][:count]
        assert alone["scores"] == pytest.approx(whole["scores"][: len(alone["scores"])], abs=1e-5)


def test_an_empty_batch_and_hostile_texts_get_an_answer(served):
    serving = served("tagger")[1].functions["serving_default"]
    empty = serving(tf.constant([], tf.string))
    assert {name: value.shape[0] for name, value in empty.items()} == dict.fromkeys(empty, 0)
    hostile = [b"\0" * 2**20, b"x" * 2**20, b"\xff\xfe" * 99, b"\xe2\x80" * 9, b"\r\v"]
    found = serving(tf.constant(hostile))
    assert found["terms"].shape[0] == 5
    assert np.isfinite(found["scores"]).all()


def test_ids_that_are_not_in_the_vocabulary_are_the_unknown_token(served):
    function = served("tagger")[1].functions["ids"]
    found = []
    for outside in (1, -1, 10**9):
        tokens = tf.constant([[2, outside, 3, outside]])
        found.append(function(tokens=tokens, characters=tf.fill([1, 4, 5], outside))["scores"])
    assert (found[0] == found[1]).numpy().all()
    assert (found[0] == found[2]).numpy().all()


@pytest.mark.exhaustive
def test_litert_agrees_with_the_model(served):
    """That of the tagger is the test of the example scripts."""
    from ai_edge_litert.interpreter import Interpreter

    function = served("attention")[1].functions["ids"]
    specs = {spec.name: spec for spec in function.input_signature}
    run = Interpreter(model_content=convert(function, specs)).get_signature_runner()
    rng = np.random.default_rng(0)
    for batch, length in ((1, 7), (3, 40), (5, 2)):
        inputs = {
            "tokens": rng.integers(1, 7, (batch, length)).astype("int32"),
            "characters": rng.integers(0, 16, (batch, length, 6)).astype("int32"),
        }
        inputs["tokens"][0, length // 2 :] = 0
        found, expected = run(**inputs), function(**inputs)
        assert set(found) == {"tags", "scores", "attention"}
        assert (found["tags"] == expected["tags"].numpy()).all()
        np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-5)


@pytest.mark.exhaustive
def test_the_example_scripts_agree_with_predict(served, tmp_path, parity_process, run_example):
    trained, service = served("tagger")
    texts = ["Neural network and sodium. Network: 5% of sodium's network.", "network"]
    folder = export.write(service, ASSETS, texts, tmp_path)
    expected = app.predict(trained, texts)
    lines = {
        script: [line.split("\t") for line in run_example("key_terms", script, folder, *texts)]
        for script in ("serving", "litert")
    }
    for served_line, lite, result in zip(*lines.values(), expected, strict=True):
        terms = [f"{each['term']}={each['score']:.2f}" for each in result["terms"]]
        spans = [f"{each['begin']}-{each['end']}" for each in result["mentions"]]
        assert served_line == [*terms, *spans]
        assert [cell.partition(" ")[0] for cell in lite] == [
            f"{each['score']:.2f}" for each in result["mentions"]
        ]
        assert len(result["mentions"]) > 0


def test_the_splitter_of_the_litert_example_agrees_on_plain_english():
    texts = [*app.examples(), "Knuth's 5%, of 3.5: (e.g. U.S. law). St. John et al.", "", "end..."]
    for text in texts:
        words = tagging.split_words(tf.constant([text]), documents=True)[0].to_list()[0]
        assert litert.split_words(text) == [word.decode() for word in words]


def test_the_plot_is_an_image(plain, tmp_path):
    results = app.predict(plain, [TEXTS[2][:120], "Price $5 of a network_$x$"])
    for k, result in enumerate(results):
        app.plot(result, tmp_path / f"{k}.png")
        assert min(tf.io.decode_image((tmp_path / f"{k}.png").read_bytes()).shape[:2]) > 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "Foo"}, "cell must be one of .*GRU"),
        ({"max_words": 0}, "max_words must be at least 1"),
        ({"threshold": 1.0}, "threshold must be between 0 and 1"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        app.Config(**options)


def test_own_files_have_a_preset_of_their_own(tmp_path):
    config = parse_train(app, [f"--data={tmp_path}", "--units=5"], "train")
    assert config == dataclasses.replace(app.OWN_FILES, data=str(tmp_path), units=5)


def test_data_without_terms_and_with_long_ones(tmp_path, capsys):
    none, long = tmp_path / "none", tmp_path / "long"
    for folder, tag in ((none, "O"), (long, "I-KEY")):
        folder.mkdir()
        first = tag.replace("I-", "B-")
        text = "".join(f"a{k}\t{first}\n" + f"b\t{tag}\n" * 4 + "\n" for k in range(12))
        (folder / "train.conll").write_text(text)
    config = dataclasses.replace(app.OWN_FILES, max_words=4)
    with pytest.raises(UsageError, match="the training split has no key terms"):
        app.load(dataclasses.replace(config, data=str(none)), ())
    assets = app.load(dataclasses.replace(config, data=str(long)), ()).assets
    assert assets["tags"] == ["B-KEY", "I-KEY", "O"]
    assert (
        "11 of 11 key terms of the training split have more than 4 words" in capsys.readouterr().err
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", MODELS)
def test_articles_are_learned(kind, tmp_path):
    """The theme decides: the same term is found in one text and not in another."""
    run = Run(tmp_path)
    config = dataclasses.replace(app.PRESETS["articles"], model=kind)
    training.train(app, config, run)
    trained = load_trained(app, run)
    data = app.load(config, ("train", "valid", "test"), trained.assets)
    figures = app.score(trained, data["test"])
    baseline = app.baseline(config, data, "test")
    assert figures["span_f1"] > 0.9
    assert figures["f1_at_5"] > baseline["f1_at_5"] + 0.2
    assert baseline["span_f1"] < 0.6
    made = app.report(trained, data["valid"])
    assert "| KEY |" in made.text
    assert list(made.figures) == ["calibration"]
    results = app.predict(
        trained,
        [
            f"{subject} wrote about kernel and fermentation. We studied neural network."
            for subject in ("Programmers", "Bakers")
        ],
    )
    assert [{each["term"] for each in result["terms"]} for result in results] == [
        {"kernel", "neural network"},
        {"kernel", "fermentation"},
    ]
