"""A trained run: its model, its figures, its report."""

import dataclasses
import json
import shutil

import keras
import matplotlib.figure
import numpy as np
import pytest

from tests.apps import toy
from unroll.apps.core import training
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import evaluate, load_split, load_trained, report, save_weights
from unroll.apps.core.protocol import Report
from unroll.apps.core.runs import Run

CONFIG = dataclasses.replace(toy.PRESETS["digits"], epochs=1, units=4)


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("run"))
    training.train(toy, CONFIG, run)
    return run


@pytest.fixture
def run(trained_run, tmp_path) -> Run:
    """A copy that a test may change."""
    return Run(shutil.copytree(trained_run.path, tmp_path / "run"))


def test_each_example_of_a_split_counts_once(run):
    model = load_trained(toy, run).model
    figures, expected = {}, {}
    for split in ("test", "train", "valid"):
        figures[split] = evaluate(toy, run, split)
        digits, labels = toy.generate("digits", split)
        # One padded batch of all examples, without the pipeline.
        right = np.argmax(model.predict_on_batch({"digits": digits}), -1) == labels
        expected[split] = {
            "data": "digits",
            "split": split,
            "examples": toy.SIZES[split],
            "accuracy": pytest.approx(np.mean(right), abs=1e-9),
            "errors": np.sum(~right),
        }
    assert figures == expected
    assert json.loads(run.metrics.read_text()) == figures


@pytest.mark.parametrize("label", [0, 1])
def test_the_weights_are_those_of_the_file(run, label):
    model = load_trained(toy, run).model
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    model.weights[-1].assign(np.eye(2)[label])  # the same label for every input
    save_weights(model, run)
    expected = np.mean(toy.generate("digits", "test")[1] == label)
    assert evaluate(toy, run)["accuracy"] == pytest.approx(expected, abs=1e-9)


def test_a_trained_model_comes_with_its_configuration_and_assets(run):
    trained = load_trained(toy, run)
    assert trained.config == CONFIG
    assert trained.assets == {
        "digits": ["<pad>", *"123456789"],
        "labels": ["falling", "rising"],
    }
    assert trained.model.get_layer(index=-1).units == 2


def test_figures_are_shown_before_they_are_written(run, monkeypatch):
    monkeypatch.setattr(toy, "score", lambda trained, dataset: {"examples": 3, "errors": 1})
    shown = []

    def full(split, figures):
        raise OSError(28, "No space left on device", "metrics.json")

    monkeypatch.setattr(run, "write_metrics", full)
    with pytest.raises(OSError, match="No space left"):
        evaluate(toy, run, show=shown.append)
    assert shown == [{"data": "digits", "split": "test", "examples": 3, "errors": 1}]


def test_search_options_are_recorded_with_the_figures(run):
    run.search = {"least": 0.5}
    assert load_trained(toy, run).config.least == 0.5
    assert "search" not in evaluate(toy, run, "valid")
    assert run.read_metrics()["valid"]["search"] == {"least": 0.5}


def test_the_precision_of_a_run_does_not_leak(run):
    run.write_config(toy, dataclasses.replace(CONFIG, precision="mixed_bfloat16"))
    model = load_trained(toy, run).model
    assert {layer.compute_dtype for layer in model.layers} >= {"bfloat16"}
    assert keras.config.dtype_policy().name == "float32"


@pytest.fixture
def loaded(monkeypatch) -> list:
    """The splits of each call of `load`, and whether it was given assets."""
    calls = []
    load = toy.load

    def record(config, splits, assets=None, training=False):
        assert not training
        calls.append((splits, assets is not None))
        return load(config, splits, assets)

    monkeypatch.setattr(toy, "load", record)
    return calls


def test_only_the_evaluated_split_is_loaded(run, loaded):
    evaluate(toy, run, "valid")
    trained, dataset = load_split(toy, [run], "test")
    assert loaded == [(("valid",), True), (("test",), True)]
    assert toy.score(trained, dataset)["examples"] == toy.SIZES["test"]


def test_a_split_that_does_not_exist_is_refused(run):
    for function in (evaluate, report):
        with pytest.raises(UsageError, match=r"^--split=dev: digits has train, valid, test\.$"):
            function(toy, run, "dev")
    assert not run.metrics.exists()
    assert not (run.path / "report").exists()


def test_a_report_is_a_text_and_figures_in_the_folder_of_the_run(run, monkeypatch, loaded):
    def with_figure(trained, dataset):
        figure = matplotlib.figure.Figure(figsize=(1, 1))
        figure.subplots().plot([1, 2])
        errors = toy.score(trained, dataset)["errors"]
        return Report(f"{errors} errors\n\n", {"confusion": figure})

    monkeypatch.setattr(toy, "report", with_figure)
    before = {path.name for path in run.path.iterdir()}
    text, files = report(toy, run, "valid")
    folder = run.path / "report"
    assert loaded == [(("valid",), True)]
    assert files == [folder / "valid.md", folder / "valid-confusion.png"]
    assert sorted(folder.iterdir()) == sorted(files)
    assert {path.name for path in run.path.iterdir()} == before | {"report"}
    assert text.strip() == f"{evaluate(toy, run, 'valid')['errors']} errors"
    assert files[0].read_text() == text.rstrip() + "\n"
    assert files[1].read_bytes().startswith(b"\x89PNG")
    contents = [file.read_bytes() for file in files]
    again, _ = report(toy, run, "valid")
    assert (again, [file.read_bytes() for file in files]) == (text, contents)
    report(toy, run, "test")
    assert {path.name for path in folder.iterdir()} == {
        f"{split}{rest}" for split in ("valid", "test") for rest in (".md", "-confusion.png")
    }


def test_weights_that_do_not_fit_or_are_broken_are_one_line(run):
    run.write_config(toy, dataclasses.replace(CONFIG, units=5))
    with pytest.raises(UsageError, match=r"^.*best\.weights\.h5 cannot be loaded: [^\n]+$"):
        load_trained(toy, run)
    run.write_config(toy, CONFIG)
    run.best.write_bytes(run.best.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"^.*best\.weights\.h5 is broken or was changed: [^\n]+$"):
        load_trained(toy, run)
    run.write(run.best.name, b"not weights")
    with pytest.raises(UsageError, match=r"^.*best\.weights\.h5 cannot be loaded: [^\n]+$"):
        load_trained(toy, run)


def test_a_defect_of_an_app_is_not_incorrect_use(run, monkeypatch):
    def build(config, assets):
        raise ValueError("a defect")

    monkeypatch.setattr(toy, "build", build)
    with pytest.raises(ValueError, match="a defect") as error:
        load_trained(toy, run)
    assert not isinstance(error.value, UsageError)
