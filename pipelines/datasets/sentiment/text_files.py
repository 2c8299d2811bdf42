"""Your own labeled texts: a folder of train, valid and test files."""

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
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
from unroll.pipelines.datasets.sentiment.base import TextClassification
from unroll.pipelines.errors import DataError, report_once
from unroll.pipelines.lines import read_json_lines, read_rows, split_words

SPLITS = ("train", "valid", "test")
SUFFIXES = (".tsv", ".csv", ".jsonl")
COLUMNS = ("text", "label")
UNSEEN = -1  # the id of a label that the training split does not have
_WHOLE = re.compile(r"[+-]?\d+\.0+")

Rows = list[tuple[str, str]]  # texts and labels


@dataclass
class _Folder(tfds.core.BuilderConfig):
    rows: dict[str, Rows] = field(default_factory=dict, repr=False)


class TextFiles(TextClassification, skip_registration=True):
    """Texts and labels from files with the columns `text` and `label`.

    `train` is required. Without `valid`, a tenth of the training texts is held out, equal texts
    together. A file ends in .tsv or .csv and has a header, or in .jsonl and has one object per
    line. The files are read again when they change.

    A label is a string or a number. A number is written without a fraction of zero, in all formats:
    1, 1.0, "1" and "1.0" are the same label. The labels are those of the training split. The id of
    any other label is -1.

    Args:
        folder: the folder of the files.

    Raises:
        DataError: one line that names the file and the line.
    """

    SPLITS = ()

    def __init__(self, folder: str | Path, **kwargs):
        files = _files(Path(folder))
        rows = {split: read_texts(path) for split, path in files.items()}
        if len({label for _, label in rows["train"]}) < 2:
            raise DataError(
                f"{files['train']}: all rows have the same label; at least two are needed."
            )
        groups = {split: [folded(text) for text, _ in own] for split, own in rows.items()}
        if "valid" in rows:
            report_repeated("texts", groups)
        else:
            out = hold_out_equal(
                groups["train"],
                files["train"],
                examples="texts",
                add=f"valid{files['train'].suffix}",
                labels=[(label,) for _, label in rows["train"]],
            )
            pairs = [*zip(rows["train"], out, strict=True)]
            rows["valid"] = [row for row, held in pairs if held]
            rows["train"] = [row for row, held in pairs if not held]
        self.LABELS = tuple(sorted({label for _, label in rows["train"]}))
        others = {str(files[s]): [label for _, label in rows[s]] for s in files if s != "train"}
        report_unseen("labels", self.LABELS, others)
        digest = hashlib.sha256(repr(sorted(rows.items())).encode("utf-8", "surrogatepass"))
        config = _Folder(name=digest.hexdigest()[:16], rows=rows)
        super().__init__(config=config, **kwargs)

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(rows) for split, rows in self.builder_config.rows.items()
        }

    def _generate_examples(self, rows: Rows):
        ids = {label: k for k, label in enumerate(self.LABELS)}
        for number, (text, label) in enumerate(rows):
            yield number, {"text": text, "label": ids.get(label, UNSEEN)}


def folded(text: str) -> str:
    """A text without differences of case and white space: texts of which it is equal are equal."""
    return " ".join(split_words(text.casefold()))


def _files(folder: Path) -> dict[str, Path]:
    files = {}
    for alias, suffix in itertools.product(("dev", "val", "validation"), SUFFIXES):
        if (folder / (alias + suffix)).is_file():
            raise DataError(f"{folder / (alias + suffix)}: rename the file to valid{suffix}.")
    for split in SPLITS:
        paths = [folder / (split + s) for s in SUFFIXES if (folder / (split + s)).is_file()]
        if len(paths) > 1:
            raise DataError(f"{folder} has both {paths[0].name} and {paths[1].name}: remove one.")
        if paths:
            files[split] = paths[0]
    if "train" not in files:
        names = ", ".join("train" + s for s in SUFFIXES)
        raise DataError(f"{folder} has no training data: one of {names}.")
    refuse_other_splits(folder, files.values(), SUFFIXES)
    return files


def read_texts(path: Path) -> Rows:
    """The texts and labels of a file. What is converted or not read is printed to standard error.

    Raises:
        DataError: one line that names the file and the line.
    """
    rows, converted = [], Counter()
    for line, example in _objects(path) if path.suffix == ".jsonl" else read_table(path, COLUMNS):
        if not isinstance(example["text"], str):
            raise DataError(f"{path}, line {line}: the text is not a string.")
        label = _label(example["label"], f"{path}, line {line}")
        if label != str(example["label"]).strip():
            converted[f"{example['label']} as {label}"] += 1
        rows.append((example["text"], label))
    if not rows:
        raise DataError(f"{path} has no rows.")
    if converted:
        report_once(
            f"{path}: {converted.total():,} labels are read as numbers: {named(converted)}."
        )
    missing = {label for _, label in rows if label.casefold() == "nan"}
    if missing and all(_is_number(label) for _, label in rows if label not in missing):
        raise DataError(f"{path}: {missing.pop()!r} stands for a missing label; remove these rows.")
    return rows


def _is_number(label: str) -> bool:
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False


def _label(value, at: str) -> str:
    """A label as a string, the same for numbers that are equal."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{at}: the label is neither a string nor a number.")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DataError(f"{at}: the label is {value}, not a string or a number.")
        return str(int(value) if value.is_integer() else value)
    label = str(value).strip()
    if not label or len(label.splitlines()) > 1:
        raise DataError(f"{at}: the label is empty or has several lines.")
    return str(int(float(label))) if _WHOLE.fullmatch(label) else label


def _objects(path: Path) -> Iterator[tuple[int, dict]]:
    """The objects of a file, with their lines."""
    others = Counter()
    for line, example in read_json_lines(path):
        if not isinstance(example, dict):
            raise DataError(f"{path}, line {line}: not a JSON object.")
        for column in COLUMNS:
            if column not in example:
                raise DataError(
                    f"{path}, line {line}: no column {column!r}; it has {', '.join(example)}."
                )
        others.update(example.keys() - set(COLUMNS))
        yield line, example
    _report_other_columns(path, sorted(others))


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict]]:
    """The rows of a .tsv or .csv file with a header, as objects, with their lines.

    Args:
        path: the file.
        columns: those that the header must have. Others are counted and printed.

    Raises:
        DataError: one line that names the file and the line.
    """
    header, empty = None, 0
    for line, cells in read_rows(path, "\t" if path.suffix == ".tsv" else ","):
        if header is None:
            header = [cell.strip() for cell in cells]
            for column in columns:
                if column not in header:
                    raise DataError(
                        f"{path}, line {line}: no column {column!r}; it has {', '.join(header)}."
                    )
                if header.count(column) > 1:
                    raise DataError(f"{path}, line {line}: more than one column {column!r}.")
            _report_other_columns(path, [name for name in header if name not in columns])
        elif not any(cell.strip() for cell in cells):
            empty += 1
        elif len(cells) != len(header):
            raise DataError(
                f"{path}, line {line}: {len(cells)} columns, the header has {len(header)}."
            )
        else:
            yield line, dict(zip(header, cells, strict=True))
    if empty:
        report_once(f"{path}: {empty:,} rows without any content are skipped.")


def _report_other_columns(path: Path, names: list[str]) -> None:
    if names:
        report_once(f"{path}: {len(names)} other columns are not read: {named(map(repr, names))}.")
