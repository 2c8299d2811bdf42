"""TensorFlow without its start-up messages."""

import logging
import os
import re
import sys
import tempfile
import warnings

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
    A level that the user has set leaves everything as it is.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        import tensorflow  # noqa: F401

        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            said.seek(0)
            for line in said:
                if not _CHATTER.search(line):
                    os.write(2, line)
    tf.get_logger().setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="keras|tensorflow|tensorflow_datasets")
