"""The folder of a run: its name, its files, its format."""

import dataclasses
import fcntl
import json
import os
import subprocess
import threading

import numpy as np
import pytest

from tests.apps import toy
from tests.apps.children import Child
from unroll.apps.core import config as configs
from unroll.apps.core import files, locks, runs
from unroll.apps.core.errors import UsageError
from unroll.apps.core.files import encode_json, write_json
from unroll.apps.core.runs import Run

CONFIG = dataclasses.replace(toy.PRESETS["digits"], units=5, jit=True)
# Files that `evaluate --record` and `benchmarks/formats.py` change.
RECORDED = ("results.json", "results.md", "formats.json", "README.md")


@pytest.fixture(autouse=True)
def empty_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_run_gets_the_next_number():
    paths = [str(Run.create(toy, data).path) for data in ("digits", "digits", "some/folder/", ".")]
    here = runs.Path.cwd().name
    assert paths == [f"runs/toy/{n}" for n in ("digits-1", "digits-2", "folder-1", f"{here}-1")]


def test_concurrent_runs_get_different_folders():
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


def test_a_named_folder_must_be_empty(tmp_path):
    assert Run.create(toy, "digits", "new/one").path.is_dir()
    assert Run.create(toy, "digits", "new/one").path.is_dir()  # it is still empty
    # Of a process that was killed at once, also while it wrote its first file.
    half_written = f".{'0' * 8}-1-{'0' * 8}.config.json"
    (tmp_path / "new/one/checksums").mkdir()
    for name in (locks.NAME, half_written, f"checksums/{half_written}", "checksums/config.json"):
        (tmp_path / "new/one" / name).touch()
        os.utime(tmp_path / "new/one" / name, (0, 0))
        assert Run.create(toy, "digits", "new/one").path.is_dir()
    with pytest.raises(UsageError, match=r"^new/one has no training to resume: start one without"):
        Run.open(toy, "new/one", trained=False)
    (tmp_path / "new/one/file").touch()
    for taken in ("new/one", "new/one/file"):
        with pytest.raises(UsageError, match=f"^--run={taken} exists"):
            Run.create(toy, "digits", taken)
    with pytest.raises(UsageError, match=r"^new/one/file/deeper cannot be created: [^\n]+$"):
        Run.create(toy, "digits", "new/one/file/deeper")


def test_open_needs_a_configuration_and_weights():
    with pytest.raises(UsageError, match=r"^nowhere is not a run folder"):
        Run.open(toy, "nowhere")
    run = Run.create(toy, "digits")
    with pytest.raises(UsageError, match=r"digits-1 is not a run folder: it has no config\.json"):
        Run.open(toy, run.path)
    run.write_config(toy, CONFIG)
    with pytest.raises(UsageError, match="digits-1 has no weights"):
        Run.open(toy, run.path)
    assert Run.open(toy, run.path, trained=False).config(toy) == CONFIG
    run.write(run.best.name, b"weights")
    assert Run.open(toy, run.path).config(toy) == CONFIG


def test_a_run_of_another_app_is_refused():
    run = Run.create(toy, "digits")
    write_json(run.path / "config.json", {"app": "vqa", "format": runs.FORMAT})
    with pytest.raises(UsageError, match=r"is a run of vqa, not of toy\.$"):
        Run.open(toy, run.path)


@pytest.mark.parametrize(
    ("about", "version"),
    [({}, 1), ({"format": runs.FORMAT - 1}, runs.FORMAT - 1), ({"format": 99}, 99)],
)
def test_a_run_of_another_format_is_refused(about, version):
    run = Run.create(toy, "digits")
    fields = {"app": "toy", **about, **configs.to_json(CONFIG)}
    write_json(run.path / "config.json", fields)
    message = f"digits-1 is a run of format {version}, .* reads format {runs.FORMAT}: train it"
    for trained in (True, False):
        with pytest.raises(UsageError, match=message):
            Run.open(toy, run.path, trained=trained)


@pytest.mark.parametrize("there", ["", "runs", "runs/toy/digits-1", "mine", "mine/one"])
def test_a_run_that_is_removed_leaves_the_folders_that_were_there(there):
    if there:
        runs.Path(there).mkdir(parents=True)
    before = sorted(runs.Path().rglob("*"))
    for path in (None, "mine/one"):
        run = Run.create(toy, "digits", path)
        run.write_config(toy, CONFIG)
        (run.path / "link").symlink_to(runs.Path().resolve())
        run.remove()
    assert sorted(runs.Path().rglob("*")) == before


def test_the_folder_of_another_run_stays():
    first, second = (Run.create(toy, "digits") for _ in range(2))
    first.remove()
    assert second.path.is_dir()
    assert not first.path.exists()


