"""What the datasets of stories share: features, and the file format of bAbI."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Builder
from unroll.pipelines.errors import DataError


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


def read_stories(contents: bytes, name: str, task: str = "") -> Iterator[dict]:
    r"""The questions of a file in the format of bAbI, each with the facts before it.

    Lines are numbered, from 1 in each story. A line has a fact; or a question, a tab, the answer, a
    tab and the line numbers of the supporting facts, which may be missing.

    Args:
        contents: the file, in UTF-8.
        name: the name of the file, for errors.
        task: the task of all questions.

    Raises:
        DataError: one line that names the file and the line.

    >>> [one] = read_stories(b"1 Mary is here.\n2 Bob left.\n3 Where is Mary?\there\t1\n", "x")
    >>> one["facts"], one["question"], one["answer"], one["supporting"]
    (['Mary is here.', 'Bob left.'], 'Where is Mary?', 'here', [0])
    """
    try:
        lines = contents.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{name} is not UTF-8.") from None
    index_by_line: dict[int, int] = {}  # of the facts of the story
    facts: list[str] = []
    last = 0
    for row, line in enumerate(lines, start=1):
        at = f"{name}, line {row}"
        if not line.strip():
            continue
        number, _, rest = line.strip().partition(" ")
        if not number.isdecimal() or not rest.strip():
            raise DataError(f"{at}: expected a number, a space and a sentence, got {line!r}.")
        if int(number) == 1:
            index_by_line, facts = {}, []
        elif int(number) != last + 1:
            raise DataError(f"{at}: expected the number {last + 1} or 1, got {number}.")
        last = int(number)
        sentence, *cells = (part.strip() for part in rest.split("\t"))
        if not cells:
            if sentence.endswith("?"):
                raise DataError(f"{at}: the question has no answer.")
            index_by_line[last] = len(facts)
            facts.append(sentence)
            continue
        if len(cells) > 2 or not sentence:
            raise DataError(f"{at}: expected a question, an answer and lines, got {line!r}.")
        if not cells[0]:
            raise DataError(f"{at}: the question has no answer.")
        supporting = cells[1].split() if len(cells) == 2 else []
        for n in supporting:
            if not n.isdecimal() or int(n) not in index_by_line:
                raise DataError(f"{at}: no fact of the story has the number {n}.")
        yield {
            "task": task,
            "facts": list(facts),
            "question": sentence,
            "answer": cells[0],
            "supporting": [index_by_line[int(n)] for n in supporting],
        }
