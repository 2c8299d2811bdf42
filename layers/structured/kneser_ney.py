"""Estimation of an n-gram language model by modified Kneser-Ney smoothing."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from unroll.layers.structured.ngram_table import START, Level, NGramTable
from unroll.layers.structured.witten_bell import read_texts

# The discounts of a level with too few n-grams to estimate them; as `lmplz` of KenLM.
_FALLBACK = (0.5, 1.0, 1.5)


class _Counts(NamedTuple):
    """The n-grams of one length, in the order of their keys; see `Level`."""

    keys: np.ndarray  # [N]
    counts: np.ndarray  # [N]
    contexts: np.ndarray  # [N], positions in the shorter level
    suffixes: np.ndarray  # [N], positions of the n-grams without their first token
    is_initial: np.ndarray  # [N], whether the first token is `<s>`


def estimate(texts: Iterable[Sequence[str]], order: int) -> NGramTable:
    """The table of `NGramLanguageModel.from_texts`, which has the equations."""
    table, stream = read_texts(texts)
    size, start = len(table.tokens), table.ids[START]  # V
    levels = _count(stream, size, start, order)
    probabilities = np.full(1, 1 / (size - 1))  # of `<unk>` and all other tokens but `<s>`
    for n, level in enumerate(levels):
        counts = level.counts
        if n + 1 < len(levels):  # how many different tokens occur before the n-gram
            distinct = np.bincount(levels[n + 1].suffixes, minlength=len(counts))
            counts = np.where(level.is_initial, counts, distinct)
        if n == 0:
            counts[start] = 0  # only a context, never predicted
        discounts = _discounts(counts)[np.minimum(counts, 3)]
        shorter = len(levels[n - 1].keys) if n else 1
        totals = np.bincount(level.contexts, counts, shorter)
        held_out = np.bincount(level.contexts, discounts, shorter)
        weights = np.divide(held_out, totals, np.ones(shorter), where=totals > 0)
        if n:
            log10 = np.log10(probabilities)
            table.levels.append(Level(levels[n - 1].keys, log10, np.log10(weights)))
        estimated = (counts - discounts) / totals[level.contexts]
        probabilities = estimated + weights[level.contexts] * probabilities[level.suffixes]
        if n == 0:
            probabilities[start] = 1e-99
    table.levels.append(Level(levels[-1].keys, np.log10(probabilities), np.zeros(len(counts))))
    return table


def _count(stream: np.ndarray, size: int, start: int, order: int) -> list[_Counts]:
    """The n-grams of texts, given as one stream `[N]`, by their length."""
    counts, none = np.bincount(stream, minlength=size), np.zeros(size, "int64")
    levels = [_Counts(np.arange(size), counts, none, none, np.arange(size) == start)]
    is_start = stream == start
    positions = stream  # of the n-gram that ends at each place of the stream, -1 if there is none
    for _ in range(1, order):
        places = 1 + np.flatnonzero((positions[:-1] >= 0) & ~is_start[1:])
        keys, first, inverse, counts = np.unique(
            positions[places - 1] * size + stream[places],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        contexts, suffixes = keys // size, positions[places[first]]
        levels.append(_Counts(keys, counts, contexts, suffixes, levels[-1].is_initial[contexts]))
        positions = np.full(len(stream), -1)
        positions[places] = inverse
    return levels


def _discounts(counts: np.ndarray) -> np.ndarray:
    """D(0), D(1), D(2) and D(3), from the numbers of n-grams with the counts 1 to 4."""
    n = np.bincount(np.minimum(counts, 5), minlength=5)[1:5].astype("float64")
    found = np.zeros(3)
    if n.all():
        k = np.arange(1, 4)
        found = k - (k + 1) * n[0] / (n[0] + 2 * n[1]) * n[1:] / n[:-1]
    if not ((found > 0) & (found <= np.arange(1, 4))).all():
        found = np.array(_FALLBACK)
    return np.concatenate([[0.0], found])
