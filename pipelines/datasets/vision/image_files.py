"""Folders of your own images, with captions or questions."""

import hashlib
import itertools
import math
import os
import re
import unicodedata
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Builder, file_version, hold_out, report_skipped
from unroll.pipelines.errors import DataError, report_once
from unroll.pipelines.image import decode, read_image
from unroll.pipelines.lines import read_rows

# By the path of an image its captions or questions.
Annotations = dict[str, list]

# Images of one name are the same picture, in another size or format, if thumbnails of this side
# differ by less, of 255, in the mean.
_THUMBNAIL, _SAME = 16, 8.0
_CHUNK = 64  # images that are in memory while a split is prepared
_MARKUP = re.compile(r"<br\s*/?>|-[lr][rsc]b-", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """What a folder has.

    Attributes:
        splits: the annotations of each split.
        validation: the file that the split "valid" would come from.
        roots: the folders that the names of images are relative to.
    """

    splits: dict[str, Annotations]
    validation: str
    roots: tuple[Path, ...]

    def name(self, path: str) -> str:
        """The name of an image."""
        found = (root for root in self.roots if Path(path).is_relative_to(root))
        root = next(found, None)
        return path if root is None else Path(path).relative_to(root).as_posix()


@dataclass
class _Folder(tfds.core.BuilderConfig):
    # Not in the representation, which TFDS logs.
    layout: Layout | None = field(default=None, repr=False)


class ImageFiles(Builder, skip_registration=True):
    """What the builders of such folders share.

    Images that are missing or cannot be decoded are skipped with their annotations. A message on
    standard error names them. Without a split "valid", a tenth of the training images is held out:
    images with the same contents stay together, and so do those of one name that look the same. A
    subclass reads the folder, and makes the example of an image.

    Args:
        folder: the folder of the files.
        **kwargs: arguments of `Builder`.
    """

    SPLITS = ()
    ANNOTATION = ""  # what an image has: "captions" or "questions"

    def __init__(self, folder: str | Path, **kwargs):
        layout = self._read(Path(folder))
        _divide(layout, folder)
        digest = hashlib.sha256()
        for split, images in layout.splits.items():
            for path, rows in images.items():
                digest.update(repr((split, path, rows, file_version(Path(path)))).encode())
        config = _Folder(name=digest.hexdigest()[:16], layout=layout)
        super().__init__(config=config, **kwargs)

    @abstractmethod
    def _read(self, folder: Path) -> Layout:
        """What the folder has."""

    @abstractmethod
    def _example(self, name: str, contents: bytes, rows: list) -> dict:
        """The example of an image."""

    def _split_generators(self, dl_manager):
        splits = self.builder_config.layout.splits
        return {split: self._generate_examples(split, own) for split, own in splits.items()}

    def _generate_examples(self, split: str, annotations: Annotations):
        skipped, lost = [], 0
        for path, read in _read_images(annotations):
            rows = annotations[path]
            if isinstance(read, DataError):
                skipped.append(str(read))
                lost += len(rows)
                continue
            yield path, self._example(self.builder_config.layout.name(path), read, rows)
        report_skipped(skipped, len(annotations), f"images of {split}", f"{lost} {self.ANNOTATION}")


def _read_images(paths) -> Iterator[tuple[str, bytes | DataError]]:
    """The contents of image files, or what is wrong with each. All cores decode them."""

    def read(path: str) -> bytes | DataError:
        try:
            return read_image(Path(path))
        except DataError as error:
            return error

    paths = iter(paths)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(itertools.islice(paths, _CHUNK)):
            yield from zip(chunk, pool.map(read, chunk), strict=True)


def _divide(layout: Layout, folder: str | Path) -> None:
    """Holds out a split "valid" if there is none, and reports images that are in two splits."""
    splits = layout.splits
    same = _same_images([path for images in splits.values() for path in images])
    if "valid" not in splits:
        training = list(splits["train"].items())
        out = hold_out(
            [same[path] for path, _ in training],
            folder,
            examples="images",
            group="image",
            add=layout.validation,
        )
        for name, chosen in (("train", False), ("valid", True)):
            splits[name] = {
                path: rows
                for (path, rows), held in zip(training, out, strict=True)
                if held is chosen
            }
    training = {same[path] for path in splits["train"]}
    for split in sorted(splits.keys() - {"train"}):
        if shared := [path for path in splits[split] if same[path] in training]:
            report_once(
                f"{folder}: {len(shared)} of {len(splits[split])} images of {split} are also in "
                f"train, such as {shared[0]}: figures of {split} are too good."
            )


def _same_images(paths: list[str]) -> dict[str, str]:
    """For each image the first one that shows the same picture.

    These are images with the same contents; and of the images with the same name in other folders
    or formats, those that look the same.
    """
    paths = list(dict.fromkeys(paths))
    first = {path: path for path in paths}

    def root(path: str) -> str:
        while first[path] != path:
            path = first[path]
        return path

    by_size, by_name = defaultdict(list), defaultdict(list)
    for path in paths:
        by_size[file_version(Path(path))[:1]].append(path)
        by_name[Path(path).stem.casefold()].append(path)
    for size, group in by_size.items():
        if not size or len(group) == 1:  # a file that does not exist has no size
            continue
        by_contents: dict[bytes, str] = {}
        for path in group:
            first[path] = by_contents.setdefault(_digest(path), path)
    for group in by_name.values():
        thumbnails: list[tuple[str, np.ndarray]] = []
        for path in group if len(group) > 1 else ():
            if (thumbnail := _thumbnail(path)) is None:
                continue
            for other, seen in thumbnails:
                if np.abs(thumbnail - seen).mean() < _SAME:
                    first[root(path)] = root(other)
                    break
            else:
                thumbnails.append((path, thumbnail))
    return {path: root(path) for path in paths}


def _digest(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return path.encode("utf-8", "surrogateescape")


def _thumbnail(path: str) -> np.ndarray | None:
    try:
        return decode(tf.constant(read_image(Path(path))), _THUMBNAIL).numpy()
    except DataError:
        return None


def read_table(path: Path, columns: list[str]) -> Iterator[tuple[str, ...]]:
    """The rows of a tab-separated file. The first column is the path of an image.

    A path with backslashes is read too, if no file has that name.

    Args:
        path: the file.
        columns: what the columns are, for errors.

    Raises:
        DataError: one line, if the file cannot be read, or a row has an empty cell or another
            number of cells.
    """
    for number, fields in read_rows(path, "\t"):
        image, *cells = (
            " ".join(cell.split()) if k else cell.strip() for k, cell in enumerate(fields)
        )
        if len(fields) != len(columns) or not all((image, *cells)):
            raise DataError(f"{path}, line {number}: expected {', a tab, '.join(columns)}.")
        name = path.parent / image
        if "\\" in image and not os.path.isfile(name):
            name = path.parent / image.replace("\\", "/")
        yield str(name), *cells


def is_blank(text: str) -> bool:
    """Whether a text has no visible character."""
    return all(unicodedata.category(character)[0] in "ZC" for character in text)


def has_words(text: str) -> bool:
    """Whether a text has a letter or a digit, and not only in markup.

    >>> has_words("!!!"), has_words("<br>"), has_words("7")
    (False, False, True)
    """
    text = unicodedata.normalize("NFKC", _MARKUP.sub(" ", text))
    return any(unicodedata.category(character)[0] in "LMN" for character in text)


class JsonTexts:
    """Reads texts of a JSON file, and reports what is left out or converted.

    Args:
        path: of the file, for messages.
        what: what the texts are, such as `captions`.
        is_empty: whether a text is left out.
    """

    def __init__(self, path: Path, what: str, is_empty=is_blank):
        self.path, self.what, self.is_empty = path, what, is_empty
        self.count = 0
        self.left_out: list[str] = []
        self.converted: list[str] = []

    def read(self, value, where: str) -> str:
        """A text on one line. It is "" if there is none: `null`, `NaN`, `Infinity`, no content.

        Numbers are converted.

        Args:
            value: of the JSON file.
            where: what has the text, such as `annotation 7`.

        Raises:
            DataError: if the value is neither a text, nor a number, nor missing.
        """
        self.count += 1
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and value == value and abs(value) != math.inf:
            self.converted.append(where)
            return str(int(value)) if value == value // 1 else str(value)
        if value is not None and not isinstance(value, str | float):
            raise DataError(
                f"{self.path}: {where}: expected a text of the {self.what}, got {value!r:.40}."
            )
        text = " ".join(value.split()) if isinstance(value, str) else ""
        if self.is_empty(text):
            self.left_out.append(where)
            return ""
        return text

    def report(self) -> None:
        """Prints the counts to standard error."""
        for found, effect in (
            (self.left_out, "are missing or empty and are left out"),
            (self.converted, "are numbers and are read as texts"),
        ):
            if found:
                named = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
                report_once(
                    f"{self.path}: {len(found)} of {self.count} {self.what} {effect}: {named}."
                )
