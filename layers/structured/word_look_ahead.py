"""The probabilities of words of which only the first characters are known."""

from bisect import bisect_left
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from unroll.layers.structured.ngram_table import END, START, UNKNOWN, NGramTable

_LAST_CHARACTER = "\U0010ffff"


class WordRanges(NamedTuple):
    """The words that begin with each of P prefixes, as ranges of the sorted words."""

    bounds: np.ndarray  # int64 [2, P], the first word, and the one after the last
    log10: np.ndarray  # float64 [P], the highest probability without context, at least `<unk>`


class WordLookAhead:
    """The highest probability of a word that begins with given characters, in a context.

    Ortmanns, Ney and Eiden 1996, "Language-model look-ahead for large vocabulary speech
    recognition". The words are sorted, so that those with the same prefix are a range.
    """

    def __init__(self, table: NGramTable):
        self._table = table
        tokens, special = table.tokens, {START, END, UNKNOWN}
        order = sorted(
            (k for k, x in enumerate(tokens) if x not in special), key=tokens.__getitem__
        )
        self._words = [tokens[k] for k in order]
        self._ranks = np.full(len(tokens), -1)
        self._ranks[order] = np.arange(len(order))
        self._log10 = table.levels[0].log10[order]
        self._unknown = table.levels[0].log10[table.ids[UNKNOWN]]
        self._followers: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def ranges(self, start: str, ends: Sequence[str]) -> WordRanges:
        """The words that begin with `start`, followed by each of P ends."""
        bounds, log10 = np.zeros((2, len(ends)), "int64"), np.full(len(ends), self._unknown)
        low, high = self._range(start, 0, len(self._words))
        if low < high:
            for p, end in enumerate(ends):
                bounds[:, p] = first, last = self._range(start + end, low, high)
                log10[p] = self._log10[first:last].max(initial=self._unknown)
        return WordRanges(bounds, log10)

    def log10(self, state: Sequence[int], words: WordRanges) -> np.ndarray:
        """The highest log10 P(word | state) of each range, or of an unknown word, `[P]`.

        It is an upper bound: a word with an entry counts in the shorter contexts, too.

        Args:
            state: a state of `NGramLanguageModel`.
            words: P ranges.
        """
        back_off, highest = 0.0, np.full(len(words.log10), -np.inf)
        is_known = words.bounds[0] < words.bounds[1]
        for n in range(len(state), 0, -1):
            context = state[n - 1]
            if context < 0:
                continue
            if is_known.any():
                ranks, log10 = self._following(n, context)
                first, last = ranks.searchsorted(words.bounds)
                for p in np.flatnonzero(first < last):
                    best = back_off + log10[first[p] : last[p]].max()
                    highest[p] = max(highest[p], best)
            back_off += self._table.levels[n - 1].back_off[context]
        return np.maximum(highest, back_off + words.log10)

    def _range(self, prefix: str, low: int, high: int) -> tuple[int, int]:
        first = bisect_left(self._words, prefix, low, high)
        return first, bisect_left(self._words, prefix + _LAST_CHARACTER, first, high)

    def _following(self, n: int, context: int) -> tuple[np.ndarray, np.ndarray]:
        """The words with an entry after a context of n tokens, sorted, and their log10."""
        key = n, context
        if key not in self._followers:
            level, size = self._table.levels[n], len(self._ranks)
            rows = slice(*level.keys.searchsorted([context * size, (context + 1) * size]))
            ranks, log10 = self._ranks[level.keys[rows] - context * size], level.log10[rows]
            order = np.argsort(ranks)[np.count_nonzero(ranks < 0) :]
            self._followers[key] = ranks[order], log10[order]
        return self._followers[key]


class UnigramLookAhead(WordLookAhead):
    """The same for a model of which only the probabilities without context are known."""

    def __init__(self, words: Sequence[str], log10: Sequence[float], unknown: float):
        super().__init__(NGramTable.of_unigrams(words, log10, np.zeros(len(words)), unknown))

    def log10(self, state: Hashable, words: WordRanges) -> np.ndarray:
        return super().log10((), words)
