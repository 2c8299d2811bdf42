"""What the datasets of tagged sentences share: features, file formats, the files of JointBERT."""

from pathlib import Path
from typing import ClassVar

import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Builder
from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.datasets.tagging.schemes import to_bio
from unroll.pipelines.errors import DataError
from unroll.pipelines.lines import read_text, split_lines, split_words

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
        yield from enumerate(read_lines(words, tags, intents))


Examples = list[dict]  # of the features of `Tagging`


def read_lines(words: Path, tags: Path, intents: Path | None) -> Examples:
    """Examples from parallel files with one sentence per line. Blank lines at the end are ignored.

    Raises:
        DataError: one line that names the file and the line.
    """
    paths = [words, tags, *([intents] if intents else [])]
    columns = {path: _without_blank_end(split_lines(read_text(path))) for path in paths}
    shortest, longest = (f(paths, key=lambda path: len(columns[path])) for f in (min, max))
    if len(columns[shortest]) != len(columns[longest]):
        raise DataError(
            f"{longest} has {len(columns[longest])} lines, but {shortest} has "
            f"{len(columns[shortest])}: a line is a sentence in both."
        )
    examples, lines = [], []
    for line, (sentence, tag_line, *intent) in enumerate(
        zip(*columns.values(), strict=True), start=1
    ):
        example = {
            "words": split_words(sentence),
            "tags": split_words(tag_line),
            "intent": intent[0].strip() if intent else "",
        }
        if not example["words"]:
            raise DataError(f"{words}, line {line}: no words.")
        if len(example["words"]) != len(example["tags"]):
            raise DataError(
                f"{tags}, line {line}: {len(example['tags'])} tags for {len(example['words'])} "
                f"words of {words.name}."
            )
        if intents and not example["intent"]:
            raise DataError(f"{intents}, line {line}: no intent.")
        examples.append(example)
        lines.append([line] * len(example["tags"]))
    return in_bio(tags, examples, lines)


def _without_blank_end(lines: list[str]) -> list[str]:
    while lines and not split_words(lines[-1]):
        lines.pop()
    return lines


def in_bio(path: Path, examples: Examples, lines: list[list[int]]) -> Examples:
    """The examples of a file with their tags converted to BIO. `lines` are those of the tags."""
    converted = to_bio(path, [example["tags"] for example in examples], lines)
    return [{**example, "tags": tags} for example, tags in zip(examples, converted, strict=True)]
