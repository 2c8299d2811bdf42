"""What the datasets of tagged sentences share: features, file formats, the files of JointBERT."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Builder
from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.errors import DataError

_ADDRESS = (
    "https://raw.githubusercontent.com/monologg/JointBERT/"
    "00324f60dda4a491b2913bc3065ae93966caea3f/data/"
)
PARTS = ("seq.in", "seq.out", "label")  # the files of a split: words, tags, intents


class Tagging(Builder, skip_registration=True):
    """Words, their BIO tags, and an intent. The intent is empty if a dataset has no intents."""

    FEATURES: ClassVar = {
        "words": tfds.features.Sequence(tf.string),
        "tags": tfds.features.Sequence(tf.string),
        "intent": tf.string,
    }


class JointBert(Tagging, skip_registration=True):
    """A dataset with the splits of Goo et al. 2018, from the repository of JointBERT.

    A subclass sets the folder of the dataset, and by split the checksums of the files `PARTS`.
    """

    FOLDER = ""
    SHA256: dict[str, tuple[str, str, str]]

    def _split_generators(self, dl_manager):
        paths = {}
        for split, folder in (("train", "train"), ("valid", "dev"), ("test", "test")):
            names = [f"{folder}/{part}" for part in PARTS]
            paths[split] = [
                find(
                    Source(self.FOLDER, name, f"{_ADDRESS}{self.FOLDER}/{name}", sha256),
                    dl_manager,
                    self.manual_dir,
                )
                for name, sha256 in zip(names, self.SHA256[split], strict=True)
            ]
        return {split: self._generate_examples(*files) for split, files in paths.items()}

    def _generate_examples(self, words: Path, tags: Path, intents: Path):
        yield from read_lines(words, tags, intents)


def read_lines(words: Path, tags: Path, intents: Path | None) -> Iterator[tuple[int, dict]]:
    """Examples, with their line numbers, from parallel files with one sentence per line.

    Raises:
        DataError: one line that names the file and the line.
    """
    columns = [_lines(words), _lines(tags), _lines(intents) if intents else itertools.repeat("")]
    rows = itertools.zip_longest(*columns) if intents else itertools.zip_longest(*columns[:2])
    for row, (sentence, tag_line, *rest) in enumerate(rows, start=1):
        for path, line in zip((words, tags, intents), (sentence, tag_line, *rest), strict=False):
            if line is None:
                raise DataError(f"{path} ends before line {row}, but {words} or another does not.")
        example = {
            "words": sentence.split(),
            "tags": tag_line.split(),
            "intent": rest[0].strip() if rest else "",
        }
        if not example["words"]:
            raise DataError(f"{words}, line {row}: no words.")
        if len(example["words"]) != len(example["tags"]):
            raise DataError(
                f"{tags}, line {row}: {len(example['tags'])} tags for {len(example['words'])} "
                f"words of {words.name}."
            )
        if intents and not example["intent"]:
            raise DataError(f"{intents}, line {row}: no intent.")
        yield row, {**example, "tags": to_bio(example["tags"], f"{tags}, line {row}")}


def read_columns(path: Path, tag_first: bool = False) -> Iterator[tuple[int, dict]]:
    """Examples, with the line numbers of their first words, from columns as in CoNLL's tasks.

    A line has a word in its first column and the tag in its last (or the other way round). An empty
    line or a `-DOCSTART-` line ends a sentence.

    Raises:
        DataError: one line that names the file and the line.
    """
    words, tags, first = [], [], 1
    for row, line in enumerate([*_lines(path), ""], start=1):
        fields = line.split()
        if fields and "-DOCSTART-" not in fields:
            if len(fields) < 2:
                raise DataError(f"{path}, line {row}: a line is a word and a tag, got {line!r}.")
            word, tag = (fields[-1], fields[0]) if tag_first else (fields[0], fields[-1])
            first = row if not words else first
            words.append(word)
            tags.append(tag)
        elif words:
            tags = to_bio(tags, f"{path}, line", first)
            yield first, {"words": words, "tags": tags, "intent": ""}
            words, tags = [], []


def to_bio(tags: list[str], location: str, first: int | None = None) -> list[str]:
    """Converts BIO or IOBES tags to BIO, and checks them.

    Args:
        tags: the tags of one sentence.
        location: where the tags are, for errors.
        first: the line of the first tag, if each tag has a line of its own.

    Raises:
        DataError: for another tag, or a transition that BIO does not allow.
    """
    converted, previous = [], "O"
    for k, tag in enumerate(tags):
        at = location if first is None else f"{location} {first + k}"
        prefix, _, name = tag.partition("-")
        if tag != "O" and (prefix not in ("B", "I", "E", "S") or not name):
            raise DataError(f"{at}: the tag {tag!r} is not one of BIO or IOBES (O, B-x, I-x).")
        if tag != "O":
            tag = ("B-" if prefix in "BS" else "I-") + name
        if tag.startswith("I-") and previous[2:] != name:
            raise DataError(f"{at}: {tag!r} follows {previous!r}, not B-{name} or I-{name}.")
        converted.append(tag)
        previous = tag
    return converted


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {row}: not UTF-8 (byte {error.start}).") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]
