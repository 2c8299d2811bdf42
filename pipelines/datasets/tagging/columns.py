"""Files with one word and its tag per line, as in CoNLL's tasks."""

import re
from dataclasses import dataclass
from pathlib import Path

from unroll.pipelines.datasets.tagging.base import Examples, in_bio
from unroll.pipelines.datasets.tagging.schemes import is_tag
from unroll.pipelines.errors import DataError, report_once
from unroll.pipelines.lines import read_text, split_lines, split_words

_DOCUMENT = "-DOCSTART-"
# The numbers of words in CoNLL-U: 4; a range, whose words follow, 4-5; an empty node, 4.1.
_ID = re.compile(r"\d+(?:(-\d+)|(\.\d+))?")
_COMMENT_KEY = re.compile(r"# ?[\w.:-]+ = ")


@dataclass(frozen=True)
class _Row:
    line: int
    fields: list[str]


def read_columns(path: Path, tag_first: bool = False) -> Examples:
    """Examples from a file of columns. What is converted or skipped is printed to standard error.

    A line has a word in its first column and the tag in its last (or the other way round). Tabs
    separate the columns if there are any, otherwise spaces: between tabs, a word may contain
    spaces. An empty line or a `-DOCSTART-` line ends a sentence. As in CoNLL-U, lines that begin
    with `#` before a sentence are comments; if the first column numbers the words, the second has
    the words, and neither ranges (4-5) nor empty nodes (4.1) are read.

    Args:
        path: the file.
        tag_first: whether the tag is in the first column and the word in the last.

    Raises:
        DataError: one line that names the file and the line.
    """
    sentences = _sentences(path, tag_first)
    numbered = not tag_first and _is_numbered(sentences)
    if numbered:
        sentences = _without_ranges(path, sentences)
    word, tag = (-1, 0) if tag_first else (int(numbered), -1)
    examples, lines = [], []
    for rows in sentences:
        for row in rows:
            if not split_words(row.fields[word]):
                raise DataError(f"{path}, line {row.line}: the word is empty.")
        examples.append(
            {
                "words": [row.fields[word] for row in rows],
                "tags": [row.fields[tag] for row in rows],
                "intent": "",
            }
        )
        lines.append([row.line for row in rows])
    return in_bio(path, examples, lines)


def _sentences(path: Path, tag_first: bool) -> list[list[_Row]]:
    """The rows of each sentence, without comments."""
    lines = split_lines(read_text(path))
    has_tabs = any("\t" in line.strip() for line in lines if not line.startswith("#"))
    sentences: list[list[_Row]] = [[]]
    comments, first = 0, None
    for number, line in enumerate(lines, start=1):
        stripped = line.strip("\t ")
        if has_tabs:
            fields = [field.strip(" ") for field in line.strip(" ").split("\t")]
        else:
            fields = re.split("[\t ]+", stripped)
        if not split_words(line) or _DOCUMENT in re.split("[\t ]", stripped):
            sentences.append([])
        elif not sentences[-1] and line.startswith("#") and _is_comment(line, fields, tag_first):
            comments += 1
        else:
            if len(fields) < 2:
                raise DataError(
                    f"{path}, line {number}: a line is a word and a tag"
                    f"{' with a tab between them' if has_tabs else ''}, got {line[:40]!r}."
                )
            first = first or _Row(number, fields)
            if len(fields) != len(first.fields):
                raise DataError(
                    f"{path}, line {number}: {len(fields)} columns, but line {first.line} has "
                    f"{len(first.fields)}."
                )
            sentences[-1].append(_Row(number, fields))
    if comments:
        report_once(f"{path}: {comments:,} lines that begin with # are comments.")
    return [rows for rows in sentences if rows]


def _is_comment(line: str, fields: list[str], tag_first: bool) -> bool:
    """Whether a line that begins with # is a comment, and not the word #."""
    tag = fields[0 if tag_first else -1]
    return len(fields) < 2 or not is_tag(tag) or bool(_COMMENT_KEY.match(line))


def _is_numbered(sentences: list[list[_Row]]) -> bool:
    """Whether the first of three or more columns numbers the words of each sentence."""
    for rows in sentences:
        if len(rows[0].fields) < 3:
            return False
        if not all(_ID.fullmatch(row.fields[0]) for row in rows):
            return False
        own = [row.fields[0] for row in rows if row.fields[0].isdecimal()]
        if own != [str(k) for k in range(1, len(own) + 1)]:
            return False
    return bool(sentences)


def _without_ranges(path: Path, sentences: list[list[_Row]]) -> list[list[_Row]]:
    """The rows of words, without ranges and empty nodes, which are counted."""
    matches = [_ID.fullmatch(row.fields[0]) for rows in sentences for row in rows]
    ranges, nodes = (sum(match[group] is not None for match in matches) for group in (1, 2))
    skipped = (
        f" {ranges:,} ranges and {nodes:,} empty nodes are skipped." if ranges or nodes else ""
    )
    report_once(
        f"{path}: the first column numbers the words, and the second has the words.{skipped}"
    )
    kept = [[row for row in rows if row.fields[0].isdecimal()] for rows in sentences]
    return [rows for rows in kept if rows]