def test_a_run_of_an_older_version_lacks_the_options_that_are_new():
    run = Run.create(toy, "digits")
    run.write_config(toy, CONFIG)
    fields = json.loads((run.path / "config.json").read_text())
    assert fields.pop("units") == 5
    run.write("config.json", encode_json(fields))
    assert run.config(toy) == dataclasses.replace(CONFIG, units=12)


def test_a_configuration_from_which_a_field_was_removed_is_refused():
    run = Run.create(toy, "digits")
    run.write_config(toy, CONFIG)
    file = run.path / "config.json"
    fields = json.loads(file.read_text())
    del fields["units"]
    write_json(file, fields)
    with pytest.raises(UsageError, match=r"config\.json is broken or was changed"):
        run.config(toy)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'"text"'])
def test_a_broken_configuration_is_one_line(content):
    run = Run.create(toy, "digits")
    (run.path / "config.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"^[^\n]*config\.json [^\n]+$"):
        Run.open(toy, run.path)


def test_search_options_override_those_of_the_run():
    run = Run.create(toy, "digits")
    run.write_config(toy, CONFIG)
    run.best.touch()
    assert Run.open(toy, run.path, search={"least": 0.5}).config(toy).least == 0.5
    assert Run.open(toy, run.path).config(toy).least == 0
    with pytest.raises(UsageError, match=r"least must be in \[0, 1\], got 2"):
        Run.open(toy, run.path, search={"least": 2.0})


def test_assets_of_all_types_round_trip():
    run = Run.create(toy, "digits")
    mean = np.array([[1.5, -2]], "float32")
    run.write_assets({"labels": ["a", "é"], "scaler": {"k": [1]}, "model": b"\x00\n", "mean": mean})
    names = {path.name for path in (run.path / "assets").iterdir()}
    assert names == {"labels.txt", "scaler.json", "model.bin", "mean.npy"}
    assets = run.assets()
    read = assets.pop("mean")
    assert assets == {"labels": ["a", "é"], "scaler": {"k": [1]}, "model": b"\x00\n"}
    assert read.dtype == mean.dtype
    np.testing.assert_array_equal(read, mean)


@pytest.mark.parametrize("content", [b"", b"a\n", b"\xff\n", b"a\nb\nc\n", None])
def test_a_broken_asset_is_named(content):
    run = Run.create(toy, "digits")
    run.write_assets({"labels": ["a", "b"], "digits": ["1"]})
    file = run.path / "assets/labels.txt"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"^runs/toy/digits-1/assets/labels.txt is [^\n]+$"):
        run.assets()


def test_an_asset_without_a_checksum_is_refused():
    run = Run.create(toy, "digits")
    run.write_assets({"labels": ["a"]})
    (run.path / "assets/more.txt").touch()
    with pytest.raises(UsageError, match=r"assets/more\.txt has no checksum"):
        run.assets()


@pytest.mark.parametrize("break_it", ["cut", "change", "delete"])
def test_every_file_of_a_run_is_verified(break_it):
    run = Run.create(toy, "digits")
    run.write_config(toy, CONFIG)
    run.write_assets({"labels": ["a"], "scaler": {"k": [1]}, "model": b"\x00", "mean": np.ones(2)})
    run.write_environment()
    for path in (run.best, run.state, run.history):
        run.write(path.name, b"content")
    run.write_metrics("test", {"accuracy": 0.5})
    run.verify()
    names = [path for path in run.path.rglob("*") if path.is_file()]
    written = [path for path in names if "checksums" not in path.parts]
    assert len(written) == 10
    for path in written:
        content = path.read_bytes()
        if break_it == "delete":
            path.unlink()
        else:
            changed = bytes([content[0] ^ 1]) + content[1:]
            path.write_bytes(content[:-1] if break_it == "cut" else changed)
        if path == run.metrics:  # training does not read it
            run.verify()
            if break_it != "delete":
                with pytest.raises(UsageError, match=r"/metrics\.json is broken"):
                    run.read_metrics()
        else:
            with pytest.raises(UsageError, match=f"{path.name} is (broken|missing)"):
                run.verify()
        path.write_bytes(content)
    run.verify()


def test_a_run_without_assets_was_not_trained():
    run = Run.create(toy, "digits")
    with pytest.raises(UsageError, match="has no assets: it was not trained"):
        run.assets()


