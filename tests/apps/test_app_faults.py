"""Faults of the machine, in all apps: full and read-only disks, and clocks that go back."""

import contextlib
import io
import itertools
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.apps.children import Child, must_succeed, run_command
from tests.apps.resuming import differences
from tests.apps.small_trainings import options_of
from tests.apps.test_contract import NAMES
from tests.apps.test_faults import after_first_epoch, files
from unroll.apps.core import cli

pytestmark = pytest.mark.exhaustive


def train_and_copy(connection, copy: Path, *arguments: str) -> int:
    """Trains, and copies the run after its first epoch."""
    run = arguments[-1].removeprefix("--run=")
    after_first_epoch(lambda: shutil.copytree(run, copy, ignore=shutil.ignore_patterns(".lock")))
    return cli.main(list(arguments))


@pytest.fixture(scope="module", params=NAMES)
def trained(request, tmp_path_factory) -> SimpleNamespace:
    """The run of an app, `whole`, and its copy after the first of two epochs, `half`."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    whole, half = folder / "whole", folder / "half"
    arguments = (name, "train", *options_of(name), "--epochs=2", f"--run={whole}")
    with Child(train_and_copy, half, *arguments) as child:
        must_succeed(child, arguments)
    run_command(name, "evaluate", str(whole))
    return SimpleNamespace(name=name, whole=whole, half=half)


def commands(connection, *lines: tuple[str, ...]) -> None:
    """Sends the exit code and the lines of both outputs of each command."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # as the command line does, too
    for line in lines:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(list(line))
        connection.send((code, out.getvalue().splitlines(), err.getvalue().splitlines()))


def call(function, *lines: tuple[str, ...]) -> list[tuple]:
    """The exit codes and the outputs of commands, which write nothing else."""
    with Child(function, *lines) as child:
        found = [child.receive() for _ in lines]
        assert child.wait() == 0
        assert child.output() == ""
    return found


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """An empty file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(folder: Path, free: int) -> Path:
    """Fills a file system with a file, up to some bytes."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(path, path.stat().st_size - free)
    return path


@contextlib.contextmanager
def full(disk: Path) -> Iterator[str]:
    """Fills a file system, up to one block; the error of a write."""
    filler = fill(disk, free=4096)
    yield "No space left on device"
    filler.unlink()


@contextlib.contextmanager
def read_only(disk: Path) -> Iterator[str]:
    """Makes a file system read-only; the error of a write."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    yield "Read-only file system"
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


@pytest.mark.parametrize("fault", [full, read_only])
def test_a_disk_that_cannot_be_written_to_is_one_line_and_loses_nothing(trained, disk, fault):
    name, half, whole = trained.name, disk / "half", disk / "whole"
    shutil.copytree(trained.half, half)
    shutil.copytree(trained.whole, whole)
    train = (name, "train", *options_of(name), "--epochs=1", f"--run={disk / 'new'}")
    lines = [
        train,
        (name, "train", "--resume", f"--run={half}"),
        (name, "evaluate", str(whole)),
        (name, "export", str(whole), f"--to={disk / 'exports'}"),
    ]
    before = files(disk)
    with fault(disk) as reason:
        for line, (code, out, err) in zip(lines, call(commands, *lines), strict=True):
            # The lines before are about the data.
            assert code == 2, (line, out, err)
            assert all(each.startswith("unroll: ") for each in err), err
            assert str(disk) in err[-1]
            assert reason in err[-1]
            assert ("examples" in "".join(out)) == ("evaluate" in line)
    after = files(disk)
    assert {path: text for path, text in after.items() if "/logs/" not in path} == {
        path: text for path, text in before.items() if "/logs/" not in path
    }
    run_command(name, "train", "--resume", f"--run={half}")
    run_command(name, "evaluate", str(half))
    assert differences(whole, half) == []


def commands_while_the_clock_goes_back(connection, *lines: tuple[str, ...]) -> None:
    now, days = time.time(), itertools.count()
    time.time = lambda: now - 86400 * next(days)
    commands(connection, *lines)


def test_a_clock_that_goes_back_changes_nothing(trained, tmp_path):
    run = str(shutil.copytree(trained.half, tmp_path / "half"))
    future = time.time() + 365 * 86400
    for path in (tmp_path / "half").rglob("*"):
        os.utime(path, (future, future))
    lines = [
        (trained.name, "train", "--resume", f"--run={run}"),
        (trained.name, "evaluate", run),
        (trained.name, "export", run, f"--to={tmp_path / 'exports'}", "--formats=saved_model"),
    ]
    for code, out, err in call(commands_while_the_clock_goes_back, *lines):
        assert code == 0, (out, err)
        assert all(each.startswith("unroll: ") for each in err), err
    assert differences(trained.whole, tmp_path / "half") == []
    assert [path.name for path in (tmp_path / "exports").glob("*/*")] == ["1"]
