"""A person's own stories, in bAbI's layout."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.stories.babi import Reading, read_stories
from unroll.pipelines.errors import DataError

SPLITS = ("train", "valid", "test")


@dataclass
class _Folder(tfds.core.BuilderConfig):
    rows: dict[str, list[dict]] = field(default_factory=dict)


class StoryFiles(Reading, skip_registration=True):
    """Stories from `train.txt` and, if they are there, `valid.txt` and `test.txt`.

    Or from files of several tasks, named as bAbI's are, `qa1_any-name_train.txt`. `read_stories`
    tells what stands in them.

    Args:
        folder: where the files are.

    Raises:
        DataError: one line that names the file and the line, for whatever is wrong.
    """

    def __init__(self, folder: str | Path, **kwargs):
        rows: dict[str, list[dict]] = {}
        digest = hashlib.sha256()
        for split, task, path in _files(Path(folder)):
            contents = path.read_bytes()
            digest.update(f"{split} {task} {len(contents)} ".encode() + contents)
            found = list(read_stories(contents, str(path), task))
            if not found:
                raise DataError(f"{path} has no questions.")
            rows.setdefault(split, []).extend(found)
        config = _Folder(name=digest.hexdigest()[:16], rows=rows)
        super().__init__(config=config, **kwargs)

    def _split_generators(self, dl_manager):
        rows = self.builder_config.rows
        return {split: self._generate_examples(found) for split, found in rows.items()}


def _files(folder: Path) -> list[tuple[str, str, Path]]:
    """Split, task and path of each file."""
    found = [(s, "", folder / f"{s}.txt") for s in SPLITS if (folder / f"{s}.txt").is_file()]
    for path in sorted(folder.glob("qa*.txt")):
        if named := re.fullmatch(rf"qa(\d+)_.*_({'|'.join(SPLITS)})\.txt", path.name):
            found.append((named[2], named[1], path))
    tasks = {task for split, task, _ in found if split == "train"}
    if not tasks:
        raise DataError(f"{folder} has no training data: train.txt, or qa1_..._train.txt.")
    if "" in tasks and len(tasks) > 1:
        raise DataError(f"{folder} has train.txt and files of tasks (qa...): keep one kind.")
    return found
