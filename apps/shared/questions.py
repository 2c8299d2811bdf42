"""Questions on the command line, behind what they are about."""

from collections.abc import Callable

from unroll.apps.core.errors import UsageError


def pairs(inputs: list, is_subject: Callable[[str], bool], kind: str) -> list[tuple]:
    """Subjects with questions: pairs as they are; of strings each subject with those behind it.

    Args:
        inputs: pairs and strings.
        is_subject: tells what questions are about from the questions.
        kind: what a subject is, for errors.

    Raises:
        UsageError: if there is a question before any subject, or a subject without a question.

    >>> pairs(["a.png", "What?", "Where?"], lambda given: given.endswith(".png"), "picture")
    [('a.png', 'What?'), ('a.png', 'Where?')]
    """
    found, subject, asked = [], None, True
    for given in inputs:
        if not isinstance(given, str):
            found.append(tuple(given))
        elif is_subject(given):
            if not asked:
                break
            subject, asked = given, False
        elif subject is None:
            raise UsageError(f"{given!r}: name the {kind} before the questions about it.")
        else:
            found.append((subject, given))
            asked = True
    if not asked:
        raise UsageError(f"{subject}: what is the question about it?")
    return found
