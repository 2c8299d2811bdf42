"""TensorFlow without its start-up messages."""

import contextlib
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator

_STARTUP_MESSAGES = re.compile(
    rb"All log messages before absl::InitializeLog|oneDNN custom operations are on"
    rb"|Could not find cuda drivers|To enable the following instructions"
    rb"|This TensorFlow binary is optimized|Unable to register cu\w+ factory"
    rb"|computation_placer already registered|failed call to cuInit"
)


def import_tensorflow() -> None:
    """Imports TensorFlow without its start-up messages.

    Some of them are written before TensorFlow reads `TF_CPP_MIN_LOG_LEVEL`. These known lines are
    removed from the standard error; all others remain. `TF_CPP_MIN_LOG_LEVEL=0` keeps everything.
    """
    if "tensorflow" in sys.modules or os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        import tensorflow  # noqa: F401

        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_startup_messages():
        import tensorflow as tf

        tf.config.list_physical_devices()
    tf.get_logger().setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="keras|tensorflow|tensorflow_datasets")


@contextlib.contextmanager
def without_startup_messages() -> Iterator[None]:
    """Removes the known start-up messages from the standard error inside the `with` block.

    A child process filters them, so that nothing is lost if this process aborts.
    """
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        _filter(reading)
    os.close(reading)
    stderr = os.dup(2)
    os.dup2(writing, 2)
    os.close(writing)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        os.waitpid(child, 0)


def _filter(reading: int) -> None:
    """Writes all other lines to the standard error, and ends the process."""
    try:
        # It ends after the process whose messages it filters.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        with os.fdopen(reading, "rb") as lines:
            for line in lines:
                if not _STARTUP_MESSAGES.search(line):
                    os.write(2, line)
    finally:
        os._exit(0)
