"""Sentences with a tag for each word and an intent: what such datasets share, ATIS and SNIPS."""

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
PARTS = ("seq.in", "seq.out", "label")


class Tagging(Builder, skip_registration=True):
    """Words, their BIO tags, and an intent, which is empty where a dataset has none."""

    FEATURES: ClassVar = {
        "words": tfds.features.Sequence(tf.string),
        "tags": tfds.features.Sequence(tf.string),
        "intent": tf.string,
    }


class _JointBert(Tagging, skip_registration=True):
    """The splits of Goo et al. 2018, as JointBERT has them."""

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


class Atis(_JointBert, skip_registration=True):
    """ATIS: 4,478 / 500 / 893 questions about flights, 120 tags, 21 intents in training.

    Of the tags of the test split six, of its intents four, do not occur in training.
    """

    CITATION = "Hemphill, Godfrey and Doddington 1990; splits of Goo et al. 2018"
    FOLDER = "atis"
    SHA256 = {
        "train": (
            "3a670980841b21ab39088b2595efc17d487cdc45769c075a3e5f9458bba28c7f",
            "14c7131bd66562f797dbd7189bc7358f0cf354c6afb0785a9ab973c35b58f34c",
            "d0a771547665eecbdf9f96ea015ef07d1f6ee9f063e861020dafabb3c2a04377",
        ),
        "valid": (
            "c7435b96e7948393608c34819628e863c5338f11ca68e8f896d2cc041d8e17f8",
            "83ccff3e36f83a993f8e5b5b82adf3256076f234abda4d784051381d7ac76922",
            "06957cfe6fdffac84f8280bc3a1f8ca85c85631b363817aa4543aac611f8addf",
        ),
        "test": (
            "4b2119fc59c37f9398c6605db435d4f467505009e6ee3e5af04fed09f39dc397",
            "a4690d6bceadc06876d1ff99bc401744aa981cb321e598ae12a3859d7be53254",
            "ce4bfe6590d9498e1078f30b4137d3e8b3e94277b444b26360c0bf2e9e282761",
        ),
    }


class Snips(_JointBert, skip_registration=True):
    """SNIPS: 13,084 / 700 / 700 commands to an assistant, 72 tags, 7 intents."""

    CITATION = "Coucke et al. 2018, Snips voice platform; splits of Goo et al. 2018"
    FOLDER = "snips"
    SHA256 = {
        "train": (
            "04ad1e3f2121d83c6478f9a4b17d2dbdc21d06d6127f73cb7af835ed733f9855",
            "fd5f2121d8055827e5d6b3d3bac30f3d7e94e82a5d437751960cbdd9e1b4f6d3",
            "bfd7df6cf9dd76c5da5d8b61bc85f90386197bdd3d7510c1d324c051537b962f",
        ),
        "valid": (
            "64e0f6d8ad8aab3a3828164d7d53731a0993d3ca1aed437ceaca6d3d568d410e",
            "712e6d34feb8d52d208b820a5f8bae6e6ff990f08374507dfde22de389088319",
            "9c1dd041216f647bcfca838aaf1a48eb5781e4404256d31ff07cd38a5436c52f",
        ),
        "test": (
            "c1e341173fcea2951a8ca371956a6f81c76de87b9583c62eb87edd6158fa3a7c",
            "58c07c9097d5e1f78889765c2a535a160f6455b90b3142055c8051847afcca47",
            "37a26da3ad079bb41c42c85a3a8f827eb47efec4c5917ce5d08f4b2736e4f830",
        ),
    }


def read_lines(words: Path, tags: Path, intents: Path | None) -> Iterator[tuple[int, dict]]:
    """Examples with their line numbers from files of a sentence a line.

    Raises:
        DataError: one line that names the file and the line.
    """
    columns = [_lines(words), _lines(tags), _lines(intents) if intents else itertools.repeat("")]
    rows = itertools.zip_longest(*columns) if intents else itertools.zip_longest(*columns[:2])
    for row, (sentence, tagged, *rest) in enumerate(rows, start=1):
        for path, line in zip((words, tags, intents), (sentence, tagged, *rest), strict=False):
            if line is None:
                raise DataError(f"{path} ends before line {row}, which {words} or another has.")
        example = {
            "words": sentence.split(),
            "tags": tagged.split(),
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
    """Examples with the line numbers of their first words from columns as in CoNLL's tasks.

    A line is a word, the word first and its tag last (or the other way round); an empty line ends a
    sentence; `-DOCSTART-` lines count as empty.

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


def to_bio(tags: list[str], where: str, first: int | None = None) -> list[str]:
    """Tags of BIO or IOBES as BIO, checked.

    Args:
        tags: of one sentence.
        where: what an error names.
        first: the line of the first tag, where each has a line of its own.

    Raises:
        DataError: for a tag that is neither, or a move that BIO does not know.
    """
    found, before = [], "O"
    for k, tag in enumerate(tags):
        place = where if first is None else f"{where} {first + k}"
        kind, _, name = tag.partition("-")
        if tag != "O" and (kind not in ("B", "I", "E", "S") or not name):
            raise DataError(f"{place}: the tag {tag!r} is none of BIO or IOBES (O, B-x, I-x).")
        if tag != "O":
            tag = ("B-" if kind in "BS" else "I-") + name
        if tag.startswith("I-") and before[2:] != name:
            raise DataError(f"{place}: {tag!r} follows {before!r}, and not B-{name} or I-{name}.")
        found.append(tag)
        before = tag
    return found


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {row}: not UTF-8 (byte {error.start}).") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]
