"""`unroll.load`, and the model card, of a trained run and of its export."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

import unroll
from tests.apps import toy
from tests.apps.written_runs import write_run
from unroll.apps.core import card, cli, export, results
from unroll.apps.core.protocol import Trained
from unroll.apps.core.runs import Run
from unroll.pipelines.errors import DataError

TEXTS = ["1 5 9", "8 2 2 4 3", "2 3"]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory, toy_among_the_apps) -> Run:
    """A run of a model that is not trained."""
    config = toy.Config(data="long_digits", units=3)
    assets = toy.load(config, ()).assets
    model = Trained(config, assets, toy.build(config, assets))
    made = write_run(tmp_path_factory.mktemp("untrained") / "run", toy, model)
    made.write_environment(seconds=90.0)
    return made


@pytest.fixture
def run(untrained, tmp_path, monkeypatch) -> str:
    """A copy of the run, relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(untrained.path, "a run")
    return "a run"


@pytest.fixture(scope="module")
def exported(untrained, tmp_path_factory) -> Path:
    """The export of the run, as a SavedModel. Other tests check that it agrees with the model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "check", lambda *arguments: ({}, {}))
        return export.export(toy, untrained, tmp_path_factory.mktemp("to"), ("saved_model",))


def test_a_run_is_a_function_that_predicts(run, capsys):
    model = unroll.load(run)
    assert cli.main(["toy", "predict", run, *TEXTS, "--json"]) == 0
    assert model(TEXTS) == [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert model([]) == []
    assert (model.app, model.config) == ("toy", toy.Config(data="long_digits", units=3))
    assert repr(model) == "<unroll model: toy, trained on long_digits>"


def test_an_export_is_a_function_with_the_outputs_of_its_signature(run, exported):
    expected, model = unroll.load(run)(TEXTS), unroll.load(exported)
    found = model(TEXTS)
    assert [each["label"] for each in found] == [each["label"] for each in expected]
    np.testing.assert_allclose(
        [each["probabilities"] for each in found],
        [list(each["probabilities"].values()) for each in expected],
        atol=1e-5,
    )
    many = model(TEXTS * 20)  # several batches
    assert [each["label"] for each in many] == [each["label"] for each in expected] * 20
    assert (model.app, model.config) == ("toy", toy.Config(data="long_digits", units=3))


def without(name: str, folder: Path) -> None:
    """Removes a file of a folder."""
    (folder / name).unlink()


def edit(name: str, change, folder: Path) -> None:
    """Changes the content of a JSON file."""
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("name", "breaks", "message"),
    [
        ("missing", None, "missing is not a folder."),
        (".", None, ". is neither a run, which has a config.json, nor an export, which has a"),
        ("toy", None, "It contains some: load toy/1."),
        ("toy/1", lambda f: without("saved_model.pb", f), "toy/1 has no SavedModel: export it"),
        ("toy/1", lambda f: without("labels.txt", f), "toy/1 has no asset labels."),
        ("toy/1", lambda f: (f / "variables").rename(f / "x"), "toy/1 cannot be loaded: "),
        (
            "toy/1",
            lambda f: edit("manifest.json", lambda m: m.pop("config"), f),
            "toy/1/manifest.json has no config: export the model again.",
        ),
        (
            "toy/1",
            lambda f: edit("manifest.json", lambda m: m.update(app="other"), f),
            "toy/1 is of the app 'other', which this version of Unroll lacks.",
        ),
        ("toy/1", lambda f: (f / "manifest.json").write_text("{"), "toy/1 cannot be read: "),
    ],
)
def test_a_wrong_folder_is_one_clear_error(
    name, breaks, message, exported, toy_among_the_apps, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(exported.parent, "toy")
    if breaks:
        breaks(Path(name))
    with pytest.raises(ValueError) as caught:
        unroll.load(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_single_text_is_not_a_list(run):
    with pytest.raises(ValueError, match="a model needs a list of inputs, got str"):
        unroll.load(run)("1 5 9")


@pytest.fixture
def evaluated(run, monkeypatch) -> Run:
    """The run with the figures of two splits, of which the app's results have one."""
    rows = [{"data": "long_digits", "split": "valid", "config": {"generated_size": 1.0}}]
    rows[0]["baseline"] = {"what": "recorded", "accuracy": 0.25}
    monkeypatch.setattr(results, "read", lambda folder: rows)
    for split in ("valid", "test"):
        Run(run).write_metrics(split, {"examples": 1000, "accuracy": 0.5, "errors": 7})
    return Run(run)


def test_a_card_has_what_the_run_knows(evaluated, call_here):
    code, out, err = call_here("toy", "card", str(evaluated.path))
    assert (code, out, err) == (0, [f"{evaluated.path}/README.md"], [])
    text = (evaluated.path / "README.md").read_text()
    read = ModelCard(text)
    assert read.data.pipeline_tag == "text-classification"
    assert read.data.datasets == ["long_digits"]
    assert [(e.metric_type, e.metric_value, e.dataset_split) for e in read.data.eval_results] == [
        ("accuracy", 0.5, "valid"), ("errors", 7, "valid"),
        ("accuracy", 0.5, "test"), ("errors", 7, "test"),
    ]  # fmt: skip
    assert "| valid split, 1,000 examples | 0.5000 | 7 |" in text
    assert "| baseline: recorded | 0.2500 |  |" in text
    assert "| baseline: most frequent label | 0." in text  # computed, and kept for exports
    assert "unroll toy train --data=long_digits --epochs=10 --learning-rate=0.001 --units=3" in text
    assert "unknown: check it before you publish the model" in text
    assert card.for_export(toy, evaluated).decode() == text


def test_a_baseline_that_cannot_be_computed_is_named(evaluated, call_here, monkeypatch):
    def fail(*arguments):
        raise DataError("the data are gone.")

    monkeypatch.setattr(results, "baseline", fail)
    code, _, err = call_here("toy", "card", str(evaluated.path))
    assert code == 0
    assert err == ["unroll: there is no baseline of the test split: the data are gone."]
    assert "| baseline: not measured |  |  |" in (evaluated.path / "README.md").read_text()


def test_a_card_that_the_user_has_written_is_kept_and_exported(run, call_here):
    path = Path(run) / "README.md"
    assert call_here("toy", "card", run)[0] == 0
    assert "Not evaluated: `unroll toy evaluate folder` measures them." in path.read_text()
    assert call_here("toy", "card", run)[0] == 0  # its own card is replaced
    path.write_text("mine")
    code, _, [message] = call_here("toy", "card", run)
    assert (code, path.read_text()) == (2, "mine")
    assert message == f"unroll: {path} is not a card of this command: move it first."
    assert card.for_export(toy, Run(run)) == b"mine"


def test_an_export_has_the_card(exported):
    text = (exported / "README.md").read_text()
    assert ModelCard(text).data.library_name == "keras"
    assert "## Training" in text


def test_the_limits_are_those_of_the_app_s_readme(run, monkeypatch, tmp_path):
    (tmp_path / "README.md").write_text("# Toy\n\n## Limits\n\n- Digits alone.\n\n## Other\n\nx\n")
    monkeypatch.setattr(toy, "__file__", str(tmp_path / "app.py"))
    assert "\n## Limits\n\n- Digits alone.\n\n## Training\n" in card.text(toy, Run(run))
