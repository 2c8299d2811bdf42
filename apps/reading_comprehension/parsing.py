"""Stories and questions from the command line."""

from pathlib import Path

from unroll.apps.core.errors import UsageError
from unroll.apps.shared import questions


def parse_inputs(arguments: list[str]) -> list[tuple[str, str]]:
    """Pairs of a story and a question.

    An argument that ends with a question mark is a question about the story before it. A story may
    be the path of a `.txt` file.
    """
    pairs = questions.pairs(arguments, lambda given: not given.rstrip().endswith("?"), "story")
    return [(_read(story), question) for story, question in pairs]


def _read(story: str) -> str:
    """Raises a `UsageError` if the story is a file that cannot be read."""
    if not story.lower().endswith(".txt"):
        return story
    try:
        return Path(story).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{story}: {getattr(error, 'strerror', 'it is not UTF-8')}.") from None
