"""Your own tagged sentences: a folder in one of two layouts."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.tagging.base import PARTS, Tagging, read_columns, read_lines
from unroll.pipelines.errors import DataError

SPLITS = {"train": ("train",), "valid": ("valid", "dev"), "test": ("test",)}
SUFFIXES = (".conll", ".txt")


@dataclass
class _Folder(tfds.core.BuilderConfig):
    files: dict[str, list[Path]] = field(default_factory=dict)
    tag_first: bool = False


class TaggedFiles(Tagging, skip_registration=True):
    """Sentences from a folder: `train/{seq.in,seq.out,label}`, or `train.conll` (or `.txt`).

    In the first layout, each line of the three files has the words, the tags and the intent of a
    sentence; `label` is optional. In the second, a line has a word and its tag, and an empty line
    ends a sentence. Tags are BIO or IOBES. `valid` (or `dev`) and `test` are optional.

    Args:
        folder: the folder of the files.
        tag_first: whether the tag is in the first column instead of the last.

    Raises:
        DataError: one line that names the file and the line.
    """

    def __init__(self, folder: str | Path, tag_first: bool = False, **kwargs):
        files = _files(Path(folder))
        known = {example["intent"] for _, example in _examples(files["train"], tag_first)}
        for split, paths in files.items():
            for row, example in _examples(paths, tag_first):
                if example["intent"] not in known:
                    raise DataError(
                        f"{paths[-1]}, line {row}: the training split has no intent "
                        f"{example['intent']!r}; it has {', '.join(sorted(known))}."
                    )
            if not any(True for _ in _examples(paths, tag_first)):
                raise DataError(f"{paths[0]} has no sentences ({split}).")
        digest = hashlib.sha256(str(tag_first).encode())
        for split, paths in files.items():
            for path in paths:
                digest.update(f"{split} {path.name} ".encode() + path.read_bytes())
        config = _Folder(name=digest.hexdigest()[:16], files=files, tag_first=tag_first)
        super().__init__(config=config, **kwargs)

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(paths)
            for split, paths in self.builder_config.files.items()
        }

    def _generate_examples(self, paths: list[Path]):
        yield from _examples(paths, self.builder_config.tag_first)


def _examples(paths: list[Path], tag_first: bool) -> Iterator[tuple[int, dict]]:
    if len(paths) == 1:
        return read_columns(paths[0], tag_first)
    return read_lines(paths[0], paths[1], paths[2] if len(paths) > 2 else None)


def _files(folder: Path) -> dict[str, list[Path]]:
    files = {}
    for split, names in SPLITS.items():
        layouts = [
            [folder / name / part for part in PARTS if (folder / name / part).is_file()]
            for name in names
            if (folder / name).is_dir()
        ]
        for paths in layouts:
            missing = {"seq.in", "seq.out"} - {path.name for path in paths}
            if missing:
                raise DataError(f"{folder}: {split} has no {' and no '.join(sorted(missing))}.")
        layouts += [
            [folder / (name + suffix)]
            for name in names
            for suffix in SUFFIXES
            if (folder / (name + suffix)).is_file()
        ]
        if len(layouts) > 1:
            raise DataError(
                f"{folder} has {split} twice, {layouts[0][0]} and {layouts[1][0]}: remove one."
            )
        if layouts:
            files[split] = layouts[0]
    if "train" not in files:
        raise DataError(
            f"{folder} has no training data: train/seq.in with train/seq.out, or train.conll."
        )
    if len({len(paths) for paths in files.values()}) > 1:
        raise DataError(f"{folder}: all splits or none must have a file 'label' of intents.")
    return files
