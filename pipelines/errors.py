"""The one error that data raises."""


class DataError(ValueError):
    """Data that is missing or broken: the message is one line: file, row and remedy."""
