"""Your own tagged sentences: a folder in one of two layouts."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.own_files import (
    hold_out_equal,
    named,
    refuse_other_splits,
    report_repeated,
    report_unseen,
)
from unroll.pipelines.datasets.tagging.base import PARTS, Examples, Tagging, read_lines
from unroll.pipelines.datasets.tagging.columns import read_columns
from unroll.pipelines.errors import DataError, report_once
from unroll.pipelines.tagging import split_word

SPLITS = {"train": ("train",), "valid": ("valid", "dev"), "test": ("test",)}
SUFFIXES = (".conll", ".conllu", ".txt")


@dataclass
class _Folder(tfds.core.BuilderConfig):
    rows: dict[str, Examples] = field(default_factory=dict, repr=False)


class TaggedFiles(Tagging, skip_registration=True):
    """Sentences from a folder: `train/{seq.in,seq.out,label}`, or `train.conll` (or `.txt`).

    In the first layout, each line of the three files has the words, the tags and the intent of a
    sentence; `label` is optional. In the second, a line has a word and its tag, and an empty line
    ends a sentence. Tags are BIO, IOB1, IOBES, BILOU or BMES; they are converted to BIO. `valid`
    (or `dev`) and `test` are optional. Without `valid`, a tenth of the training sentences is held
    out, equal sentences together.

    Args:
        folder: the folder of the files.
        tag_first: whether the tag is in the first column instead of the last.

    Raises:
        DataError: one line that names the file and the line.
    """

    SPLITS = ()
    EXAMPLES = "sentences"

    def __init__(self, folder: str | Path, tag_first: bool = False, **kwargs):
        files = self.find_files(Path(folder))
        rows = {}
        for split, paths in files.items():
            read = self.read_files(paths, tag_first)
            if not read:
                raise DataError(f"{paths[0]} has no {self.EXAMPLES} ({split}).")
            rows[split] = read
            self.report_split_words(paths[0], read)
        groups = {split: [tuple(e["words"]) for e in own] for split, own in rows.items()}
        if "valid" in rows:
            report_repeated(self.EXAMPLES, groups)
        else:
            train = files["train"][0]
            out = hold_out_equal(
                groups["train"],
                train,
                examples=self.EXAMPLES,
                add=f"valid{train.suffix}" if len(files["train"]) == 1 else "a folder valid",
                labels=[{e["intent"], *e["tags"]} for e in rows["train"]],
            )
            pairs = [*zip(rows["train"], out, strict=True)]
            rows["valid"] = [row for row, held in pairs if held]
            rows["train"] = [row for row, held in pairs if not held]
        others = {str(files[split][0]): rows[split] for split in files if split != "train"}
        intents = {path: [e["intent"] for e in own] for path, own in others.items()}
        report_unseen("intents", {e["intent"] for e in rows["train"]}, intents)
        tags = {path: [tag for e in own for tag in e["tags"]] for path, own in others.items()}
        report_unseen("tags", {"O"} | {tag for e in rows["train"] for tag in e["tags"]}, tags)
        digest = hashlib.sha256(repr(sorted(rows.items())).encode("utf-8", "surrogatepass"))
        super().__init__(config=_Folder(name=digest.hexdigest()[:16], rows=rows), **kwargs)

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(rows) for split, rows in self.builder_config.rows.items()
        }

    def _generate_examples(self, rows: Examples):
        yield from enumerate(rows)

    def find_files(self, folder: Path) -> dict[str, list[Path]]:
        """The files of each split."""
        return tagged_files(folder)

    def read_files(self, paths: list[Path], tag_first: bool) -> Examples:
        """The examples of a split."""
        if len(paths) == 1:
            return read_columns(paths[0], tag_first)
        return read_lines(paths[0], paths[1], paths[2] if len(paths) > 2 else None)

    def would_split(self, words: list[str]) -> list[bool]:
        """Whether the tokenizer of `predict` would split each of the words."""
        return [split_word(word) != [word] for word in words]

    def report_split_words(self, path: Path, examples: Examples) -> None:
        """Reports the words that the tokenizer of `predict` would split."""
        words = [word for example in examples for word in example["words"]]
        split = [
            word for word, is_split in zip(words, self.would_split(words), strict=True) if is_split
        ]
        if split:
            report_once(
                f"{path}: {len(split):,} of {len(words):,} words contain spaces or punctuation at "
                f"which `predict` splits a text: {named(map(repr, split))}."
            )


def tagged_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each split of a folder, in the first or the second layout."""
    files = {}
    for split, names in SPLITS.items():
        layouts = [_parts(folder / name) for name in names if (folder / name).is_dir()]
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
    refuse_other_splits(folder, [path for own in files.values() for path in own], SUFFIXES)
    return files


def _parts(folder: Path) -> list[Path]:
    """The files of a split in the first layout."""
    paths = [folder / part for part in PARTS if (folder / part).is_file()]
    missing = {"seq.in", "seq.out"} - {path.name for path in paths}
    if missing:
        raise DataError(f"{folder} has no {' and no '.join(sorted(missing))}.")
    others = [path for path in sorted(folder.iterdir()) if path.is_file() and path not in paths]
    for path in others:
        meant = next((part for part in PARTS if path.name.casefold().startswith(part)), None)
        if path.stem.casefold() in ("labels", "intent", "intents"):
            meant = "label"
        if meant:
            raise DataError(f"{path} is not read: name the file {meant}, or move it away.")
    if others := [path.name for path in others if not path.name.startswith(".")]:
        report_once(f"{folder}: {len(others)} other files are not read: {named(others)}.")
    return paths
