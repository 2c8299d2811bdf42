"""Stories and questions from the command line."""

import os
import re

from unroll.apps.core.errors import UsageError
from unroll.apps.shared import questions
from unroll.pipelines.datasets.stories.base import read_stories
from unroll.pipelines.lines import read_text, split_lines

_QUESTION_MARKS = ("?", "？", "؟")


def parse_inputs(arguments: list[str]) -> list[tuple[str, str]]:
    """Pairs of a story and a question.

    An argument that ends with a question mark is a question about the story before it. A story may
    be the path of a file: of plain text, or of numbered lines, which are read as in training. The
    questions of such a file are answered if no other question follows it.
    """
    pairs = []
    for given, queries in questions.groups(arguments, _is_story, "story"):
        is_file = given.lower().endswith(".txt") or os.path.isfile(given)
        text, name = (read_text(given), given) if is_file else (given, "the story")
        stories = list(read_stories(text, name)) if _is_numbered(text, is_file) else []
        if queries and len(stories) > 1:
            raise UsageError(
                f"{name} has {len(stories)} stories: ask about a file with one, or leave out the "
                "question to answer those of the file."
            )
        story = _as_text(stories[0].facts) if stories else text
        own = [(_as_text(q["facts"]), q["question"]) for each in stories for q in each.questions]
        if not queries and not own:
            raise questions.missing_question(given)
        pairs += [(story, question) for question in queries] or own
    return pairs


def _is_story(given: str) -> bool:
    return not given.rstrip().endswith(_QUESTION_MARKS)


def _is_numbered(text: str, is_file: bool) -> bool:
    """Whether the lines have numbers, as in training files. A typed line may begin with one."""
    lines = [line for line in split_lines(text) if line.strip()]
    if is_file and any(re.match(r"\s*[0-9]+\s[^\t]*\t", line) for line in lines):  # a question
        return True
    found = [re.match(r"\s*([0-9]{1,9})\s+\S", line) for line in lines[:2]]
    if not all(found) or len(found) < 2 - is_file:
        return False
    first, *second = (int(match[1]) for match in found)
    return first == 1 or second == [first + 1]


def _as_text(facts: list[str]) -> str:
    """A story of one line for each fact.

    A fact of several sentences is one fact in training: a no-break space between them keeps
    `pipelines.stories.split_facts` from making several, and is a space to the vocabulary.
    """
    return "\n".join(re.sub(r"(?<=[.!?])\s+", "\u00a0", fact) for fact in facts)
