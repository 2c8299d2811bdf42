"""The language model: a trained run, own files, configurations."""

import dataclasses
import json
import math

import pytest

from tests.apps.resuming import histories
from tests.apps.test_language_model import with_options
from unroll.apps.core import cli, export, training
from unroll.apps.core import config as configs
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import evaluate, load_trained
from unroll.apps.core.evaluation import report as report_on
from unroll.apps.core.protocol import Trained
from unroll.apps.core.runs import Run
from unroll.apps.language_model import app

TINY = {
    "generated_size": 0.01, "epochs": 2, "batch_size": 4, "sequence_length": 16, "units": 24,
    "embedding_dim": 8, "learning_rate": 2e-2, "max_length": 20,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A short training on a part of the grammar, in words."""
    folder = tmp_path_factory.mktemp("run")
    run = Run(folder)
    config = dataclasses.replace(app.PRESETS["grammar"], **TINY)
    training.train(app, config, run)
    return run


class TestRun:
    def test_a_trained_model_beats_the_uniform_distribution(self, run):
        figures = evaluate(app, run, "test")
        trained = load_trained(app, run)
        assert figures["perplexity"] < 0.5 * len(trained.assets["vocabulary"])
        assert figures["nats_per_token"] == pytest.approx(math.log(figures["perplexity"]))
        # The averages of the weights are what was validated and saved.
        history = json.loads(run.history.read_text())
        valid = app.load(trained.config, ("valid",), trained.assets)["valid"]
        best = min(epoch["val_perplexity"] for epoch in history)
        assert app.score(trained, valid)["perplexity"] == pytest.approx(best, rel=1e-4)

    def test_the_baseline_is_an_n_gram_model(self, run):
        trained = load_trained(app, run)
        config, assets = trained.config, trained.assets
        data = app.load(config, ("train", "valid", "test"), assets)
        found = app.baseline(config, data, "test")
        assert found["what"] == "5-gram, modified Kneser-Ney smoothing"
        assert 1.5 < found["nats_per_token"] < 2.5

    def test_the_export_agrees(self, run, tmp_path, parity_process, run_example):
        folder = export.export(app, run, tmp_path)
        signatures = json.loads((folder / "manifest.json").read_text())["litert"]
        assert {name: each["inputs"].keys() for name, each in signatures.items()} == {
            "step": {"token", "state_0", "state_1"},
            "generate": {"prompt", "max_length"},
        }
        prompts = app.examples()[:2]
        trained = with_options(load_trained(app, run), temperature=0.0, max_length=40)
        expected = [r["prompt"] + r["continuation"] for r in app.predict(trained, prompts)]
        for script in ("serving", "litert"):
            lines = run_example("language_model", script, folder, *prompts)
            assert "\n".join(lines) == "\n".join(expected)

    def test_the_report_names_units(self, run):
        text, files = report_on(app, run, "valid")
        assert "| depth of brackets |" in text
        assert "| position in the line |" in text
        assert "The most surprising tokens" in text
        assert [path.name for path in files] == [
            "valid.md",
            "valid-surprise.png",
            "valid-units.png",
        ]

    def test_command_line(self, run, capsys):
        assert cli.main(["language_model", "predict", str(run.path), "the", "--score"]) == 0
        assert "per token" in capsys.readouterr().out
        options = ["--temperature=0", "--max-length=5", "--stream"]
        assert cli.main(["language_model", "predict", str(run.path), "the dog", *options]) == 0
        streamed = capsys.readouterr().out
        options = ["--temperature=0", "--max-length=5"]
        assert cli.main(["language_model", "predict", str(run.path), "the dog", *options]) == 0
        assert capsys.readouterr().out == streamed
        assert streamed.startswith("the dog ")


@pytest.mark.exhaustive
def test_training_resumes_exactly(tmp_path, monkeypatch):
    config = dataclasses.replace(app.PRESETS["grammar"], **TINY, dropout=0.1, word_dropout=0.1)
    whole, resumed = histories(app, config, tmp_path, monkeypatch)
    assert resumed == whole


def test_own_file_of_subwords(tmp_path, monkeypatch):
    path = tmp_path / "book.txt"
    path.write_text("The king and the queen went home.\nThe bird sang a song.\n" * 60)
    config = dataclasses.replace(
        app.OWN_FILES, **TINY | {"generated_size": 1.0}, data=str(path), units_of_text="subwords",
        vocabulary_size=40,
    )  # fmt: skip
    data = app.load(config, ("valid",))
    assert isinstance(data.assets["subwords"], bytes)
    trained = Trained(config, data.assets, app.build(config, data.assets))
    figures = app.score(trained, data["valid"])
    assert figures["word_perplexity"] > figures["perplexity"] > 1
    [result] = app.predict(trained, ["The king"])
    assert not set(result["continuation"]) & {"\u2581", "<"}


def test_data_may_be_a_file_or_a_folder(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("text")
    for data in (path, tmp_path):
        config = configs.parse(app, [f"--data={data}", "--units=8"])
        assert config == dataclasses.replace(app.OWN_FILES, data=str(data), units=8)
    with pytest.raises(UsageError, match="neither a dataset"):
        configs.parse(app, [f"--data={tmp_path / 'missing.txt'}"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "Foo"}, "cell must be one of"),
        ({"sequence_length": 7}, "sequence_length must be at least 8"),
        ({"epoch_tokens": 15}, "epoch_tokens must be 0 or at least batch_size, 16"),
        ({"average": 1.0}, r"average must be in \[0, 1\)"),
        ({"temperature": -1.0}, "temperature must be in"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"beam_width": 0}, "beam_width must be at least 1"),
        ({"cell": "MinGRU", "recurrent_dropout": 0.1}, "cell=MinGRU has no recurrent_dropout"),
        ({"vocabulary_size": 2}, "vocabulary_size must be at least 3"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        app.Config(**options)
