"""Processes that share one import of TensorFlow.

A server process imports TensorFlow and the toy app, runs no operation, and forks a child for each
function: a child starts at once, and its devices, its limits and its signals are its own.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["unroll.apps.core.training", "tests.apps.toy"])


class Child:
    """A process that runs `function(connection, *arguments)`. Use it in a `with` block.

    Args:
        function: of a module. Its result is the exit code, 0 if it is `None`.
        *arguments: of the function, after its end of a pipe.
    """

    def __init__(self, function: Callable, *arguments):
        self._output = tempfile.NamedTemporaryFile()  # noqa: SIM115
        self.connection, other = _CONTEXT.Pipe()
        started = (function, other, arguments, self._output.name)
        self.process = _CONTEXT.Process(target=_run, args=started, daemon=True)
        self.process.start()
        other.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *exception) -> None:
        self.connection.close()
        if exception[0]:
            self.process.kill()
        self.process.join()
        self.process.close()
        self._output.close()

    def receive(self):
        """What the function sends next.

        Raises:
            RuntimeError: with what the process wrote, if it ended.
        """
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            raise RuntimeError(f"exit code {self.process.exitcode}: {self.output()}") from None

    def wait(self) -> int:
        """The exit code, or the negative number of the signal that ended the process."""
        self.process.join()
        return self.process.exitcode

    def output(self) -> str:
        """What the process wrote to both outputs."""
        return Path(self._output.name).read_text(errors="replace")[-5000:]


def _run(function: Callable, connection, arguments: tuple, output: str) -> None:
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # A background process of a shell ignores interrupts, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(function(connection, *arguments))
