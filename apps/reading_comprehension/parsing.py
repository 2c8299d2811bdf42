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
    for given, asked in questions.groups(arguments, _is_story, "story"):
        own = (
            _of_text(read_text(given), given, asked)
            if _is_file(given)
            else _of_text(given, "the story", asked)
        )
        if not own:
            raise questions.missing_question(given)
        pairs += own
    return pairs


def _is_story(given: str) -> bool:
    return not given.rstrip().endswith(_QUESTION_MARKS)


def _is_file(story: str) -> bool:
    return story.lower().endswith(".txt") or os.path.isfile(story)


def _of_text(text: str, name: str, asked: list[str]) -> list[tuple[str, str]]:
    stories = list(read_stories(text, name)) if _is_numbered(text) else []
    if asked and len(stories) > 1:
        raise UsageError(
            f"{name} has {len(stories)} stories: ask about a file with one, or leave out the "
            "question to answer those of the file."
        )
    own = [
        (_as_text(row["facts"]), row["question"]) for story in stories for row in story.questions
    ]
    story = _as_text(stories[0].facts) if stories else text
    return [(story, question) for question in asked] or own


def _is_numbered(text: str) -> bool:
    """Whether the lines have numbers, as in training files."""
    lines = [line for line in split_lines(text) if line.strip()]
    return bool(lines) and all(re.match(r"\s*[0-9]+\s+\S", line) for line in lines[:2])


def _as_text(facts: list[str]) -> str:
    """A story of one line for each fact.

    A fact of several sentences is one fact in training: a no-break space between them keeps
    `pipelines.stories.split_facts` from making several, and is a space to the vocabulary.
    """
    return "\n".join(re.sub(r"(?<=[.!?])\s+", "\u00a0", fact) for fact in facts)
