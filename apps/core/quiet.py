"""TensorFlow without its start-up messages."""

import contextlib
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator

_CHATTER = re.compile(
    rb"All log messages before absl::InitializeLog|oneDNN custom operations are on"
    rb"|Could not find cuda drivers|To enable the following instructions"
    rb"|This TensorFlow binary is optimized|Unable to register cu\w+ factory"
    rb"|computation_placer already registered|failed call to cuInit"
)


def import_tensorflow() -> None:
    """Imports TensorFlow, and keeps what it says of every start from the terminal.

    A part of it is written before any setting is read, whatever `TF_CPP_MIN_LOG_LEVEL` says: the
    lines that every start writes are taken out of the standard error, and the others are not.
    `TF_CPP_MIN_LOG_LEVEL=0` leaves everything as it is.
    """
    if "tensorflow" in sys.modules or os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        import tensorflow  # noqa: F401

        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_chatter():
        import tensorflow as tf

        tf.config.list_physical_devices()
    tf.get_logger().setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="keras|tensorflow|tensorflow_datasets")


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Takes the known start-up lines out of what is written to the standard error meanwhile.

    A process of its own reads them: what this one says before it is aborted is not lost.
    """
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        _pass_on(reading)
    os.close(reading)
    kept = os.dup(2)
    os.dup2(writing, 2)
    os.close(writing)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.waitpid(child, 0)


def _pass_on(reading: int) -> None:
    """Writes the lines that are no chatter to the standard error, and ends the process."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with os.fdopen(reading, "rb") as lines:
            for line in lines:
                if not _CHATTER.search(line):
                    os.write(2, line)
    finally:
        os._exit(0)
