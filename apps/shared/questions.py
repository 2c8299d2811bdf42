"""Questions on the command line."""

from collections.abc import Callable

from unroll.apps.core.errors import UsageError


def pairs(
    arguments: list[str], is_subject: Callable[[str], bool], kind: str
) -> list[tuple[str, str]]:
    """Pairs of a subject and a question about it.

    Args:
        arguments: subjects, each followed by one or more questions.
        is_subject: whether an argument is a subject.
        kind: what a subject is, for the errors.

    Raises:
        UsageError: if a question precedes all subjects, or a subject has no question.

    >>> pairs(["a.png", "What?", "Where?"], lambda x: x.endswith(".png"), "image")
    [('a.png', 'What?'), ('a.png', 'Where?')]
    """
    found: list[tuple[str, str]] = []
    subject, has_question = None, True
    for argument in arguments:
        if is_subject(argument):
            if not has_question:
                break
            subject, has_question = argument, False
        elif subject is None:
            raise UsageError(f"{argument!r}: name the {kind} before the questions about it.")
        else:
            found.append((subject, argument))
            has_question = True
    if not has_question:
        raise UsageError(f"{subject}: a question about it is missing.")
    return found
