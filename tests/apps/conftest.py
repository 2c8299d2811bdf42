"""Fixtures of the tests of all apps."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unroll.apps.core import parity

# Starts a process for each call.
cold_run = parity.run


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

    `tests/apps/test_export.py` has the test of a cold start.
    """
    process = LongLivedProcess()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "run", process.run)
        yield process
    process.close()


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
