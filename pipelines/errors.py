"""The error that data raise."""


class DataError(ValueError):
    """Missing or broken data. The message is one line that names the file, and how to fix it."""
