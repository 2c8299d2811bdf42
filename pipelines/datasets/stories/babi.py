"""Stories of facts with questions about them: bAbI (Weston et al. 2016), and how it is written."""

import re
import tarfile
from collections.abc import Iterable, Iterator
from typing import ClassVar

import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Builder, report_left_out
from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.errors import DataError

_BABI = Source(
    "babi",
    "tasks_1-20_v1-2.tar.gz",
    "http://www.thespermwhale.com/jaseweston/babi/tasks_1-20_v1-2.tar.gz",
)
TASKS = range(1, 21)


class Reading(Builder, skip_registration=True):
    """A question with the facts told before it, the answer, and which facts give it, from 0 on."""

    FEATURES: ClassVar = {
        "task": tf.string,
        "facts": tfds.features.Sequence(tf.string),
        "question": tf.string,
        "answer": tf.string,
        "supporting": tfds.features.Sequence(tf.int32),
    }

    def _generate_examples(self, rows: Iterable[dict]):
        yield from enumerate(rows)


class Babi(Reading, skip_registration=True):
    """bAbI 1.2 in English: twenty tasks of 900 / 100 / 1,000 questions, or of 9,000 to learn from.

    There is no validation split: it is the last tenth of the stories of each task. The answer to a
    question is a word, or several with commas between them.
    """

    HOMEPAGE = "https://research.fb.com/downloads/babi/"
    CITATION = "Weston et al. 2016, Towards AI-complete question answering"
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name) for name in ("en", "en-10k")]

    def _split_generators(self, dl_manager):
        path = find(_BABI, dl_manager, self.manual_dir)
        rows, missing = {"train": [], "valid": [], "test": []}, []
        with tarfile.open(path) as archive:
            files = {_key(member.name): member for member in archive if member.isfile()}
            for task in TASKS:
                found = [files.get((self.builder_config.name, task, s)) for s in ("train", "test")]
                if None in found:
                    missing.append(f"{task} (no file to learn from, or none to test on)")
                    continue
                read = [
                    list(read_stories(archive.extractfile(each).read(), each.name, str(task)))
                    for each in found
                ]
                train, valid = hold_out(read[0])
                for split, more in (("train", train), ("valid", valid), ("test", read[1])):
                    rows[split] += more
        report_left_out(missing, len(TASKS), f"tasks of {path} ({self.builder_config.name})")
        return {split: self._generate_examples(found) for split, found in rows.items()}


def _key(name: str) -> tuple | None:
    """Folder, number and split of a file of the archive."""
    found = re.search(r"([^/]+)/qa(\d+)_[^/]*_(train|test)\.txt$", name)
    return (found[1], int(found[2]), found[3]) if found else None


def hold_out(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    """All but the last tenth, and the last tenth, such that no story is in both."""
    first = len(rows) - len(rows) // 10
    # A story's later questions have the facts of the ones before, and more.
    while 0 < first < len(rows) and _continues(rows[first - 1], rows[first]):
        first -= 1
    return rows[:first], rows[first:]


def _continues(before: dict, after: dict) -> bool:
    return after["facts"][: len(before["facts"])] == before["facts"]


def read_stories(contents: bytes, name: str, task: str = "") -> Iterator[dict]:
    r"""The questions of a file in bAbI's layout, each with the facts before it.

    A line is its number in the story, which begins anew at 1 with each story, and a fact; or its
    number, a question, a tab, the answer, a tab and the numbers of the lines that give the answer,
    which may be missing.

    Args:
        contents: of the file, UTF-8.
        name: of the file, for errors.
        task: of all its questions.

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
    places: dict[int, int] = {}  # of the facts of the story, by the numbers of their lines
    facts: list[str] = []
    last = 0
    for row, line in enumerate(lines, start=1):
        where = f"{name}, line {row}"
        if not line.strip():
            continue
        number, _, said = line.strip().partition(" ")
        if not number.isdecimal() or not said.strip():
            raise DataError(f"{where}: expected a number, a space and a sentence, got {line!r}.")
        if int(number) == 1:
            places, facts = {}, []
        elif int(number) != last + 1:
            raise DataError(f"{where}: expected the number {last + 1} or 1, got {number}.")
        last = int(number)
        said, *asked = (part.strip() for part in said.split("\t"))
        if not asked:
            if said.endswith("?"):
                raise DataError(f"{where}: the question has no answer.")
            places[last] = len(facts)
            facts.append(said)
            continue
        if len(asked) > 2 or not said:
            raise DataError(f"{where}: expected a question, an answer and lines, got {line!r}.")
        if not asked[0]:
            raise DataError(f"{where}: the question has no answer.")
        given = asked[1].split() if len(asked) == 2 else []
        if wrong := [n for n in given if not n.isdecimal() or int(n) not in places]:
            raise DataError(f"{where}: no fact of the story has the number {wrong[0]}.")
        yield {
            "task": task,
            "facts": list(facts),
            "question": said,
            "answer": asked[0],
            "supporting": [places[int(n)] for n in given],
        }
