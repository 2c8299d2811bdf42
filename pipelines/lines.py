"""Text files: encodings, lines, words, delimited columns, JSON. All readers use these functions.

Every error is a `DataError` of one line that names the file and the line.
"""

import codecs
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unroll.pipelines.errors import DataError, report_once

# What separates words: Unicode's white space and control characters. The inside of a character
# class, for Python's and TensorFlow's regular expressions.
WORD_SEPARATORS = "\\x00-\\x20\\x7f-\\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SEPARATORS = re.compile(f"[{WORD_SEPARATORS}]+")
_LINE_END = re.compile("\r\n|\r|\n")
# A byte order mark at the start of a later line is left where files were concatenated.
_INNER_MARK = re.compile("(?<=[\r\n])\ufeff")
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
# The first line by which a file tells a spreadsheet its delimiter.
_SEP = re.compile(r'"?sep=([,;\t])"?\Z', re.IGNORECASE)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_text(path: str | Path) -> str:
    """The text of a file: UTF-8 with or without a byte order mark, or UTF-16 with one.

    Raises:
        DataError: if the file cannot be read or has another encoding.
    """
    try:
        contents = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    return decode_text(contents, str(path))


def decode_text(contents: bytes, name: str) -> str:
    """As `read_text`, from the bytes of a file and its name, which errors give.

    >>> decode_text(codecs.BOM_UTF16_LE + "Zoë".encode("utf-16-le"), "x.txt")
    'Zoë'
    """
    encoding = _UTF16.get(contents[:2], "utf-8")
    try:
        text = contents.decode(encoding)
    except UnicodeDecodeError as error:
        before = contents[: error.start].decode(encoding, errors="replace")
        what = "UTF-8" if encoding == "utf-8" else "UTF-16, as its byte order mark says"
        raise DataError(
            f"{name}, line {_line_at(before, len(before))}: byte {error.start} is not {what}. "
            "Save the file as UTF-8."
        ) from None
    if text.count("\0") > len(text) // 4:
        at = _line_at(text, text.index("\0"))
        raise DataError(
            f"{name}, line {at}: zero bytes between the characters, as in UTF-32, or in UTF-16 "
            "without a byte order mark. Save the file as UTF-8."
        )
    return _INNER_MARK.sub("", text.removeprefix("\ufeff"))


def split_lines(text: str) -> list[str]:
    r"""The lines of a text. A line ends at LF, CR LF or CR, and nowhere else.

    The end of the last line is optional.

    >>> split_lines("a\r\nb\u2028c\n\nd\n")
    ['a', 'b\u2028c', '', 'd']
    """
    lines = _LINE_END.split(text)
    return lines if lines[-1] else lines[:-1]


def _with_ends(text: str) -> Iterator[str]:
    """The lines of a text with their ends, without a second copy of the text."""
    start = 0
    for end in _LINE_END.finditer(text):
        yield text[start : end.end()]
        start = end.end()
    if start < len(text):
        yield text[start:]


def split_words(line: str) -> list[str]:
    r"""The words of a line. Unicode's white space and control characters separate them.

    >>> split_words(" New\u00a0York\u3000is\tbig ")
    ['New', 'York', 'is', 'big']
    """
    return [word for word in _SEPARATORS.split(line) if word]


