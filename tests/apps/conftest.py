"""Fixtures of the tests of all apps."""

import contextlib
import importlib
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.apps import toy
from unroll.apps.core import cli, parity


class LongLivedProcess:
    """A clean process that runs many exports. It starts with the first, and again if it ends."""

    def __init__(self):
        self.starts = 0
        self._process: parity.Process | None = None

    def run(self, folder: Path, requests: list) -> list[dict]:
        """Like `parity.run`."""
        if self._process and self._process._process.poll() is not None:
            self.close()
        if not self._process:
            self._process = parity.Process().__enter__()
            self.starts += 1
        return self._process.run(folder, requests)

    def kill(self) -> None:
        """Ends the process, as a crash would."""
        self._process._process.kill()
        self._process._process.wait()

    def close(self) -> None:
        """Ends the process, if it runs."""
        if self._process:
            self._process.__exit__()
            self._process = None


@pytest.fixture(scope="session")
def parity_process() -> Iterator[LongLivedProcess]:
    """Exports are checked in one long-lived clean process, from here to the end of the session.

    `tests/test_packaging.py` has an export with a process of its own, as a user has it.
    """
    process = LongLivedProcess()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "run", process.run)
        yield process
    process.close()


@pytest.fixture(autouse=True)
def restored_manual_dir() -> Iterator[None]:
    """`--manual-dir` sets an environment variable of its process."""
    before = os.environ.get("UNROLL_MANUAL_DIR")
    yield
    if before is None:
        os.environ.pop("UNROLL_MANUAL_DIR", None)
    else:
        os.environ["UNROLL_MANUAL_DIR"] = before


@pytest.fixture
def run_example(capsys) -> Callable[..., list[str]]:
    """Runs a script of an app's folder `examples` in this process; returns its lines of output.

    `test_contract.py` checks that these scripts import nothing of this project.
    """

    def run(app: str, script: str, *arguments) -> list[str]:
        capsys.readouterr()
        module = importlib.import_module(f"unroll.apps.{app}.examples.{script}")
        module.main(*map(str, arguments))
        return capsys.readouterr().out.splitlines()

    return run


@pytest.fixture(scope="module")
def toy_among_the_apps() -> Iterator[None]:
    """Lists `toy` among the apps of the command line."""
    apps = {**cli.describe(), "toy": toy.__doc__.splitlines()[0]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "describe", lambda: apps)
        patch.setitem(sys.modules, "unroll.apps.toy.app", toy)
        patch.setenv("COLUMNS", "80")
        yield


@pytest.fixture(scope="module")
def trained(toy_among_the_apps, tmp_path_factory) -> SimpleNamespace:
    """The working directory, the exit code and the output of a training with the command line."""
    folder, output = tmp_path_factory.mktemp("trained"), io.StringIO()
    options = ["--epochs=1", "--units=3", "--data=long_digits"]
    with contextlib.chdir(folder), contextlib.redirect_stdout(output):
        code = cli.main(["toy", "train", *options])
    return SimpleNamespace(code=code, folder=folder, output=output.getvalue().splitlines())


@pytest.fixture
def run(trained, tmp_path, monkeypatch) -> str:
    """The folder of a trained run, relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained.folder / trained.output[-1], "a run")
    return "a run"


@pytest.fixture
def call_here(toy_among_the_apps, capsys) -> Callable[..., tuple]:
    """Runs a command; returns its exit code and the lines of both outputs."""

    def call(*arguments: str):
        code = cli.main(list(arguments))
        printed = capsys.readouterr()
        return code, printed.out.split("\n")[:-1], printed.err.split("\n")[:-1]

    return call


@pytest.fixture
def call(call_here, tmp_path, monkeypatch) -> Callable[..., tuple]:
    """Runs a command in an empty folder; returns its exit code and the lines of both outputs."""
    monkeypatch.chdir(tmp_path)
    return call_here
