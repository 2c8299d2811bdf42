"""Folders of a person's own pictures, each with what is said of it."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Builder, report_left_out, stamp
from unroll.pipelines.errors import DataError
from unroll.pipelines.image import readable_picture

# By the path of a picture, as a string, what is said of it.
Told = dict[str, list]


@dataclass
class _Folder(tfds.core.BuilderConfig):
    told: dict[str, Told] = field(default_factory=dict)


class PictureFiles(Builder, skip_registration=True):
    """What the builders of such folders share.

    Pictures that are missing or cannot be decoded are left out with all that is said of them, which
    the standard error tells with their names and number. A subclass reads the folder, and makes an
    example of a picture.

    Args:
        folder: where the files are.
        **kwargs: as in `Builder`.
    """

    SAID = ""  # what is said of pictures, in one word

    def __init__(self, folder: str | Path, **kwargs):
        told = self._read(Path(folder))
        digest = hashlib.sha256()
        for split, pictures in told.items():
            for path, said in pictures.items():
                digest.update(repr((split, path, said, stamp(Path(path)))).encode())
        super().__init__(config=_Folder(name=digest.hexdigest()[:16], told=told), **kwargs)

    @abstractmethod
    def _read(self, folder: Path) -> dict[str, Told]:
        """What is said in each split."""

    @abstractmethod
    def _example(self, name: str, contents: bytes, said: list) -> dict:
        """What the builder generates of a picture."""

    def _split_generators(self, dl_manager):
        told = self.builder_config.told
        return {split: self._generate_examples(split, each) for split, each in told.items()}

    def _generate_examples(self, split: str, told: Told):
        left_out, lost = [], 0
        for path, said in told.items():
            try:
                contents = readable_picture(Path(path))
            except DataError as error:
                left_out.append(str(error))
                lost += len(said)
                continue
            yield path, self._example(Path(path).name, contents, said)
        report_left_out(left_out, len(told), f"pictures of {split}", f"{lost} {self.SAID}")


def table(path: Path, columns: list[str]) -> Iterator[tuple[str, ...]]:
    """The rows of a file of cells with tabs between them; the first is a picture, as a path.

    Raises:
        DataError: one line, if the file is not UTF-8, or a row has an empty cell or others.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        picture, *cells = (cell.strip() for cell in line.split("\t"))
        if len(cells) + 1 != len(columns) or not all((picture, *cells)):
            raise DataError(f"{path}, line {number}: expected {', a tab, '.join(columns)}.")
        yield str(path.parent / picture), *cells
