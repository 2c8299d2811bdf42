"""Word vectors: a trained run, its files, its export, own texts, the command line."""

import dataclasses
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.apps.resuming import histories
from unroll.apps.core import cli, export, training
from unroll.apps.core.evaluation import evaluate, load_trained
from unroll.apps.core.evaluation import report as report_on
from unroll.apps.core.runs import Run
from unroll.apps.sentiment import app as sentiment
from unroll.apps.word_vectors import app, files
from unroll.pipelines import text as texts

TINY = {"generated_size": 0.2, "epochs": 10, "embedding_dim": 20}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A short training on a part of the world."""
    run = Run(tmp_path_factory.mktemp("run"))
    training.train(app, dataclasses.replace(app.PRESETS["world"], **TINY), run)
    return run


@pytest.fixture(scope="module")
def trained(run):
    return load_trained(app, run)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory, parity_process) -> SimpleNamespace:
    return export.export(app, run, tmp_path_factory.mktemp("models"))


def test_a_trained_model_answers_analogies(run):
    figures = evaluate(app, run, "test")
    assert figures["examples"] == 486
    assert figures["analogies"] > 0.5
    assert {"analogies_capitals", "analogies_genders", "analogies_plurals"} <= set(figures)
    history = json.loads(run.history.read_text())
    assert history[-1]["loss"] < history[0]["loss"]
    best = max(epoch["val_accuracy"] for epoch in history)
    valid = evaluate(app, run, "valid")
    assert valid["analogies"] == pytest.approx(best, abs=1e-6)
    known = 486 - valid["analogies_unknown"]
    assert known > 300


def test_the_baseline_is_made_of_counts(trained):
    config, assets = trained.config, trained.assets
    found = app.baseline(config, app.load(config, ("train", "valid", "test"), assets), "test")
    assert found["what"] == "PPMI and SVD"
    assert 0.05 < found["analogies"] <= 1


def test_the_text_formats_are_read_by_the_other_apps(exported, trained):
    words = trained.assets["vocabulary"]
    glove, word2vec = (exported / name for name in ("glove.txt", "word2vec.txt"))
    lines = word2vec.read_bytes().splitlines(keepends=True)
    assert lines[0] == f"{len(words) - 2} 20\n".encode()
    assert b"".join(lines[1:]) == glove.read_bytes()
    for path in (glove, word2vec):
        vectors, known = texts.read_vectors(path, words)
        assert known == len(words) - 2
        np.testing.assert_allclose(vectors[2:], trained.model.matrix()[2:], rtol=1e-5, atol=1e-9)
    # As an embedding of another app.
    config = sentiment.Config(
        encoding="vectors", vectors=str(glove), embedding_dim=20, units=2, depth=1
    )
    vocabulary = ["[PAD]", "[UNK]", "queen", "paris"]
    model = sentiment.build(config, {"vocabulary": vocabulary, "labels": ["a", "b"]})
    [layer] = [each for each in model.layers if isinstance(each, keras.layers.Embedding)]
    matrix = trained.model.matrix().numpy()
    matrix /= np.linalg.norm(matrix, axis=-1, keepdims=True)  # sentiment scales vectors to length 1
    for row, word in enumerate(vocabulary[2:], start=2):
        np.testing.assert_allclose(layer.embeddings[row], matrix[words.index(word)], rtol=1e-5)


# gensim does not close a file without a header.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_gensim_reads_the_text_formats(exported, trained):
    keyed_vectors = pytest.importorskip(
        "gensim.models", reason="gensim is not installed"
    ).KeyedVectors
    matrix, words = trained.model.matrix().numpy(), trained.assets["vocabulary"]
    for name, options in (("word2vec.txt", {}), ("glove.txt", {"no_header": True})):
        found = keyed_vectors.load_word2vec_format(str(exported / name), **options)
        assert found.index_to_key == words[2:]
        np.testing.assert_allclose(found.vectors, matrix[2:], rtol=1e-5, atol=1e-9)
    # The cosines and the order of gensim.
    [result] = app.predict(trained, ["queen"])
    expected = found.most_similar("queen", topn=10)
    assert [each["word"] for each in result["neighbors"]] == [word for word, _ in expected]
    np.testing.assert_allclose(
        [each["score"] for each in result["neighbors"]], [score for _, score in expected], atol=1e-5
    )


def test_the_export_agrees(exported, trained, run_example):
    [found, neighbors] = app.predict(trained, ["king - man + woman", "dogs"])

    def line(result):
        return ", ".join(f"{each['word']} {each['score']:.3f}" for each in result["neighbors"])

    assert run_example("word_vectors", "serving", exported, "man", "king", "woman") == [line(found)]
    assert run_example("word_vectors", "serving", exported, "Dogs") == [line(neighbors)]
    best = neighbors["neighbors"][0]
    assert run_example("word_vectors", "litert", exported, "dogs", best["word"]) == [
        f"dogs {best['word']} {best['score']:.3f}"
    ]
    functions = app.serve(trained).functions
    unknown = functions["serving_default"](words=tf.constant(["zebra", "!"]))
    assert not unknown["known"].numpy().any()
    assert set(unknown["neighbors"].numpy().ravel()) == {b""}
    assert not unknown["scores"].numpy().any()


def test_the_report_has_maps_and_the_files_of_the_projector(run, trained):
    text, written = report_on(app, run, "test")
    assert "| capitals |" in text
    assert "Wrong answers" in text
    names = [path.relative_to(run.path / "report").as_posix() for path in written]
    assert names == [
        "test.md", "test-map.png", "test-analogies.png", "projector/vectors.tsv",
        "projector/metadata.tsv", "projector/projector_config.pbtxt",
    ]  # fmt: skip
    vectors, metadata = ((run.path / "report" / name).read_text() for name in names[3:5])
    assert metadata.splitlines() == trained.assets["vocabulary"][2:]
    first = np.array(vectors.splitlines()[0].split("\t"), "float32")
    np.testing.assert_allclose(first, trained.model.matrix()[2], rtol=1e-5)
    assert len(files.projector(trained, most=3)["metadata.tsv"].splitlines()) == 3


def test_command_line(run, tmp_path, capsys):
    assert cli.main(["word_vectors", "predict", str(run.path), "king - man + woman"]) == 0
    assert capsys.readouterr().out.startswith("king - man + woman: ")
    options = ["--json", "--neighbors=2"]
    assert cli.main(["word_vectors", "predict", str(run.path), "dogs", "zz", *options]) == 0
    known, unknown = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(known["neighbors"]) == 2
    assert unknown["unknown"] == ["zz"]
    own, rated = tmp_path / "own.txt", tmp_path / "pairs.txt"
    own.write_text(": one\nman king woman queen\nman king woman zz\n")
    rated.write_text("king queen 3\nking dog 1\nqueen zz 1\nman woman 2\n")
    options = [f"--analogies={own}", f"--similarity={rated}", "--split=valid"]
    assert cli.main(["word_vectors", "evaluate", str(run.path), *options]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["examples"] == 6
    assert (figures["analogies_unknown"], figures["pairs_unknown"]) == (1, 1)
    assert -1 <= figures["pairs"] <= 1
    own.write_text("a b c\n")
    assert cli.main(["word_vectors", "evaluate", str(run.path), f"--analogies={own}"]) == 2
    assert "line 1: 3 words; an analogy has four" in capsys.readouterr().err


def test_own_text_with_phrases(tmp_path, capsys):
    path = tmp_path / "book.txt"
    lines = ["New York is a big city.", "Los Angeles is a city, too.", "He likes the big house."]
    path.write_text("\n".join(lines * 150))
    config = dataclasses.replace(
        app.OWN_FILES, data=str(path), phrases=1, phrase_threshold=6.0, embedding_dim=8, epochs=1
    )
    run = Run(tmp_path / "run")
    run.path.mkdir()
    training.train(app, config, run)
    assets = run.assets()
    assert {"new york", "los angeles"} <= set(assets["phrases"])
    counts = dict(zip(assets["vocabulary"], assets["counts"].tolist(), strict=True))
    assert counts["new_york"] >= 130
    assert counts["new"] == counts["[UNK]"] == 0
    [result] = app.predict(load_trained(app, run), ["New York"])
    assert result["neighbors"]
    figures = evaluate(app, run, "valid")
    assert 100 < figures["examples"] < 200  # words and phrases of 45 lines
    assert 0 < figures["loss"] < 6
    assert "analogies" not in figures


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "options", [{"objective": "cbow"}, {"ngram_buckets": 200, "min_ngram": 2, "max_ngram": 4}]
)
def test_variants_learn_analogies(tmp_path, options):
    run = Run(tmp_path)
    training.train(app, dataclasses.replace(app.PRESETS["world"], **TINY | options), run)
    assert evaluate(app, run, "test")["analogies"] > 0.3


@pytest.mark.exhaustive
def test_training_resumes_exactly(tmp_path, monkeypatch):
    small = TINY | {"epochs": 2, "generated_size": 0.01}
    config = dataclasses.replace(app.PRESETS["world"], **small)
    whole, resumed = histories(app, config, tmp_path, monkeypatch)
    assert resumed == whole
