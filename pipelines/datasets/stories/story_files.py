"""Your own stories, in the file format of bAbI."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.stories.base import StoryQuestions, read_stories
from unroll.pipelines.errors import DataError

SPLITS = ("train", "valid", "test")


@dataclass
class _Folder(tfds.core.BuilderConfig):
    rows: dict[str, list[dict]] = field(default_factory=dict, repr=False)


class StoryFiles(StoryQuestions, skip_registration=True):
    """Stories from `train.txt` and, optionally, `valid.txt` and `test.txt`.

    Or from files of several tasks with names as in bAbI, `qa1_any-name_train.txt`. `read_stories`
    describes the format.

    Args:
        folder: the folder of the files.

    Raises:
        DataError: one line that names the file and the line.
    """

    SPLITS = ()

    def __init__(self, folder: str | Path, **kwargs):
        rows: dict[str, list[dict]] = {}
        digest = hashlib.sha256()
        for split, task, path in _files(Path(folder)):
            contents = path.read_bytes()
            digest.update(f"{split} {task} {len(contents)} ".encode() + contents)
            questions = list(read_stories(contents, str(path), task))
            if not questions:
                raise DataError(f"{path} has no questions.")
            rows.setdefault(split, []).extend(questions)
        config = _Folder(name=digest.hexdigest()[:16], rows=rows)
        super().__init__(config=config, **kwargs)

    def _split_generators(self, dl_manager):
        rows = self.builder_config.rows
        return {split: self._generate_examples(questions) for split, questions in rows.items()}


def _files(folder: Path) -> list[tuple[str, str, Path]]:
    """Split, task and path of each file."""
    files = [(s, "", folder / f"{s}.txt") for s in SPLITS if (folder / f"{s}.txt").is_file()]
    for path in sorted(folder.glob("qa*.txt")):
        if match := re.fullmatch(rf"qa(\d+)_.*_({'|'.join(SPLITS)})\.txt", path.name):
            files.append((match[2], match[1], path))
    tasks = {task for split, task, _ in files if split == "train"}
    if not tasks:
        raise DataError(f"{folder} has no training data: train.txt, or qa1_..._train.txt.")
    if "" in tasks and len(tasks) > 1:
        raise DataError(f"{folder} has both train.txt and files of tasks (qa...): remove one.")
    return files
