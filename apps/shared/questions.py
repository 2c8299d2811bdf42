"""Questions on the command line."""

from collections.abc import Callable

from unroll.apps.core.errors import UsageError


def groups(
    arguments: list[str], is_subject: Callable[[str], bool], kind: str
) -> list[tuple[str, list[str]]]:
    """Subjects with the questions that follow them, which may be none.

    Args:
        arguments: subjects, each followed by questions.
        is_subject: whether an argument is a subject.
        kind: what a subject is, for the error.

    Raises:
        UsageError: if a question precedes all subjects.
    """
    found: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if is_subject(argument):
            found.append((argument, []))
        elif found:
            found[-1][1].append(argument)
        else:
            raise UsageError(f"{argument!r}: name the {kind} before the questions about it.")
    return found


def pairs(
    arguments: list[str], is_subject: Callable[[str], bool], kind: str
) -> list[tuple[str, str]]:
    """Pairs of a subject and a question about it. The arguments are those of `groups`.

    Raises:
        UsageError: if a question precedes all subjects, or a subject has no question.

    >>> pairs(["a.png", "What?", "Where?"], lambda x: x.endswith(".png"), "image")
    [('a.png', 'What?'), ('a.png', 'Where?')]
    """
    found = groups(arguments, is_subject, kind)
    for subject, questions in found:
        if not questions:
            raise missing_question(subject)
    return [(subject, question) for subject, questions in found for question in questions]


def missing_question(subject: str) -> UsageError:
    """The error of a subject without a question."""
    return UsageError(f"{subject}: a question about it is missing.")
