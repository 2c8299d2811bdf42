"""The error that data raise, and messages about what is read."""

import functools
import sys


class DataError(ValueError):
    """Missing or broken data. The message is one line that names the file, and how to fix it."""


@functools.cache
def report_once(message: str) -> None:
    """Prints a message to standard error, the first time that it is given.

    For what a reader detects, converts or skips: a file may be read several times.
    """
    print(f"unroll: {message}", file=sys.stderr)