def test_files_of_a_killed_process_are_removed():
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    run = Run.create(toy, "digits")
    run.write_assets({"tokens": ["a"]})
    live = run.path / f".{files.unique_name()}.state.npz"
    live.touch()
    complete = sorted(run.path.rglob("*"))
    left = files.unique_name().replace(str(os.getpid()), str(child))
    for folder in (run.path, run.path / "assets", run.path / "checksums/assets"):
        (folder / f".{left}.tokens.txt").touch()
    assert run.assets() == {"tokens": ["a"]}
    run.remove_half_written()
    assert sorted(run.path.rglob("*")) == complete


def test_metrics_are_empty_before_the_first_evaluation():
    run = Run.create(toy, "digits")
    assert run.read_metrics() == {}
    run.write_metrics("test", {"accuracy": 0.5})
    run.search = {"least": 0.5}
    run.write_metrics("valid", {"accuracy": 0.25})
    assert run.read_metrics() == {
        "test": {"accuracy": 0.5},
        "valid": {"accuracy": 0.25, "search": {"least": 0.5}},
    }


def test_splits_that_are_evaluated_at_once_keep_their_figures(monkeypatch):
    """A thread that writes between the reading and the writing of another one waits for it."""
    run = Run.create(toy, "digits")
    other_is_stopped = threading.Event()  # it waits, or it has ended
    read, wait = Run.read_metrics, locks._guard.wait

    def write_other():
        Run(run.path).write_metrics("valid", {"accuracy": 0.25})
        other_is_stopped.set()

    def read_and_let_the_other_write(self):
        metrics = read(self)
        if self is run:
            other.start()
            other_is_stopped.wait()
        return metrics

    def say_and_wait():
        other_is_stopped.set()
        wait()

    other = threading.Thread(target=write_other)
    monkeypatch.setattr(Run, "read_metrics", read_and_let_the_other_write)
    monkeypatch.setattr(locks._guard, "wait", say_and_wait)
    run.write_metrics("test", {"accuracy": 0.5})
    other.join()
    assert read(run) == {"test": {"accuracy": 0.5}, "valid": {"accuracy": 0.25}}
    assert not list(run.path.glob(".*"))


def write_between(connection, path):
    """Writes the figures of a split, and stops between reading and writing."""
    read = Run.read_metrics

    def read_and_stop(self):
        metrics = read(self)
        connection.send("read")
        connection.recv()
        return metrics

    Run.read_metrics = read_and_stop
    Run(path).write_metrics("valid", {"accuracy": 0.25})


def test_a_process_waits_for_another_one_that_writes_figures(monkeypatch):
    run, lockf = Run.create(toy, "digits"), fcntl.lockf
    with Child(write_between, run.path.resolve()) as child:
        assert child.receive() == "read"

        def let_the_child_write(file, operation):
            child.connection.send("write")
            lockf(file, operation)

        monkeypatch.setattr(fcntl, "lockf", let_the_child_write)
        run.write_metrics("test", {"accuracy": 0.5})
        assert child.wait() == 0
    assert run.read_metrics() == {"test": {"accuracy": 0.5}, "valid": {"accuracy": 0.25}}


def test_the_environment_names_versions_hardware_and_commit():
    run = Run.create(toy, "digits")
    run.write_environment(seconds=3.5)
    about = run.environment()
    assert about["seconds"] == 3.5
    assert set(about["packages"]) >= {"tensorflow", "keras"}
    assert about["hardware"].split()[0].isdigit()
    assert about["commit"] is None or len(about["commit"].rstrip("+")) == 40


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with the engine and results, in which the engine runs."""
    folder = tmp_path / "checkout"
    for name in ("apps/core/runs.py", *(f"apps/toy/{name}" for name in RECORDED)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("old\n")
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    monkeypatch.setattr(runs, "__file__", str(folder / "apps/core/runs.py"))
    return folder


def test_the_commit_marks_local_changes_to_the_code(checkout):
    commit = runs.git_commit()
    assert len(commit) == 40
    assert runs.has_commit(commit)
    assert not runs.has_commit("0" * 40)
    (checkout / "untracked.txt").touch()
    # Recorded results must not prevent the next ones.
    for name in RECORDED:
        (checkout / "apps/toy" / name).write_text("new\n")
    assert runs.git_commit() == commit
    (checkout / "apps/core/runs.py").write_text("new\n")
    assert runs.git_commit() == f"{commit}+"


def test_an_installed_copy_has_no_commit(checkout, monkeypatch, tmp_path):
    installed = checkout / "site-packages/unroll/apps/core/runs.py"  # inside a checkout, untracked
    installed.parent.mkdir(parents=True)
    for file in (installed, tmp_path / "runs.py"):
        file.touch()
        monkeypatch.setattr(runs, "__file__", str(file))
        assert runs.git_commit() is None
    assert not runs.has_commit("0" * 40)
