"""`make results`: the runs of a row, interruptions, what it refuses."""

import json
import sys
from pathlib import Path

import pytest

from tests.apps import toy
from unroll.apps.core import reproduce
from unroll.apps.core.errors import UsageError

ROW = {"data": "digits", "variant": "parts", "split": "test"}


@pytest.fixture
def app(tmp_path, monkeypatch):
    """The toy app, with a row of two parts and two seeds, in an empty folder."""
    command = "unroll toy train --data=digits '--start=a b' --units={7,5} --seed={0,1}"
    (tmp_path / "results.json").write_text(json.dumps([{**ROW, "command": command}]))
    monkeypatch.setattr(toy, "__file__", str(tmp_path / "app.py"))
    monkeypatch.setitem(sys.modules, "unroll.apps.toy.app", toy)
    monkeypatch.setattr(reproduce, "git_commit", lambda: "a" * 40)
    monkeypatch.chdir(tmp_path)
    return toy


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, ...]]:
    """The commands that are run. `train` leaves the configuration of its run."""
    made = []

    def run(*arguments):
        made.append(arguments)
        if arguments[1] == "train":
            path = Path(arguments[-1].removeprefix("--run="))
            path.mkdir(parents=True, exist_ok=True)
            (path / "config.json").touch()

    monkeypatch.setattr(reproduce, "_unroll", run)
    return made


def test_a_row_is_repeated_with_its_options_parts_and_seeds(app):
    found = reproduce.commands(app, "digits", "parts", "")
    assert list(found) == ["7-0", "7-1", "5-0", "5-1"]
    assert found["5-1"] == ["--data=digits", "--start=a b", "--units=5", "--seed=1"]
    assert list(reproduce.commands(app, "digits", "parts", "3")) == ["7-3", "5-3"]


def test_a_new_row_has_the_preset_and_three_seeds(app):
    found = reproduce.commands(app, "long_digits", "default", "")
    assert found["2"] == ["--data=long_digits", "--seed=2"]
    assert len(found) == 3
    with pytest.raises(UsageError, match="long_digits has no row 'wide'"):
        reproduce.commands(app, "long_digits", "wide", "")


def test_all_runs_are_trained_and_recorded_and_finished_ones_are_kept(app, calls):
    reproduce.reproduce("toy", "digits", "parts", "")
    assert [call[1] for call in calls] == ["train"] * 4 + ["evaluate"]
    paths = [call[-1].removeprefix("--run=") for call in calls[:4]]
    assert paths[0] == f"runs/results/{'a' * 12}/toy/digits-parts-7-0"
    record = calls[-1]
    assert record == ("toy", "evaluate", *paths, "--record", "--variant=parts")
    calls.clear()
    reproduce.reproduce("toy", "digits", "parts", "")
    assert calls == [record]


def test_an_ensemble_is_recorded_as_one(app, calls):
    row = {**ROW, "ensemble": True, "command": "unroll toy train --data=digits --seed={0,1}"}
    Path("results.json").write_text(json.dumps([row]))
    reproduce.reproduce("toy", "digits", "parts", "")
    assert calls[-1][-3:] == ("--record", "--ensemble", "--variant=parts")


def test_an_interrupted_run_is_resumed(app, calls):
    folder = Path("runs", "results", "a" * 12, "toy", "digits-parts-7-0")
    folder.mkdir(parents=True)
    (folder / "config.json").touch()  # killed in its first epoch: it has no state
    reproduce.reproduce("toy", "digits", "parts", "")
    assert calls[0] == ("toy", "train", "--resume", f"--run={folder}")
    assert "--resume" not in calls[1]


@pytest.mark.parametrize("commit", [None, "a" * 40 + "+"])
def test_local_changes_and_installed_copies_are_refused(app, calls, monkeypatch, commit):
    monkeypatch.setattr(reproduce, "git_commit", lambda: commit)
    with pytest.raises(UsageError, match="a checkout of the repository without local changes"):
        reproduce.reproduce("toy", "digits", "parts", "")
    assert calls == []


def test_a_command_that_fails_ends_the_row_with_one_line(app, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["reproduce", "toy", "digits", "--variant=none"])
    assert reproduce.main() == 2
    assert capsys.readouterr().err == (
        "unroll: digits has no row 'none': record it once with `evaluate --record`.\n"
    )
