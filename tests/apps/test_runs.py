"""The folder of a run: names, files, what is left after a failure."""

import dataclasses
import json
import threading

import pytest

from tests.apps import toy
from unroll.apps.core import runs
from unroll.apps.core.errors import UsageError
from unroll.apps.core.runs import Run, atomic, write_json

CONFIG = dataclasses.replace(toy.PRESETS["digits"], units=5, jit=True)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_names_take_the_next_number():
    paths = [str(Run.create(toy, data).path) for data in ("digits", "digits", "some/folder/", ".")]
    here = runs.Path.cwd().name
    assert paths == [f"runs/toy/{n}" for n in ("digits-1", "digits-2", "folder-1", f"{here}-1")]


def test_many_at_once_get_folders_of_their_own():
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(Run.create(toy, "digits").path))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 16


def test_a_folder_of_ones_own(tmp_path):
    assert Run.create(toy, "digits", "new/one").path.is_dir()
    assert Run.create(toy, "digits", "new/one").path.is_dir()  # empty still
    (tmp_path / "new/one/file").touch()
    for taken in ("new/one", "new/one/file"):
        with pytest.raises(UsageError, match=f"^--run={taken} exists"):
            Run.create(toy, "digits", taken)
    with pytest.raises(UsageError, match=r"^new/one/file/deeper cannot be made: [^\n]+$"):
        Run.create(toy, "digits", "new/one/file/deeper")


def test_opening():
    with pytest.raises(UsageError, match="nowhere is no run folder"):
        Run.open(toy, "nowhere")
    run = Run.create(toy, "digits")
    with pytest.raises(UsageError, match=r"digits-1 is no run folder: it has no config\.json"):
        Run.open(toy, run.path)
    run.write_config(toy, CONFIG)
    with pytest.raises(UsageError, match="digits-1 has no weights"):
        Run.open(toy, run.path)
    assert Run.open(toy, run.path, trained=False).config(toy) == CONFIG
    run.best.touch()
    assert Run.open(toy, run.path).config(toy) == CONFIG


def test_a_run_of_another_app():
    run = Run.create(toy, "digits")
    write_json(run.path / "config.json", {"app": "vqa"})
    with pytest.raises(UsageError, match="is a run of vqa, not of toy"):
        Run.open(toy, run.path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'"text"'])
def test_a_broken_config(content):
    run = Run.create(toy, "digits")
    (run.path / "config.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"^[^\n]*config\.json [^\n]+$"):
        Run.open(toy, run.path)


@pytest.mark.parametrize(
    "lines",
    [[], [""], ["a"], ["", "a", ""], ["\r", " ", "\u2028", "\x85", "é", "日本", "\x00", "a\r"]],
)
def test_assets_come_back_as_they_were(lines):
    run = Run.create(toy, "digits")
    run.write_assets({"words": lines, "labels": ["x", "y"]})
    assert run.assets() == {"words": lines, "labels": ["x", "y"]}


def test_assets_that_are_no_lines_or_none():
    run = Run.create(toy, "digits")
    with pytest.raises(UsageError, match="has no assets"):
        run.assets()
    with pytest.raises(ValueError, match="Asset words: 'a\\\\nb' is no single line"):
        run.write_assets({"words": ["a\nb"]})
    assert not (run.path / "assets/words.txt").exists()


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    file = tmp_path / "file.json"
    write_json(file, {"old": 1})
    with pytest.raises(TypeError):
        write_json(file, {"new": object()})
    with pytest.raises(IsADirectoryError), atomic(file) as temporary:
        temporary.write_text("half") and tmp_path.read_text()
    assert json.loads(file.read_text()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_what_a_killed_process_left_is_removed():
    run = Run.create(toy, "digits")
    run.write_assets({"words": ["a"]})
    kept = sorted(run.path.rglob("*"))
    (run.path / ".123.state.npz").touch()
    (run.path / "assets/.123.words.txt").touch()
    assert run.assets() == {"words": ["a"]}
    run.remove_half_written()
    assert sorted(run.path.rglob("*")) == kept


def test_metrics():
    run = Run.create(toy, "digits")
    assert run.read_metrics() == {}
    write_json(run.metrics, {"test": {"accuracy": 0.5}})
    assert run.read_metrics() == {"test": {"accuracy": 0.5}}


def test_environment():
    run = Run.create(toy, "digits")
    run.write_environment(seconds=3.5)
    about = run.environment()
    assert about["seconds"] == 3.5
    assert set(about["packages"]) >= {"tensorflow", "keras"}
    assert about["hardware"].split()[0].isdigit()
    assert about["commit"] is None or len(about["commit"].rstrip("+")) == 40


def test_no_commit_outside_of_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "__file__", str(tmp_path / "runs.py"))
    assert runs.git_commit() is None
