"""Folders of your own images, with captions or questions."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Builder, file_version, report_skipped
from unroll.pipelines.errors import DataError
from unroll.pipelines.image import read_image

# By the path of an image its captions or questions.
Annotations = dict[str, list]


@dataclass
class _Folder(tfds.core.BuilderConfig):
    annotations: dict[str, Annotations] = field(default_factory=dict, repr=False)


class ImageFiles(Builder, skip_registration=True):
    """What the builders of such folders share.

    Images that are missing or cannot be decoded are skipped with their annotations. A message on
    standard error names them. A subclass reads the folder, and makes the example of an image.

    Args:
        folder: the folder of the files.
        **kwargs: arguments of `Builder`.
    """

    SPLITS = ()
    ANNOTATION = ""  # what an image has: "captions" or "questions"

    def __init__(self, folder: str | Path, **kwargs):
        annotations = self._read(Path(folder))
        digest = hashlib.sha256()
        for split, images in annotations.items():
            for path, rows in images.items():
                digest.update(repr((split, path, rows, file_version(Path(path)))).encode())
        config = _Folder(name=digest.hexdigest()[:16], annotations=annotations)
        super().__init__(config=config, **kwargs)

    @abstractmethod
    def _read(self, folder: Path) -> dict[str, Annotations]:
        """The annotations of each split."""

    @abstractmethod
    def _example(self, name: str, contents: bytes, rows: list) -> dict:
        """The example of an image."""

    def _split_generators(self, dl_manager):
        annotations = self.builder_config.annotations
        return {split: self._generate_examples(split, own) for split, own in annotations.items()}

    def _generate_examples(self, split: str, annotations: Annotations):
        skipped, lost = [], 0
        for path, rows in annotations.items():
            try:
                contents = read_image(Path(path))
            except DataError as error:
                skipped.append(str(error))
                lost += len(rows)
                continue
            yield path, self._example(Path(path).name, contents, rows)
        report_skipped(skipped, len(annotations), f"images of {split}", f"{lost} {self.ANNOTATION}")


def read_table(path: Path, columns: list[str]) -> Iterator[tuple[str, ...]]:
    """The rows of a tab-separated file. The first column is the path of an image.

    Args:
        path: the file.
        columns: what the columns are, for errors.

    Raises:
        DataError: one line, if the file is not UTF-8, or a row has an empty cell or another number
            of cells.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        image, *cells = (cell.strip() for cell in line.split("\t"))
        if len(cells) + 1 != len(columns) or not all((image, *cells)):
            raise DataError(f"{path}, line {number}: expected {', a tab, '.join(columns)}.")
        yield str(path.parent / image), *cells
