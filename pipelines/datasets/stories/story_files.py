"""Your own stories, in the file format of bAbI."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import hold_out
from unroll.pipelines.datasets.stories.base import StoryQuestions, read_stories, used_stories
from unroll.pipelines.errors import DataError, report_once
from unroll.pipelines.lines import read_text

_NAMES = ("train", "valid", "test")
_OTHER_NAMES = ("dev", "val", "validation")  # of the validation split


@dataclass
class _Folder(tfds.core.BuilderConfig):
    rows: dict[str, list[dict]] = field(default_factory=dict, repr=False)


class StoryFiles(StoryQuestions, skip_registration=True):
    """Stories from `train.txt` and, optionally, `valid.txt` and `test.txt`.

    Or from files of several tasks with names as in bAbI, `qa1_any-name_train.txt`. `read_stories`
    describes the format. Without validation files, a tenth of the training questions is held out,
    by story.

    Args:
        folder: the folder of the files.

    Raises:
        DataError: one line that names the file and the line.
    """

    SPLITS = ()

    def __init__(self, folder: str | Path, **kwargs):
        rows: dict[str, list[dict]] = {}
        stories: list[tuple[str, int]] = []  # of the training questions
        files = _files(Path(folder))
        for split, task, path in files:
            used = used_stories(read_stories(read_text(path), str(path), task), str(path))
            if not used:
                raise DataError(f"{path} has no questions.")
            for k, story in enumerate(used):
                rows.setdefault(split, []).extend(story.questions)
                if split == "train":
                    stories += [(path.name, k)] * len(story.questions)
        if "valid" not in rows:
            name = "qa1_..._valid.txt" if files[0][1] else "valid.txt"
            tasks = [(row["task"],) for row in rows["train"]]
            chosen = hold_out(
                stories, folder, examples="questions", group="story", add=name, labels=tasks
            )
            pairs = list(zip(rows["train"], chosen, strict=True))
            rows["train"] = [row for row, out in pairs if not out]
            rows["valid"] = [row for row, out in pairs if out]
        digest = hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
        super().__init__(config=_Folder(name=digest, rows=rows), **kwargs)

    def _split_generators(self, dl_manager):
        rows = self.builder_config.rows
        return {split: self._generate_examples(questions) for split, questions in rows.items()}


def _files(folder: Path) -> list[tuple[str, str, Path]]:
    """Split, task and path of each file."""
    files = []
    for path in sorted(folder.glob("*.txt")):
        found = re.fullmatch(r"(?:qa([0-9]+)_(?:.*_)?)?([a-z]+)\.txt", path.name)
        if found and found[2] in _NAMES:
            files.append((found[2], found[1] or "", path))
        elif found and found[2] in _OTHER_NAMES:
            name = f"{path.name.removesuffix(f'{found[2]}.txt')}valid.txt"
            raise DataError(f"{path}: rename the file to {name}.")
        elif path.name.startswith("qa"):
            report_once(f"{path} is not read: its name is not that of a task, qa1_..._train.txt.")
    tasks = {task for _, task, _ in files}
    if "train" not in {split for split, _, _ in files}:
        raise DataError(f"{folder} has no training data: train.txt, or qa1_..._train.txt.")
    if "" in tasks and len(tasks) > 1:
        one, several = (
            next(path.name for _, task, path in files if bool(task) == of_task)
            for of_task in (False, True)
        )
        raise DataError(
            f"{folder} has both {one} and files of tasks, such as {several}: remove one."
        )
    return files
