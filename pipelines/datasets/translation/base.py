"""What the datasets of translations and of dialogs share."""

import gzip
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Builder
from unroll.pipelines.errors import DataError
from unroll.pipelines.lines import decode_text, split_lines


class Pairs(Builder, skip_registration=True):
    """Sources and targets: sentences and their translations, or turns of dialogs.

    The source of a dialog is the turn before the target, and `history` has the turns before the
    source, the oldest first. The history of a translation is empty. A subclass sets `LANGUAGES` if
    these can be chosen, the default source and target first, and `dialogs` if it has dialogs.

    Args:
        source, target: the languages; both or none. Where a subclass has no `LANGUAGES`, none.
        history: the number of turns before the target that an example has, at least 1. That of
            translations is 1.
        **kwargs: arguments of `Builder`.

    Raises:
        DataError: if an argument is not one of these.
    """

    FEATURES: ClassVar = {
        "source": tf.string,
        "target": tf.string,
        "history": tfds.features.Sequence(tf.string),
    }
    ORDERED = True
    OPTIONS = ("source", "target", "history")
    LANGUAGES: ClassVar[tuple[str, ...]] = ()
    dialogs = False

    def __init__(self, *, source: str = "", target: str = "", history: int = 1, **kwargs):
        if history < 1:
            raise DataError(f"history must be at least 1, got {history}.")
        if history > 1 and not self.dialogs:
            raise DataError(f"{self.name} has no dialogs: history must be 1, got {history}.")
        chosen = self._languages(source, target) if source or target else self.LANGUAGES[:2]
        options = "-".join(chosen) or (f"history_{history}" if self.dialogs else "")
        if options and "config" not in kwargs:
            kwargs["config"] = tfds.core.BuilderConfig(name=options)
        self.languages, self.history = chosen, history
        super().__init__(**kwargs)

    def _languages(self, source: str, target: str) -> tuple[str, str]:
        given = f"got {source!r} and {target!r}"
        if not self.LANGUAGES:
            raise DataError(
                f"{self.name} has no choice of languages: leave out source and target, {given}."
            )
        if source == target or not {source, target} <= set(self.LANGUAGES):
            raise DataError(
                f"{self.name}: source and target must be two of {', '.join(self.LANGUAGES)}, "
                f"{given}."
            )
        return source, target

    def _generate_examples(self, examples: Iterable[dict]):
        yield from enumerate(examples)


def pair(source: str, target: str) -> dict:
    """The example of a translation."""
    return {"source": source, "target": target, "history": []}


def replies(turns: Sequence[str], history: int) -> Iterator[dict]:
    """The examples of a dialog: each turn but the first with at most `history` turns before it.

    >>> [(e["history"], e["source"], e["target"]) for e in replies(["a", "b", "c"], history=2)]
    [([], 'a', 'b'), (['a'], 'b', 'c')]
    """
    for k in range(1, len(turns)):
        before = turns[max(0, k - history) : k]
        yield {"source": before[-1], "target": turns[k], "history": list(before[:-1])}


def read_gzip_lines(path: Path) -> list[str]:
    """The lines of a text file that gzip compressed.

    Raises:
        DataError: if it is not complete, or not text.
    """
    try:
        contents = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a complete gzip file: {error}.") from None
    return split_lines(decode_text(contents, str(path)))