def read_rows(path: str | Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a delimited file that are not blank.

    - Tabs: the quoting of Excel and pandas is detected. There, a field with a quotation mark is in
      quotation marks as a whole, and those inside are doubled. In all other files, quotation marks
      are characters of the text.
    - Commas: fields may be quoted. Semicolons or tabs in place of the commas, as spreadsheets write
      them, are detected.

    A first line `sep=;` sets the delimiter. What is detected is printed once to standard error.

    Args:
        path: the file, in an encoding of `read_text`.
        delimiter: a tab or a comma.

    Yields:
        The line at which a row begins, and its fields. Rows may have different numbers of fields.

    Raises:
        DataError: also if a quoted field of a file with commas is not closed, or is followed by
            other characters.
    """
    text, first = read_text(path), 1
    end = _LINE_END.search(text)
    if found := _SEP.match(text[: end.start()] if end else text):
        delimiter, text, first = found[1], text[end.end() :] if end else "", 2
    elif delimiter == "," and (delimiter := _detect_delimiter(text)) != ",":
        report_once(f"{path} is read with {_DELIMITERS[delimiter]} between the columns.")
    quoted = delimiter != "\t" or _is_quoted(text, path, first)
    yield from _rows(text, path, delimiter, quoted, first)


def _rows(text: str, path, delimiter: str, quoted: bool, first: int):
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    reader = csv.reader(
        _with_ends(text),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=quoted,
    )
    start = first
    try:
        for fields in reader:
            if len(fields) > 1 or split_words("".join(fields)):
                yield start, fields
            start = first + reader.line_num
    except csv.Error as error:
        reason = (
            "a quoted field is not closed"
            if "unexpected end" in str(error)
            else "a quoted field ends inside the field"
        )
        raise DataError(
            f"{path}, line {start}: {reason}. Double each quotation mark that belongs to the text, "
            "and quote the field."
        ) from None


def _detect_delimiter(text: str) -> str:
    """A comma, or what is used in its place."""
    first = {delimiter: next(_widths(text, delimiter), 1) for delimiter in _DELIMITERS}
    used = [delimiter for delimiter, width in first.items() if width > 1]
    if len(used) > 1:
        # The delimiter of a regular table, not a character of its texts.
        regular = [d for d in used if set(_widths(text, d)) == {first[d]}]
        used = regular or used
    return used[0] if used else ","


def _widths(text: str, delimiter: str) -> Iterator[int]:
    """The numbers of fields of the rows that are not blank, if fields may be quoted."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    rows = csv.reader(_with_ends(text), delimiter=delimiter)
    return (len(fields) for fields in rows if fields)


_FIELD = re.compile(
    r"""(?:"(?P<quoted>[^"]*(?:""[^"]*)*)"|(?P<plain>[^"\t\r\n]*))(?P<end>\t|\r\n|\r|\n|\Z)"""
)
_QUOTED_INSIDE = re.compile(r'(?:^|(?<=[\t\r\n]))"[^"\t\r\n]*(?:""[^"\t\r\n]*)+"(?=[\t\r\n]|\Z)')


def _is_quoted(text: str, path, first: int) -> bool:
    """Whether the fields of a tab-separated text are quoted, as Excel and pandas do."""
    if '"' not in text:
        return False
    rows, stray = _scan(text)
    if stray is None and _explains_quotes(rows, text):
        report_once(
            f"{path} is read as quoted, as spreadsheets write it: the quotation marks around "
            "fields are not part of the text."
        )
        return True
    if looks := len(_QUOTED_INSIDE.findall(text)):
        where = "" if stray is None else f", but not that of line {first - 1 + stray}"
        report_once(
            f"{path}: {looks:,} fields look quoted{where}. All quotation marks are read as part of "
            "the text."
        )
    return False


def _scan(text: str) -> tuple[list[list[tuple[bool, str]]], int | None]:
    """The fields of a quoted text, by row: whether each is quoted, and what it contains.

    Also the line of the first quotation mark that quoting does not explain, or `None`.
    """
    rows, row, position = [], [], 0
    while True:
        found = _FIELD.match(text, position)
        if not found:
            return rows, _line_at(text, position)
        quoted = found["quoted"] is not None
        row.append((quoted, found["quoted"] if quoted else found["plain"]))
        if found["end"] != "\t":
            if len(row) > 1 or row[0][0] or row[0][1]:
                rows.append(row)
            row = []
        position = found.end()
        if position == len(text) and not row:  # a last line needs no end
            return rows, None


def _explains_quotes(rows: list[list[tuple[bool, str]]], text: str) -> bool:
    """Whether quoting is the reason for the quotation marks of a text where it is possible."""
    quoted = [field for row in rows for is_quoted, field in row if is_quoted]
    crossing = any("\t" in field or "\n" in field or "\r" in field for field in quoted)
    lines = [line.count("\t") + 1 for line in split_lines(text) if line] if crossing else []
    if crossing and _irregular([len(row) for row in rows]) < _irregular(lines):
        return True
    if any('""' in field for field in quoted):
        return True
    if crossing:  # quotation marks of different rows look like those of one field
        return False
    # A writer that quotes all texts, with or without the header.
    if all(is_quoted for is_quoted, _ in rows[0]):
        return True
    body = rows[1:]
    if len(body) > 1 and any(
        all(k < len(row) and row[k][0] for row in body) for k in range(len(rows[0]))
    ):
        return True
    # Excel quotes the fields with commas, and no others.
    commas = [is_quoted for row in rows for is_quoted, field in row if "," in field]
    return all(commas) and len(commas) == len(quoted)


def _irregular(widths: list[int]) -> int:
    """The number of rows that are not as wide as the first."""
    return sum(width != widths[0] for width in widths)


def read_json(path: str | Path) -> Any:
    """The value of a JSON file, in an encoding of `read_text`.

    `NaN` and `Infinity` are read as floats, as Python writes them.

    Raises:
        DataError: if the file cannot be read, or is not JSON.
    """
    return _parse(read_text(path), str(path), 1)


def read_json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """The line and the value of each line of a file of JSON values. Blank lines are skipped.

    Raises:
        DataError: as `read_json`.
    """
    for number, line in enumerate(split_lines(read_text(path)), start=1):
        if split_words(line):
            yield number, _parse(line, str(path), number)


def _parse(text: str, name: str, first: int) -> Any:
    line = first
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        line += _line_at(text, error.pos) - 1
        reason = f"not JSON ({error.msg})"
    except UnicodeEncodeError:
        reason = "an unpaired surrogate (half a character, such as \\ud83d)"
    except (RecursionError, ValueError) as error:  # nested too deeply, or too many digits
        reason = f"not readable as JSON ({str(error).partition(';')[0]})"
    raise DataError(f"{name}, line {line}: {reason}.") from None


def _line_at(text: str, position: int) -> int:
    """The line of a position of a text, from 1."""
    return 1 + len(_LINE_END.findall(text, 0, position))
