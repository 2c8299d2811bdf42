"""What the datasets of stories share: features, and the file format of bAbI."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Builder
from unroll.pipelines.errors import DataError, report_once
from unroll.pipelines.lines import split_lines

_LINE = re.compile(r"([0-9]{1,9})\s+(\S.*)", re.DOTALL)
# As in "Where is Mary? kitchen 1", where spaces took the place of the tabs.
_QUESTION_WITHOUT_TAB = re.compile(r"\?\s.*[^.!?\"')\s]\Z", re.DOTALL)


class StoryQuestions(Builder, skip_registration=True):
    """A question with the facts before it, the answer, and the indices of the supporting facts."""

    FEATURES: ClassVar = {
        "task": tf.string,
        "facts": tfds.features.Sequence(tf.string),
        "question": tf.string,
        "answer": tf.string,
        "supporting": tfds.features.Sequence(tf.int32),
    }

    def _generate_examples(self, rows: Iterable[dict]):
        yield from enumerate(rows)


@dataclass
class Story:
    """A story of a file.

    Attributes:
        line: its first line.
        facts: all of its facts.
        questions: examples of `StoryQuestions`, each with the facts before the question.
    """

    line: int
    facts: list[str] = field(default_factory=list)
    questions: list[dict] = field(default_factory=list)


def read_stories(text: str, name: str, task: str = "") -> Iterator[Story]:
    r"""The stories of a file in the format of bAbI.

    Lines are numbered, from 1 in each story. A line has a fact; or a question, a tab, the answer, a
    tab and the line numbers of the supporting facts, which may be missing.

    Args:
        text: the file.
        name: the name of the file, for errors.
        task: the task of all questions.

    Raises:
        DataError: one line that names the file and the line.

    >>> [story] = read_stories("1 Mary is here.\n2 Bob left.\n3 Where is Mary?\there\t1\n", "x")
    >>> [one] = story.questions
    >>> one["facts"], one["question"], one["answer"], one["supporting"]
    (['Mary is here.', 'Bob left.'], 'Where is Mary?', 'here', [0])
    """
    story = Story(0)
    index_by_line: dict[int, int] = {}  # of the facts of the story
    last = 0
    for row, line in enumerate(split_lines(text), start=1):
        at = f"{name}, line {row}"
        if not line.strip():
            continue
        found = _LINE.fullmatch(line.strip())
        if not found:
            raise DataError(f"{at}: expected a number, a space and a sentence, got {_short(line)}.")
        number = int(found[1])
        if number == 1:
            if story.line:
                yield story
            story, index_by_line = Story(row), {}
        elif number != last + 1:
            expected = f"{last + 1} or 1" if last else "1"
            raise DataError(f"{at}: expected the number {expected}, got {number}.")
        last = number
        sentence, *cells = (part.strip() for part in found[2].split("\t"))
        if cells:
            story.questions.append(_question(sentence, cells, story, index_by_line, at, task))
            continue
        if sentence.endswith("?"):
            raise DataError(f"{at}: the question has no answer.")
        if _QUESTION_WITHOUT_TAB.search(sentence):
            raise DataError(f"{at}: a tab separates a question and its answer, got {_short(line)}.")
        index_by_line[last] = len(story.facts)
        story.facts.append(sentence)
    if story.line:
        yield story


def _question(
    sentence: str, cells: list[str], story: Story, index_by_line: dict, at: str, task: str
) -> dict:
    """The example of a line with a question, and with the `cells` after it."""
    if len(cells) > 2:
        raise DataError(
            f"{at}: expected a question, an answer and lines, got {len(cells) + 1} columns."
        )
    answer, supporting = cells[0], cells[1].split() if len(cells) == 2 else []
    if not answer:
        raise DataError(f"{at}: the question has no answer.")
    if answer.endswith(".") and "?" not in sentence:
        raise DataError(f"{at}: a fact has no tab, and a question ends with a question mark.")
    if not story.facts:
        raise DataError(f"{at}: the question is before the first fact of its story.")
    for n in supporting:
        if not re.fullmatch("[0-9]{1,9}", n) or int(n) not in index_by_line:
            raise DataError(f"{at}: no fact before the question has the number {n[:20]}.")
    return {
        "task": task,
        "facts": list(story.facts),
        "question": sentence,
        "answer": answer,
        "supporting": [index_by_line[int(n)] for n in supporting],
    }


def used_stories(stories: Iterable[Story], name: str) -> list[Story]:
    """The stories with questions. Reports what the others have, and facts after the questions.

    Args:
        stories: of a file.
        name: the name of the file, for the message.
    """
    stories = list(stories)
    used = [story for story in stories if story.questions]
    if unused := [story for story in stories if not story.questions]:
        report_once(
            f"{name}: {len(unused)} of {len(stories)} stories have no questions and are skipped, "
            f"such as that of line {unused[0].line}."
        )
    late = [story for story in used if len(story.questions[-1]["facts"]) < len(story.facts)]
    if late:
        count = sum(len(story.facts) - len(story.questions[-1]["facts"]) for story in late)
        report_once(
            f"{name}: {count} facts after the last question of their story are not used, such as "
            f"in the story of line {late[0].line}."
        )
    return used


def _short(line: str) -> str:
    return repr(line if len(line) <= 60 else f"{line[:60]}...")
