"""Your own labeled texts: a folder of train, valid and test files."""

import csv
import hashlib
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.sentiment.base import TextClassification
from unroll.pipelines.errors import DataError

SPLITS = ("train", "valid", "test")
SUFFIXES = (".tsv", ".csv", ".jsonl")
COLUMNS = ("text", "label")


@dataclass
class _Folder(tfds.core.BuilderConfig):
    files: dict[str, Path] = field(default_factory=dict)


class TextFiles(TextClassification, skip_registration=True):
    """Texts and labels from files with the columns `text` and `label`.

    `train` is required, `valid` and `test` are optional. A file ends in .tsv or .csv and has a
    header, or in .jsonl and has one object per line. The files are read again when they change.

    Args:
        folder: the folder of the files.

    Raises:
        DataError: one line that names the file and the row.
    """

    def __init__(self, folder: str | Path, **kwargs):
        folder = Path(folder)
        files = _files(folder)
        labels = {split: {row["label"]: n for n, row in _rows(p)} for split, p in files.items()}
        for split, rows in labels.items():
            for label, row in rows.items():
                if label not in labels["train"]:
                    raise DataError(
                        f"{files[split]}, row {row}: the training split has no label {label!r}; "
                        f"it has {', '.join(sorted(labels['train']))}."
                    )
        if len(labels["train"]) < 2:
            raise DataError(
                f"{files['train']}: all rows have the same label; at least two are needed."
            )
        self.LABELS = tuple(sorted(labels["train"]))
        digest = hashlib.sha256()
        for split, path in files.items():
            digest.update(f"{split} {path.suffix} ".encode() + path.read_bytes())
        config = _Folder(name=digest.hexdigest()[:16], files=files)
        super().__init__(config=config, **kwargs)

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(path)
            for split, path in self.builder_config.files.items()
        }

    def _generate_examples(self, path: Path):
        yield from _rows(path)


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
    return files


def _rows(path: Path) -> Iterator[tuple[int, dict]]:
    """The rows of a file, checked, with their line numbers."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, row {row}: not UTF-8 (byte {error.start}).") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    reader = _objects if path.suffix == ".jsonl" else _table
    empty = True
    for row, example in reader(path, text):
        for column in COLUMNS:
            if column not in example:
                raise DataError(
                    f"{path}, row {row}: no column {column!r}; it has {', '.join(example)}."
                )
        content, label = example["text"], example["label"]
        if not isinstance(content, str):
            raise DataError(f"{path}, row {row}: the text is not a string.")
        if isinstance(label, bool) or not isinstance(label, str | int | float):
            raise DataError(f"{path}, row {row}: the label is neither a string nor a number.")
        label = str(label).strip()
        if not label or len(label.splitlines()) > 1:
            raise DataError(f"{path}, row {row}: the label is empty or has several lines.")
        try:
            f"{content}{label}".encode()
        except UnicodeEncodeError:  # "\ud83d" in JSON without its second half
            raise DataError(f"{path}, row {row}: an unpaired surrogate.") from None
        empty = False
        yield row, {"text": content, "label": label}
    if empty:
        raise DataError(f"{path} has no rows.")


def _objects(path: Path, text: str):
    for row, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            example = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, row {row}: not JSON ({error.msg}).") from None
        if not isinstance(example, dict):
            raise DataError(f"{path}, row {row}: not a JSON object.")
        yield row, example


def _table(path: Path, text: str):
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    lines = io.StringIO(text, newline="")
    # Quotes have no meaning in a tab-separated file: a text may begin with one.
    if path.suffix == ".tsv":
        table = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        table = csv.reader(lines, strict=True)
    start = 1
    header = None
    try:
        for cells in table:
            row, start = start, table.line_num + 1
            if not cells:
                continue
            if header is None:
                header = cells
                missing = [column for column in COLUMNS if column not in header]
                if missing:
                    raise DataError(
                        f"{path}, row {row}: no column {missing[0]!r}; it has {', '.join(header)}."
                    )
                twice = [column for column in COLUMNS if header.count(column) > 1]
                if twice:
                    raise DataError(f"{path}, row {row}: more than one column {twice[0]!r}.")
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{path}, row {row}: {len(cells)} columns, the header has {len(header)}."
                )
            yield row, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, row {start}: {error}.") from None
