"""Processes that share one import of TensorFlow.

A server process imports TensorFlow and the toy app, runs no operation, and forks a child for each
function: a child starts at once, and its devices, its limits and its signals are its own.
"""

import contextlib
import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

import tensorflow as tf

from unroll.apps.core import cli

_ROOT = Path(__file__).parent.parent.parent
_CONTEXT = multiprocessing.get_context("forkserver")
_PRELOADED = ["unroll.apps.core.training", "tests.apps.toy"]
_CONTEXT.set_forkserver_preload(_PRELOADED)


def preload(modules: list[str]) -> None:
    """Adds to what the server imports. Call it before the first child starts."""
    _CONTEXT.set_forkserver_preload(_PRELOADED + modules)


class Child:
    """A process that runs `function(connection, *arguments)`. Use it in a `with` block.

    Args:
        function: of a module. Its result is the exit code, 0 if it is `None`.
        *arguments: of the function, after its end of a pipe.
    """

    def __init__(self, function: Callable, *arguments):
        self._output = tempfile.NamedTemporaryFile()  # noqa: SIM115
        self.connection, other = _CONTEXT.Pipe()
        # A child optimizes its graphs as this process does: their numbers are the same.
        graphs = tf.config.optimizer.get_experimental_options()
        started = (function, other, arguments, self._output.name, graphs)
        with contextlib.chdir(_ROOT):  # where the server imports this checkout
            forkserver.ensure_running()
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

    def ended(self, seconds: float = 0) -> bool:
        """Whether the process has ended, or does so within a time."""
        return bool(multiprocessing.connection.wait([self.process.sentinel], seconds))

    def output(self) -> str:
        """What the process wrote to both outputs."""
        return Path(self._output.name).read_text(errors="replace")[-5000:]


def command(connection, *arguments: str) -> int:
    """The command line, as the function of a `Child`."""
    return cli.main(list(arguments))


def run_command(*arguments: str) -> None:
    """Runs a command in a process of its own.

    Raises:
        RuntimeError: with its output, if it fails.
    """
    with Child(command, *arguments) as child:
        must_succeed(child, arguments)


def must_succeed(child: Child, arguments: tuple[str, ...]) -> None:
    """Waits for a process that runs a command.

    Raises:
        RuntimeError: with its output, if it fails.
    """
    if code := child.wait():
        raise RuntimeError(f"{' '.join(arguments)}: exit code {code}: {child.output()}")


def _run(function: Callable, connection, arguments: tuple, output: str, graphs: dict) -> None:
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # A background process of a shell ignores interrupts, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.freeze()  # what was imported is not searched for garbage again
    tf.config.optimizer.set_experimental_options(graphs)
    sys.exit(function(connection, *arguments))
