"""The one error that wrong use raises."""


class UsageError(ValueError):
    """A wrong option, run folder or input: the message is one line that names what is allowed."""
