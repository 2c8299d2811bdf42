"""Schemes of tags: which one a file has, its errors, and the same spans in BIO."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unroll.pipelines.errors import DataError, report_once
from unroll.pipelines.lines import split_words

# What a prefix says of a token: first of a span, inside, last, or a span of one token.
_FIRST, _INSIDE, _LAST, _SINGLE = "B", "IM", "EL", "SUW"
# Schemes with prefixes for the last token of a span and for spans of one token.
_CLOSED = {"IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES", "BMEWO": "BMEW"}
_KNOWN = "BIO, IOB1, IOBES, BILOU or BMES (O, B-x, I-x ...)"


@dataclass(frozen=True)
class Tag:
    """A tag and where it is.

    Attributes:
        line: its line in the file.
        prefix: `O`, or the letter before the hyphen.
        name: what is after the hyphen.
        before: the tag before it in the sentence; `None` at the beginning.
    """

    line: int
    prefix: str
    name: str
    before: "Tag | None"

    def __str__(self) -> str:
        return self.prefix if self.prefix == "O" else f"{self.prefix}-{self.name}"

    @property
    def context(self) -> str:
        """The tag and the one before, for an error."""
        before = "the beginning of a sentence" if self.before is None else f"{str(self.before)!r}"
        return f"{str(self)!r} follows {before}"


def to_bio(
    path: str | Path, sentences: Sequence[Sequence[str]], lines: Sequence[Sequence[int]]
) -> list[list[str]]:
    """Converts the tags of a file to BIO. Another scheme is printed once to standard error.

    The scheme is that of all tags of the file: BIO; IOB1, in which `B-` is only after a span of the
    same name; IOBES, BILOU or BMES, which also mark the last token of a span. The spans of a file
    are the same in all of them.

    Args:
        path: the file, for messages.
        sentences: the tags of each sentence.
        lines: the line of each tag.

    Raises:
        DataError: for a tag that no scheme has, tags of several schemes, or a tag inside a span
            that no tag begins. The message is one line that names the file and the line.
    """
    tags = [_parse(path, *each) for each in zip(sentences, lines, strict=True)]
    prefixes = {tag.prefix for row in tags for tag in row} - {"O"}
    if prefixes <= {"B", "I"}:
        name, begins = _open_scheme(path, tags)
    else:
        name, begins = _closed_scheme(path, tags, prefixes), _begins_closed
        if unclosed := sum(map(_unclosed, tags)):
            report_once(f"{path}: {unclosed:,} spans of {name} have no tag that ends them.")
    if name != "BIO":
        report_once(f"{path} has {name} tags, which are converted to BIO.")
    return [
        ["O" if tag.prefix == "O" else f"{'B' if begins(tag) else 'I'}-{tag.name}" for tag in row]
        for row in tags
    ]


def is_tag(text: str) -> bool:
    """Whether a text has the form of a tag.

    >>> [is_tag(text) for text in ("O", "B-LOC", "Lima", "e-mail", "B-LOC # a city")]
    [True, True, False, False, False]
    """
    prefix, _, name = text.partition("-")
    return text == "O" or (
        len(prefix) == 1
        and prefix in _FIRST + _INSIDE + _LAST + _SINGLE
        and split_words(name) == [name]
    )


def _parse(path, row: Sequence[str], lines: Sequence[int]) -> list[Tag]:
    tags: list[Tag] = []
    for text, line in zip(row, lines, strict=True):
        if not is_tag(text):
            raise DataError(f"{path}, line {line}: the tag {text!r} is not one of {_KNOWN}.")
        prefix, _, name = text.partition("-")
        tags.append(Tag(line, prefix, name, tags[-1] if tags else None))
    return tags


def _open_scheme(path, tags: list[list[Tag]]):
    """BIO or IOB1, and the function that says whether a tag begins a span."""
    each = [tag for row in tags for tag in row if tag.prefix != "O"]
    not_bio = [tag for tag in each if tag.prefix == "I" and not _continues(tag)]
    not_iob1 = [tag for tag in each if tag.prefix == "B" and not _continues(tag)]
    if not not_bio:
        return "BIO", lambda tag: tag.prefix == "B"
    if not not_iob1:
        return "IOB1", lambda tag: tag.prefix == "B" or not _continues(tag)
    wrong, other = not_bio[0], not_iob1[0]
    raise DataError(
        f"{path}, line {wrong.line}: {wrong.context}, not B-{wrong.name} or I-{wrong.name} as in "
        f"BIO. It is not IOB1 either: in line {other.line}, {other.context}."
    )


def _continues(tag: Tag) -> bool:
    """Whether the tag before is of a span of the same name."""
    return tag.before is not None and tag.before.name == tag.name and tag.before.prefix != "O"


def _closed_scheme(path, tags: list[list[Tag]], prefixes: set[str]) -> str:
    """The scheme with tags for the ends of spans, checked."""
    fitting = [name for name, letters in _CLOSED.items() if prefixes <= set(letters)]
    if not fitting:
        first = {tag.prefix: tag for row in reversed(tags) for tag in reversed(row)}
        named = ", ".join(f"{str(first[p])!r} (line {first[p].line})" for p in sorted(prefixes))
        raise DataError(f"{path}: {named} are tags of different schemes; use one of {_KNOWN}.")
    for tag in (tag for row in tags for tag in row):
        opened = _continues(tag) and tag.before.prefix in _FIRST + _INSIDE
        if tag.prefix in _INSIDE + _LAST and not opened:
            raise DataError(
                f"{path}, line {tag.line}: {tag.context}, which {fitting[0]} does not allow."
            )
    return fitting[0]


def _begins_closed(tag: Tag) -> bool:
    return tag.prefix in _FIRST + _SINGLE


def _unclosed(row: list[Tag]) -> int:
    """The number of spans of a sentence without a last token."""
    pairs = zip(row, [*row[1:], None], strict=True)
    return sum(
        tag.prefix in _FIRST + _INSIDE
        and (after is None or after.prefix not in _INSIDE + _LAST or after.name != tag.name)
        for tag, after in pairs
    )
