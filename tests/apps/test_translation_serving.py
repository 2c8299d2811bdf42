"""The translation app: its exported functions, predictions, conversations and reports."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from tests.apps.translation_cases import SOURCE, TARGET, make
from tests.apps.variants import fixtures
from unroll.apps.core import export, training, transfer
from unroll.apps.core.evaluation import load_trained
from unroll.apps.core.protocol import Data, query
from unroll.apps.core.runs import Run
from unroll.apps.translation import app, decoding, scoring
from unroll.apps.translation.examples import litert
from unroll.layers.litert_tensorflow import convert
from unroll.pipelines import translation
from unroll.pipelines.translation import END, PAD, SPECIAL

VARIANTS = {
    "default": {"num_return_sequences": 2},
    "dialogs": {"dialogs": True, "history": 3, "attention": "after"},
    "characters": {
        **{"tied": "three", "shared_vocabulary": True, "units_of_text": "characters"},
        **{"sample": True, "num_return_sequences": 2},
    },
    "unknown words": {"replace_unknown": True, "mbr_samples": 3},
}
TEXTS = ["", "   ", "a small dog sees. " * 9, "😀❤️👨‍👩‍👧", "nul\0byte cat", "我是学生。", "Zebra"]

served, model, plain = fixtures(app, make, VARIANTS)


def test_any_text_gets_translations(model):
    results = app.predict(model, TEXTS)
    pieces = set(translation.tokenizers(model.assets, model.config.units_of_text)[1].pieces)
    for text, result in zip(TEXTS, results, strict=True):
        assert result["source"] == text
        assert len(result["translations"]) == model.config.num_return_sequences
        assert result["source_pieces"][-1] == SPECIAL[END]
        assert result["scores"] == sorted(result["scores"], reverse=True)
        for own, rows in zip(result["pieces"], result["alignment"], strict=True):
            assert set(own) <= pieces - set(SPECIAL)
            assert np.shape(rows)[0] == len(own)
            for row in rows:
                assert len(row) == len(result["source_pieces"])
                assert sum(row) == pytest.approx(1, abs=1e-5)
    json.dumps(results)
    shown = app.show(results[2]).plain
    assert all(text in shown for text in results[2]["translations"])


def test_a_translation_does_not_depend_on_its_batch(model):
    service = app.serve(model)
    for text, whole in zip(TEXTS, query(service, TEXTS), strict=True):
        [alone] = query(service, [text])
        assert alone["translations"] == whole["translations"]
        assert alone["scores"] == pytest.approx(whole["scores"], abs=1e-4)
        weights, expected = np.array(whole["alignment"]), np.array(alone["alignment"])
        _, pieces, source = expected.shape
        np.testing.assert_allclose(weights[:, :pieces, :source], expected, atol=1e-4)
        assert weights.sum() == pytest.approx(expected.sum(), abs=1e-3)


def test_an_empty_batch_and_hostile_texts_get_an_answer(served):
    serving = served("default")[1].functions["serving_default"]
    empty = serving(text=tf.constant([], tf.string))
    assert {name: value.shape[0] for name, value in empty.items()} == dict.fromkeys(empty, 0)
    hostile = [b"\0" * 2**15, b"x" * 2**15, b"\xff\xfe" * 99, b"\xe2\x80" * 9, b"\r\v"]
    found = serving(text=tf.constant(hostile))
    assert found["translations"].shape == (5, 2)
    assert np.isfinite(found["scores"]).all()


def test_the_last_tokens_of_a_long_source_are_read(served):
    translator = decoding.Translator(served("default")[0])
    texts = tf.constant(["small dog " * 2**12])
    ids = translator.source_ids(texts)
    assert ids.shape == translator.source_pieces(texts).shape == (1, 2**12)
    assert ids[0, -1] == END


def test_ids_outside_the_vocabulary_are_the_unknown_token(served):
    function = served("default")[1].functions["ids"]
    found = [
        function(source=tf.constant([[5, outside, END]]))["alignment"].numpy()
        for outside in (translation.UNKNOWN, -1, 10**9)
    ]
    assert (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()


def test_turns_before_a_text_are_read(served):
    _, service = served("dialogs")
    request = service.requests(["a\tb\tsmall dog\tcat", "cat"])["serving_default"]
    assert request["text"].tolist() == ["cat", "cat"]
    # With history=3, the text and two turns before it.
    assert request["history"].tolist() == [["b", "small dog"], ["", ""]]
    first, second = query(service, ["a\tb\tsmall dog\tcat", "cat"])
    pieces = [piece for piece in first["source_pieces"] if piece]
    assert pieces == ["b", "<sep>", "small", "dog", "<sep>", "cat", "</s>"]
    assert first["scores"] != second["scores"]


def test_a_conversation_has_its_last_turns(served, monkeypatch):
    trained, service = served("dialogs")
    monkeypatch.setattr(app, "serve", lambda _: service)
    answer = app.converse(trained)
    one, two = answer("a dog"), answer("a\tcat")
    assert one["source"] == "a dog"
    assert two["source"] == f"a dog\t{one['translations'][0]}\ta cat"
    three = answer("dog")
    assert three["source"] == f"a cat\t{two['translations'][0]}\tdog"
    assert app.converse(served("default")[0]) is None


@pytest.mark.parametrize("variant", ["dialogs"])
def test_litert_equals_the_model(served, variant):
    from ai_edge_litert.interpreter import Interpreter

    function = served(variant)[1].functions["ids"]
    specs = {spec.name: spec for spec in function.input_signature}
    run = Interpreter(model_content=convert(function, specs)).get_signature_runner()
    rng = np.random.default_rng(0)
    for batch, length in ((1, 7), (3, 30), (2, 1)):
        source = rng.integers(5, len(SOURCE), (batch, length)).astype("int32")
        source[0, length // 2 + 1 :] = PAD
        found, expected = run(source=source), function(source=source)
        assert set(found) == {"ids", "lengths", "alignment"}
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5)


@pytest.mark.exhaustive
def test_the_example_scripts_agree_with_predict(served, tmp_path, parity_process, run_example):
    trained, service = served("default")
    texts = ["a small dog sees.", "cat"]
    folder = export.write(service, trained.assets, texts, tmp_path)
    results = query(service, texts)
    lines = [line.split("\t") for line in run_example("translation", "serving", folder, *texts)]
    assert lines == [
        [text, f"{score:.2f}"]
        for result in results
        for text, score in zip(result["translations"], result["scores"], strict=True)
    ]
    greedy = service.functions["ids"](**service.requests(texts)["ids"])
    target = translation.tokenizers(trained.assets, "words")[1]
    expected = target.decode(greedy["ids"]).numpy().tolist()
    found = run_example("translation", "litert", folder, *texts)
    assert [line.encode() for line in found] == expected


def test_the_splitter_of_the_litert_example_agrees():
    tokenizer = translation.Tokenizer("words", list(SPECIAL))
    texts = [*app.examples(), "Don't! (Really?) 3.5 a_b", "", "Größe — „ja“, x..."]
    for text in texts:
        pieces = [piece.decode() for piece in tokenizer.split(tf.constant([text])).to_list()[0]]
        assert litert.split_words(text) == pieces
        assert litert.join_words(pieces) == text


def test_the_plot_is_an_image(plain, tmp_path):
    results = app.predict(plain, ["a small $x_$ dog 我", ""])
    results[1]["pieces"][0], results[1]["alignment"][0] = [], []
    for k, result in enumerate(results):
        app.plot(result, tmp_path / f"{k}.png")
        assert min(tf.io.decode_image((tmp_path / f"{k}.png").read_bytes()).shape[:2]) > 40


def dataset(trained, pairs, histories=None) -> tf.data.Dataset:
    histories = histories or [[] for _ in pairs]
    raw = tf.data.Dataset.from_tensor_slices(
        {
            "source": [source for source, _ in pairs],
            "target": [target for _, target in pairs],
            "history": tf.ragged.constant(histories, tf.string, 1),
        }
    )
    tokenizers = translation.tokenizers(trained.assets, trained.config.units_of_text)
    return translation.batches(raw, *tokenizers, 2, with_text=True)


PAIRS = [("a dog sees.", "ein Hund sieht."), ("a zebra", "Katze"), ("small cat", "kleiner Hund")]


@pytest.mark.exhaustive
def test_figures_of_a_split(plain):
    data = dataset(plain, PAIRS)
    found = scoring.predictions(plain, data, greedy=True, details=True)
    results = app.predict(plain, [source for source, _ in PAIRS])
    assert found.outputs == [result["translations"][0] for result in results]
    assert found.pieces == [result["pieces"][0] for result in results]
    assert found.sources == [result["source_pieces"] for result in results]
    assert found.unknown.tolist() == [0, 1, 0]
    assert found.tokens.tolist() == [5, 2, 3]
    for weights, result in zip(found.alignments, results, strict=True):
        expected = np.reshape(result["alignment"][0], weights.shape)
        np.testing.assert_allclose(weights, expected, atol=1e-5)
    [perplexity] = plain.model.evaluate(data.map(lambda x, y: (x, y["tokens"])), verbose=0)[1:]
    figures = app.score(plain, data)
    assert figures["perplexity"] == pytest.approx(perplexity, rel=1e-4)
    assert figures["examples"] == 3
    assert {"bleu", "chrf", "exact_match", "bleu_greedy", "exact_match_greedy"} <= set(figures)


@pytest.mark.exhaustive
def test_figures_of_replies(served):
    trained, _ = served("dialogs")
    data = dataset(trained, PAIRS, [["a"], [], ["cat", "dog"]])
    figures = app.score(trained, data)
    assert {"bleu", "perplexity", "distinct_2", "people_distinct_2", "selection"} <= set(figures)
    made = app.report(trained, data)
    assert "| 1 | 1 |" in made.text  # one source with one unknown token
    assert list(made.figures) == ["attention"]
    splits = Data({"train": data, "test": data}, trained.assets)
    assert set(app.baseline(trained.config, splits, "test")) & set(figures)


def test_the_axes_of_a_shared_vocabulary():
    trained = make(**VARIANTS["characters"])
    declared = app.axes(trained.config)
    size = len(trained.assets["vocabulary"])
    found = {
        name: transfer.axes_of(name, declared)
        for name, weight in transfer.by_name(trained.model).items()
        if size in weight.shape
    }
    assert found == {
        "decoder/embedding/embeddings": ("vocabulary", None),
        "decoder/output_bias": ("vocabulary",),
    }


@pytest.mark.exhaustive
def test_an_ensemble_is_served(served, monkeypatch):
    trained, _ = served("default")
    both = app.ensemble([trained, make(seed=3, **VARIANTS["default"])])
    both = dataclasses.replace(both, config=dataclasses.replace(both.config, max_length=3))
    [result] = app.predict(both, ["a dog"])
    assert len(result["translations"]) == 2
    assert set(result["pieces"][0]) <= set(TARGET)


@pytest.mark.exhaustive
def test_phrases_are_learned(tmp_path):
    """Greedy search misses the most probable translations, by the construction of the data."""
    run, config = Run(tmp_path), app.PRESETS["phrases"]
    training.train(app, config, run)
    trained = load_trained(app, run)
    data = app.load(config, ("train", "test"), trained.assets)
    figures, baseline = app.score(trained, data["test"]), app.baseline(config, data, "test")
    assert figures["exact_match"] > 93
    assert 70 < figures["exact_match_greedy"] < figures["exact_match"] - 10
    assert figures["bleu"] > baseline["bleu"] + 50
