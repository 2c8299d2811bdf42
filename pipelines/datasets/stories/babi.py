"""bAbI (Weston et al. 2016)."""

import re
import tarfile
from typing import ClassVar

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import held_out, report_skipped
from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.datasets.stories.base import Story, StoryQuestions, read_stories
from unroll.pipelines.lines import decode_text

ARCHIVE = Source(
    "babi",
    "tasks_1-20_v1-2.tar.gz",
    "http://www.thespermwhale.com/jaseweston/babi/tasks_1-20_v1-2.tar.gz",
)
TASKS = range(1, 21)


class Babi(StoryQuestions, skip_registration=True):
    """bAbI 1.2 in English: twenty tasks of 900 / 100 / 1,000 questions (`en`).

    The configuration `en-10k` has 9,000 / 1,000 / 1,000 questions of each task. bAbI has no
    validation split: it is the last tenth of the stories of each task. The answer to a question is
    a word, or several words with commas between them.
    """

    HOMEPAGE = "https://research.fb.com/downloads/babi/"
    CITATION = "Weston et al. 2016, Towards AI-complete question answering"
    LICENSE = "CC BY 3.0"
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name) for name in ("en", "en-10k")]

    def _split_generators(self, dl_manager):
        path = find(ARCHIVE, dl_manager, self.manual_dir)
        rows, missing = {"train": [], "valid": [], "test": []}, []
        with tarfile.open(path) as archive:
            files = {_key(member.name): member for member in archive if member.isfile()}
            for task in TASKS:
                pair = [files.get((self.builder_config.name, task, s)) for s in ("train", "test")]
                if None in pair:
                    missing.append(f"{task} (no training file or no test file)")
                    continue
                training, test = (
                    read_stories(
                        decode_text(archive.extractfile(each).read(), each.name),
                        each.name,
                        str(task),
                    )
                    for each in pair
                )
                train, valid = hold_out(list(training))
                rows["train"] += train
                rows["valid"] += valid
                rows["test"] += [question for story in test for question in story.questions]
        report_skipped(missing, len(TASKS), f"tasks of {path} ({self.builder_config.name})")
        return {split: self._generate_examples(examples) for split, examples in rows.items()}


def _key(name: str) -> tuple | None:
    """Configuration, task and split of a file of the archive."""
    match = re.search(r"([^/]+)/qa(\d+)_[^/]*_(train|test)\.txt$", name)
    return (match[1], int(match[2]), match[3]) if match else None


def hold_out(stories: list[Story]) -> tuple[list[dict], list[dict]]:
    """The questions of all stories but the last, and at least the last tenth of all questions."""
    rows = [(k, question) for k, story in enumerate(stories) for question in story.questions]
    chosen = held_out([k for k, _ in rows], last=True)
    parts: dict[bool, list[dict]] = {False: [], True: []}
    for (_, question), out in zip(rows, chosen, strict=True):
        parts[out].append(question)
    return parts[False], parts[True]
