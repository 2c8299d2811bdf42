"""ARPA files: n-gram language models as text."""

import re
from array import array
from collections.abc import Iterable

import numpy as np

from unroll.layers.structured.ngram_table import InvalidNGramError, NGramTable

# Not all white space: a token may have a no-break space.
_SPACES = " \t\r\n"
_SEPARATOR = re.compile(r"[ \t]+")


def read(lines: Iterable[str], unknown: float, name) -> NGramTable:
    """The table in the lines of an ARPA file.

    Args:
        lines: the lines.
        unknown: the log10 probability of `<unk>` if it has no entry.
        name: the name of the file in error messages.

    Raises:
        ValueError: if a line has another format, with the name and the number of the line.
    """
    declared: dict[int, int] | None = None  # the number of n-grams of each length
    section: _Section | None = None
    table: NGramTable | None = None
    number = 0

    def error(message: str, line: int) -> ValueError:
        return ValueError(f"{name}, line {line}: {message}.")

    def finish() -> NGramTable | None:
        """The table with the section that ends."""
        if section is None:
            return table
        if len(section.lines) != declared[section.n]:
            count = f"{declared[section.n]} {section.n}-grams"
            raise error(f"\\data\\ declares {count}, got {len(section.lines)}", number)
        try:
            return section.added_to(table, unknown)
        except InvalidNGramError as invalid:
            raise error(str(invalid), section.lines[invalid.row]) from None

    for number, line in enumerate(lines, start=1):
        line = line.strip(_SPACES)
        if not line:
            continue
        if section is not None and line[0] != "\\":
            try:
                section.append(line, number)
            except ValueError as invalid:
                raise error(str(invalid), number) from None
        elif declared is None:  # text before \data\ is a comment
            if line == "\\data\\":
                declared = {}
            elif line[0] == "\\":
                raise error(f"expected \\data\\, got {line!r}", number)
        elif line == "\\end\\":
            break
        elif line[0] == "\\" and line.endswith("-grams:"):
            table, n = finish(), _integer(line[1:-7])
            expected = 1 if table is None else len(table.levels) + 1
            if n not in declared:
                raise error(f"{line} is not declared in \\data\\", number)
            if n != expected:
                raise error(f"expected \\{expected}-grams:, got {line}", number)
            section = _Section(n, table)
        else:
            size, _, count = line.removeprefix("ngram ").partition("=")
            if _integer(size) is None or _integer(count) is None:
                raise error(f"expected 'ngram N=COUNT', got {line!r}", number)
            declared[_integer(size)] = _integer(count)
    else:
        raise error("expected \\end\\, got the end of the file", number)
    table = finish()
    expected = 1 if table is None else len(table.levels) + 1
    if table is None or any(n >= expected for n in declared):
        raise error(f"expected \\{expected}-grams:, got \\end\\", number)
    return table


class _Section:
    """The n-grams of one length while they are read."""

    def __init__(self, n: int, table: NGramTable | None):
        self.n = n
        self.known = {} if table is None else table.ids
        self.tokens: list[str] = []  # of unigrams
        self.ids = array("q")  # of longer n-grams
        self.log10, self.back_off = array("d"), array("d")
        self.lines = array("q")

    def append(self, line: str, number: int) -> None:
        """Adds the n-gram of a line."""
        fields = _SEPARATOR.split(line)
        has_back_off = len(fields) == self.n + 2
        try:
            if not has_back_off and len(fields) != self.n + 1:
                raise ValueError
            self.log10.append(float(fields[0]))
            self.back_off.append(float(fields[-1]) if has_back_off else 0.0)
        except ValueError:
            tokens = f"{self.n} tokens" if self.n > 1 else "a token"
            raise ValueError(
                f"expected a log probability, {tokens} and an optional back-off, got {line!r}"
            ) from None
        self.lines.append(number)
        if self.n == 1:
            self.tokens.append(fields[1])
            return
        try:
            self.ids.extend([self.known[token] for token in fields[1 : self.n + 1]])
        except KeyError as missing:
            raise ValueError(f"{missing} is not among the 1-grams") from None

    def added_to(self, table: NGramTable | None, unknown: float) -> NGramTable:
        """The table with these n-grams."""
        if table is None:
            return NGramTable.of_unigrams(self.tokens, self.log10, self.back_off, unknown)
        table.append(np.array(self.ids, "int64").reshape(-1, self.n), self.log10, self.back_off)
        return table


def write(table: NGramTable) -> list[str]:
    """The lines of an ARPA file.

    Raises:
        ValueError: if a token is empty or has a space.
    """
    for token in table.tokens:
        if not token or any(space in token for space in _SPACES):
            raise ValueError(f"An ARPA file cannot have the token {token!r}.")
    lines = ["\\data\\"]
    lines += [f"ngram {n}={len(level.keys)}" for n, level in enumerate(table.levels, start=1)]
    for n, (level, ngrams) in enumerate(zip(table.levels, table.ngrams(), strict=True), start=1):
        lines += ["", f"\\{n}-grams:"]
        for ngram, log10, back_off in zip(ngrams, level.log10, level.back_off, strict=True):
            line = f"{log10:.6f}\t{' '.join(ngram)}"
            lines.append(line + (f"\t{back_off:.6f}" if back_off else ""))
    return [*lines, "", "\\end\\"]


def _integer(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None
