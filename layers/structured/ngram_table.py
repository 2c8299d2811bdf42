"""N-grams with their probabilities, in arrays."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
UNKNOWN_IN_CAPITALS = "<UNK>"  # as some programs write it
_NO_KEY = np.iinfo("int64").max


class InvalidNGramError(ValueError):
    """An n-gram that a table does not accept, with its row among the given ones."""

    def __init__(self, row: int, message: str):
        super().__init__(message)
        self.row = row


class Level(NamedTuple):
    """The n-grams of one length, in the order of their keys.

    The key of an n-gram is C * V + w, where C is the position of its context (the n-gram without
    its last token) in the level of shorter n-grams, V the size of the vocabulary, and w its last
    token. The position of a unigram is its token.
    """

    keys: np.ndarray  # int64 [N]
    log10: np.ndarray  # float64 [N]
    back_off: np.ndarray  # float64 [N], log10


class NGramTable:
    """The entries of an n-gram language model, 24 bytes each.

    Args:
        tokens: the V tokens. `<UNK>` is the same as `<unk>`.

    Attributes:
        ids: the number of each token.
        levels: the n-grams by their length.

    Raises:
        InvalidNGramError: if a token occurs twice.
    """

    def __init__(self, tokens: Sequence[str]):
        self.tokens = [UNKNOWN if x == UNKNOWN_IN_CAPITALS else x for x in tokens]
        self.ids: dict[str, int] = {}
        for row, token in enumerate(self.tokens):
            if self.ids.setdefault(token, row) != row:
                raise InvalidNGramError(row, f"{token!r} has two entries")
        if UNKNOWN in self.ids:
            self.ids[UNKNOWN_IN_CAPITALS] = self.ids[UNKNOWN]
        self.levels: list[Level] = []

    @classmethod
    def of_unigrams(cls, tokens: Sequence[str], log10, back_off, unknown: float) -> "NGramTable":
        """A table of unigrams, with `<unk>` of a given log10 probability if it is missing."""
        if not -np.inf < unknown <= 0:
            raise ValueError(f"unknown must be finite and at most 0, got {unknown}.")
        table = cls(tokens)
        if UNKNOWN not in table.ids:
            table = cls([*tokens, UNKNOWN])
            log10, back_off = np.append(log10, unknown), np.append(back_off, 0.0)
        table.append(np.arange(len(table.tokens))[:, None], log10, back_off)
        return table

    def append(self, ids, log10, back_off) -> None:
        """Adds the n-grams `[N, n]`, where n - 1 is the maximum length so far.

        Raises:
            InvalidNGramError: if an n-gram occurs twice, its context has no entry, or a number is
                not allowed.
        """
        contexts = np.zeros(len(ids), "int64")
        for level, tokens in zip(self.levels, ids.T[:-1], strict=True):
            keys = contexts * len(self.tokens) + tokens
            positions = np.searchsorted(level.keys, keys)
            is_found = np.append(level.keys, _NO_KEY)[positions] == keys
            _refuse(~is_found, f"the context of each {ids.shape[1]}-gram must have an entry")
            contexts = positions
        log10, back_off = np.asarray(log10, "float64"), np.asarray(back_off, "float64")
        _refuse(~(np.isfinite(log10) & np.isfinite(back_off)), "the numbers must be finite")
        _refuse(log10 > 0, "the log probability must be at most 0")
        keys = contexts * len(self.tokens) + ids[:, -1]
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        is_repeated = np.zeros(len(keys), bool)
        is_repeated[order[1:]] = keys[1:] == keys[:-1]
        _refuse(is_repeated, "the n-gram has two entries")
        self.levels.append(Level(keys, log10[order], back_off[order]))

    def position(self, n: int, context: int, token: int) -> int:
        """The position of an n-gram in its level, -1 if it has no entry.

        Args:
            n: its length.
            context: the position of its first n - 1 tokens.
            token: its last token.
        """
        keys, key = self.levels[n - 1].keys, context * len(self.tokens) + token
        position = int(keys.searchsorted(key))
        return position if position < len(keys) and keys[position] == key else -1

    def ngrams(self) -> Iterator[list[tuple[str, ...]]]:
        """The n-grams of each level, in its order."""
        shorter = [()]
        for level in self.levels:
            contexts, tokens = np.divmod(level.keys, len(self.tokens))
            shorter = [
                (*shorter[context], self.tokens[token])
                for context, token in zip(contexts.tolist(), tokens.tolist(), strict=True)
            ]
            yield shorter


def _refuse(is_wrong: np.ndarray, message: str) -> None:
    """Raises an error for the first row of `[N]` that is wrong."""
    if is_wrong.any():
        raise InvalidNGramError(int(is_wrong.argmax()), message)
