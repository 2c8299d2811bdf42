"""Text from and to a terminal or a pipe, in any encoding."""

import json
import os
import sys
from collections.abc import Iterator


def print_now(text: str) -> None:
    """Prints before a file is written, which can fail."""
    print(text, flush=True)


def print_json(value: dict) -> None:
    print_now(to_json(value))


def to_json(value: dict) -> str:
    """One line of JSON. Characters that the output cannot encode are escaped."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def lines() -> list[str]:
    """The lines of the standard input. Invalid UTF-8 becomes U+FFFD, as in the graph."""
    text = sys.stdin.buffer.read().decode("utf-8", errors="replace")
    return text.removesuffix("\n").split("\n") if text else []


def entered_lines() -> Iterator[str]:
    """As `lines`, each as soon as it is entered, after a prompt on a terminal."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.buffer.readline()
        if not line:
            return
        yield line.decode("utf-8", errors="replace").removesuffix("\n")


def argument_of(given: str) -> str:
    """An argument. Invalid UTF-8 becomes U+FFFD, except in the name of a file."""
    if os.path.exists(given):
        return given
    return given.encode("utf-8", "surrogateescape").decode("utf-8", errors="replace")
