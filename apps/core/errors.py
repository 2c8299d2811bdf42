"""The error of incorrect use."""


class UsageError(ValueError):
    """A wrong option, run folder or input. The message is one line that names what is allowed."""
