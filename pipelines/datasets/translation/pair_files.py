"""Your own pairs: a table, one file for each language, or dialogs."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.own_files import (
    hold_out_equal,
    refuse_other_splits,
    report_repeated,
)
from unroll.pipelines.datasets.sentiment.text_files import folded, read_table
from unroll.pipelines.datasets.translation.base import Pairs, pair, replies
from unroll.pipelines.errors import DataError, report_once
from unroll.pipelines.lines import read_text, split_lines, split_words

SPLITS = ("train", "valid", "test")
TABLES = (".tsv", ".csv")
DIALOGS = (".txt",)
COLUMNS = ("source", "target")
_LANGUAGE = re.compile(r"\w[\w-]*")

# A pair of sentences, or the turns of a dialog.
Row = tuple[str, ...]


@dataclass
class _Folder(tfds.core.BuilderConfig):
    rows: dict[str, list[Row]] = field(default_factory=dict, repr=False)


class PairFiles(Pairs, skip_registration=True):
    """Pairs or dialogs from a folder, in one of three layouts.

    - `train.tsv` (or `.csv`), with the columns `source` and `target`.
    - `train.de` and `train.en`, if `source` is `de` and `target` is `en`: each line of one file is
      the translation of that line of the other.
    - `train.txt`, dialogs: a turn on each line, and an empty line between two dialogs.

    `valid` and `test` are optional. Without `valid`, a tenth of the pairs or dialogs is held out,
    those with equal sources, or equal dialogs, together.

    Args:
        folder: the folder of the files.
        source, target: what the names of the files of the two languages end in.
        history: the number of turns of a dialog before a reply.

    Raises:
        DataError: one line that names the file and the line.
    """

    SPLITS = ()

    def __init__(
        self,
        folder: str | Path,
        *,
        source: str = "",
        target: str = "",
        history: int = 1,
        **kwargs,
    ):
        folder = Path(folder)
        suffixes = _suffixes(folder, source, target)
        self.dialogs = suffixes == DIALOGS
        if history > 1 and not self.dialogs:
            raise DataError(f"{folder} has no dialogs: history must be 1, got {history}.")
        files = _files(folder, suffixes)
        read = read_dialogs if self.dialogs else read_pairs
        rows = {split: read(*paths) for split, paths in files.items()}
        groups = {
            split: [tuple(map(folded, row if self.dialogs else row[:1])) for row in own]
            for split, own in rows.items()
        }
        what = "dialogs" if self.dialogs else "pairs"
        if "valid" in rows:
            report_repeated(what if self.dialogs else "sources", groups)
        else:
            out = hold_out_equal(
                groups["train"],
                files["train"][0],
                examples=what,
                add=" and ".join(f"valid{path.suffix}" for path in files["train"]),
                labels=[()] * len(rows["train"]),
            )
            pairs = [*zip(rows["train"], out, strict=True)]
            rows["valid"] = [row for row, held in pairs if held]
            rows["train"] = [row for row, held in pairs if not held]
        content = repr((self.dialogs and history, sorted(rows.items())))
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        super().__init__(history=history, config=_Folder(name=digest, rows=rows), **kwargs)

    def _split_generators(self, dl_manager):
        return {split: self._examples(rows) for split, rows in self.builder_config.rows.items()}

    def _examples(self, rows: list[Row]):
        if self.dialogs:
            examples = (each for turns in rows for each in replies(turns, self.history))
        else:
            examples = (pair(*row) for row in rows)
        yield from self._generate_examples(examples)


def _suffixes(folder: Path, source: str, target: str) -> tuple[str, ...]:
    """What the names of the files end in."""
    if source or target:
        for language in (source, target):
            if not _LANGUAGE.fullmatch(language):
                raise DataError(
                    f"{folder}: source and target are what the names of two files end in, such as "
                    f"de and en for train.de and train.en, got {source!r} and {target!r}."
                )
        if source == target:
            raise DataError(f"{folder}: source and target are the same, {source!r}.")
        return f".{source}", f".{target}"
    layouts = [
        suffixes
        for suffixes in (*((suffix,) for suffix in TABLES), DIALOGS)
        if (folder / f"train{suffixes[0]}").is_file()
    ]
    if len(layouts) > 1:
        first, second = (f"train{suffixes[0]}" for suffixes in layouts[:2])
        raise DataError(f"{folder} has both {first} and {second}: remove one.")
    if not layouts:
        others = [path.suffix[1:] for path in sorted(folder.glob("train.*"))]
        if len(others) > 1:
            raise DataError(
                f"{folder} has train in {', '.join(others)}: choose two of them with source and "
                "target."
            )
        raise DataError(
            f"{folder} has no training data: train.tsv with the columns source and target, "
            "train.txt with dialogs, or a file for each of two languages, such as train.de and "
            "train.en, with source and target."
        )
    return layouts[0]


def _files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """The files of each split, one for each suffix."""
    files = {}
    for split in SPLITS:
        paths = [folder / (split + suffix) for suffix in suffixes]
        missing = [path for path in paths if not path.is_file()]
        if missing and (split == "train" or len(missing) < len(paths)):
            raise DataError(f"{missing[0]}: there is no such file.")
        if not missing:
            files[split] = paths
    used = [path for paths in files.values() for path in paths]
    if suffixes[0] not in TABLES + DIALOGS:  # files of other languages may be there
        used += [path for path in folder.iterdir() if path.suffix not in suffixes]
    refuse_other_splits(folder, used, suffixes)
    return files


def read_pairs(path: Path, other: Path | None = None) -> list[Row]:
    """The pairs of a table, or of two files with a sentence on each line.

    Lines that are empty in both files are counted and printed to standard error.

    Raises:
        DataError: one line that names the file and the line, if a side is empty, or the files have
            different numbers of lines.
    """
    if other is None:
        numbered = [(line, row["source"], row["target"]) for line, row in read_table(path, COLUMNS)]
    else:
        numbered = _aligned(path, other)
    rows = []
    for line, *sides in numbered:
        for at, side, name in zip((path, other or path), sides, COLUMNS, strict=True):
            if not split_words(side):
                raise DataError(f"{at}, line {line}: the {name} is empty.")
        rows.append(tuple(side.strip() for side in sides))
    if not rows:
        raise DataError(f"{path} has no pairs.")
    return rows


def _aligned(path: Path, other: Path) -> list[tuple[int, str, str]]:
    """The number and both sides of each pair of lines."""
    first, second = (split_lines(read_text(each)) for each in (path, other))
    if len(first) != len(second):
        longer = path if len(first) > len(second) else other
        count = min(len(first), len(second))
        raise DataError(
            f"{longer}, line {count + 1}: the line has no partner; {path} has {len(first):,} "
            f"lines, and {other} has {len(second):,}."
        )
    pairs = [*zip(first, second, strict=True)]
    kept = [(k, *sides) for k, sides in enumerate(pairs, start=1) if any(map(split_words, sides))]
    if empty := len(pairs) - len(kept):
        report_once(f"{path} and {other}: {empty:,} lines that are empty in both are skipped.")
    return kept


def read_dialogs(path: Path) -> list[Row]:
    """The dialogs of a file, each the tuple of its turns.

    Raises:
        DataError: one line that names the file and the line, if a dialog has one turn.
    """
    dialogs: list[Row] = []
    turns: list[str] = []
    for number, line in enumerate([*split_lines(read_text(path)), ""], start=1):
        if split_words(line):
            turns.append(line.strip())
        elif len(turns) == 1:
            raise DataError(f"{path}, line {number - 1}: a dialog of one turn has no reply.")
        elif turns:
            dialogs.append(tuple(turns))
            turns = []
    if not dialogs:
        raise DataError(f"{path} has no dialogs.")
    return dialogs
