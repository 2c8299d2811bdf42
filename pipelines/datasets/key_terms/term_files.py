"""Your own documents with their key terms: texts with a list of terms, or columns of tags."""

from pathlib import Path

import tensorflow as tf

from unroll.pipelines.datasets.key_terms.base import LABEL
from unroll.pipelines.datasets.own_files import named, refuse_other_splits
from unroll.pipelines.datasets.sentiment.text_files import read_table
from unroll.pipelines.datasets.tagging.base import Examples
from unroll.pipelines.datasets.tagging.tagged_files import SPLITS, TaggedFiles, tagged_files
from unroll.pipelines.errors import DataError, report_once
from unroll.pipelines.tagging import normalize_words, split_words

SUFFIXES = (".tsv", ".csv")
COLUMNS = ("text", "terms")
_BATCH = 256  # texts that are split at a time


class TermFiles(TaggedFiles, skip_registration=True):
    """Documents from a folder: `train.tsv` (or `.csv`), or files of tags as `TaggedFiles` reads.

    A table has the columns `text` and `terms`, with semicolons between the terms. All mentions of a
    term in its text are tagged, whatever their case, the longest terms first. Terms that a text
    does not have are counted and printed. `valid` (or `dev`) and `test` are optional. Without
    `valid`, a tenth of the documents is held out, equal ones together.

    Args:
        folder: the folder of the files.
        tag_first: of files of columns, as in `TaggedFiles`.

    Raises:
        DataError: one line that names the file and the line.
    """

    EXAMPLES = "documents"

    def find_files(self, folder: Path) -> dict[str, list[Path]]:
        files = {}
        for split, names in SPLITS.items():
            paths = [folder / (name + suffix) for name in names for suffix in SUFFIXES]
            paths = [path for path in paths if path.is_file()]
            if len(paths) > 1:
                raise DataError(
                    f"{folder} has {split} twice, {paths[0]} and {paths[1]}: remove one."
                )
            if paths:
                files[split] = paths
        if not files:
            try:
                return tagged_files(folder)
            except DataError as error:
                if "has no training data" not in str(error):
                    raise
        if "train" not in files:
            raise DataError(
                f"{folder} has no training data: train.tsv with the columns text and terms, or "
                "train.conll."
            )
        refuse_other_splits(folder, [path for own in files.values() for path in own], SUFFIXES)
        return files

    def read_files(self, paths: list[Path], tag_first: bool) -> Examples:
        if paths[0].suffix in SUFFIXES:
            return read_terms(paths[0])
        return super().read_files(paths, tag_first)

    def would_split(self, words: list[str]) -> list[bool]:
        found, _, _ = split_words(tf.constant(words), documents=True)
        return (found.row_lengths() != 1).numpy().tolist()

    def report_split_words(self, path: Path, examples: Examples) -> None:
        if path.suffix not in SUFFIXES:  # the words of a text are those of `predict`
            super().report_split_words(path, examples)


def read_terms(path: Path) -> Examples:
    """Examples from a table of texts and their terms. Missing terms are printed to standard error.

    Raises:
        DataError: one line that names the file and the line.
    """
    rows = list(read_table(path, COLUMNS))
    lists = [[term for term in row["terms"].split(";") if term.strip()] for _, row in rows]
    texts = _words([row["text"] for _, row in rows])
    terms = iter(_words([term for terms in lists for term in terms]))
    examples: Examples = []
    missing, total = [], 0
    for (line, _), words, own in zip(rows, texts, lists, strict=True):
        if not words:
            raise DataError(f"{path}, line {line}: the text is empty.")
        keys = {term: _folded(next(terms)) for term in own}
        tags, found = _tags(_folded(words), {key for key in keys.values() if key})
        missing += [term.strip() for term, key in keys.items() if key not in found]
        total += len(keys)
        examples.append({"words": words, "tags": tags, "intent": ""})
    if missing:
        report_once(
            f"{path}: {len(missing):,} of {total:,} terms are not in their text, or only inside "
            f"longer ones; they are neither learned nor counted: {named(map(repr, missing))}."
        )
    if rows and not total:
        raise DataError(f"{path}: no text has a term.")
    return examples


def _words(texts: list[str]) -> list[list[str]]:
    """The words of each text."""
    found = []
    for k in range(0, len(texts), _BATCH):
        words, _, _ = split_words(tf.constant(texts[k : k + _BATCH]), documents=True)
        found += [[word.decode() for word in row] for row in words.to_list()]
    return found


def _folded(words: list[str]) -> tuple[str, ...]:
    if not words:
        return ()
    return tuple(word.decode() for word in normalize_words(tf.constant(words)).numpy())


def _tags(words: tuple[str, ...], terms: set[tuple[str, ...]]) -> tuple[list[str], set]:
    """The tags of a document, and the terms that have a mention."""
    lengths = sorted({len(term) for term in terms}, reverse=True)
    tags, found = ["O"] * len(words), set()
    for length in lengths:
        for k in range(len(words) - length + 1):
            span = slice(k, k + length)
            if words[span] in terms and set(tags[span]) == {"O"}:
                tags[span] = [f"B-{LABEL}", *[f"I-{LABEL}"] * (length - 1)]
                found.add(words[span])
    return tags, found
