"""Broken files for the tests of readers."""

import codecs
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unroll.pipelines.errors import DataError

_HOSTILE = [
    *(b"\0", b"\t", b"\r", b"\n", b"\r\n\r\n", b'"', b'""', b",", b";", b" ", b"\xff", b"\xc3"),
    *(s.encode() for s in ("\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\u2028", "\u3000", "\ufeff")),
    *(s.encode() for s in ("😀", "e\u0301", "\u202e", "{", "}", "[", "null", "NaN", "\\ud83d")),
    *(b"-1", b"0", b"99999999999999999999", b"1e999"),
]
_ENCODINGS = ("latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "cp1252")
_LINE_ENDS = ("\r", "\r\n", "\n\n", "\u2028", "\x0b", "\x85", " \n", "\t\n")


def mutations(contents: bytes, count: int = 1000, seed: int = 0) -> Iterator[bytes]:
    """Yields `count` mutations of a text file, always the same for one seed.

    Bytes flipped, inserted, removed and repeated; the file cut, and concatenated with a part of
    itself; other encodings; other line ends; lines removed, repeated and swapped.
    """
    rng = random.Random(seed)
    text = contents.decode()

    def place(data: bytes) -> int:
        return rng.randrange(len(data) + 1)

    def flip(data: bytes) -> bytes:
        broken = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        return bytes(broken)

    def insert(data: bytes) -> bytes:
        for _ in range(rng.randint(1, 3)):
            k = place(data)
            data = data[:k] + rng.choice(_HOSTILE) + data[k:]
        return data

    def remove(data: bytes) -> bytes:
        first, last = sorted((place(data), place(data)))
        return data[:first] + data[min(last, first + 9) :]

    def cut(data: bytes) -> bytes:
        return data[: place(data)]

    def concatenate(data: bytes) -> bytes:
        return data + rng.choice([b"", codecs.BOM_UTF8, b"\n"]) + data[place(data) :]

    def encode(data: bytes) -> bytes:
        return text.encode(rng.choice(_ENCODINGS), errors="replace")

    def end_lines(data: bytes) -> bytes:
        return text.replace("\n", rng.choice(_LINE_ENDS)).encode()

    def move_lines(data: bytes) -> bytes:
        lines = data.split(b"\n")
        a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
        way = rng.randrange(3)
        if way == 0:
            del lines[a]
        elif way == 1:
            lines.insert(b, lines[a])
        else:
            lines[a], lines[b] = lines[b], lines[a]
        return b"\n".join(lines)

    ways = [flip, insert, insert, remove, cut, concatenate, encode, end_lines, move_lines]
    for _ in range(count):
        broken = rng.choice(ways)(contents)
        if rng.random() < 0.2 and broken:
            broken = rng.choice([flip, insert, cut])(broken)
        yield broken


def outcomes(
    path: Path,
    read: Callable[[Path], Any],
    *args,
    error: type[ValueError] | tuple[type[ValueError], ...] = DataError,
    **options,
) -> list[Any]:
    """What `read` returns for mutations that are written to `path`, without those it refuses.

    Asserts that it raises an `error` of one line with the path for all others, and that at least
    one in twenty is read, and refused. The other arguments are those of `mutations`.
    """
    found, errors = [], []
    for contents in mutations(*args, **options):
        path.write_bytes(contents)
        try:
            found.append(read(path))
        except error as refused:
            errors.append(str(refused))
    for message in errors:
        assert str(path) in message
        assert re.fullmatch(r"[^\r\n]+", message)
    total = len(found) + len(errors)
    assert min(len(found), len(errors)) >= total // 20
    return found
