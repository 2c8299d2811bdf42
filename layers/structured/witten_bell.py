"""Estimation of an n-gram language model by Witten-Bell smoothing."""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import count

import numpy as np

from unroll.layers.structured.ngram_table import (
    END,
    START,
    UNKNOWN,
    UNKNOWN_IN_CAPITALS,
    Level,
    NGramTable,
)


def estimate(texts: Iterable[Sequence[str]], order: int, min_count: int) -> NGramTable:
    """The table of `NGramLanguageModel.from_texts`, which has the equations."""
    table, stream = read_texts(texts)
    size = len(table.tokens)  # V
    start, unknown = table.ids[START], table.ids[UNKNOWN]
    counts = np.bincount(stream, minlength=size)
    counts[start] = 0  # only a context, never predicted
    total, distinct = counts.sum(), np.count_nonzero(counts)
    uniform = 1 / (distinct + (counts[unknown] == 0))
    keys, probabilities = np.arange(size), (counts + distinct * uniform) / (total + distinct)
    probabilities[start] = 1e-99

    is_start = stream == start
    positions = stream  # of the n-gram that ends at each place of the stream, -1 if it has no entry
    for _ in range(1, order):
        # The n-grams that are one longer, by the place of their last token.
        places = 1 + np.flatnonzero((positions[:-1] >= 0) & ~is_start[1:])
        longer, first, inverse, counts = np.unique(
            positions[places - 1] * size + stream[places],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        contexts, is_kept = longer // size, counts >= min_count

        distinct = np.bincount(contexts, minlength=len(keys))  # T
        denominator = np.bincount(contexts, counts, len(keys)) + distinct  # N + T
        held_out = np.bincount(contexts, counts * ~is_kept, len(keys)) + distinct  # T + R
        back_off = np.divide(held_out, denominator, np.ones(len(keys)), where=denominator > 0)
        table.levels.append(Level(keys, np.log10(probabilities), np.log10(back_off)))
        shorter = probabilities[positions[places[first]]]  # without the first token
        estimated = counts * is_kept + held_out[contexts] * shorter
        keys, probabilities = longer[is_kept], (estimated / denominator[contexts])[is_kept]
        kept_positions = np.where(is_kept, np.cumsum(is_kept) - 1, -1)
        positions = np.full(len(stream), -1)
        positions[places] = kept_positions[inverse]
        if not len(keys):
            return table
    table.levels.append(Level(keys, np.log10(probabilities), np.zeros(len(keys))))
    return table


def read_texts(texts: Iterable[Sequence[str]]) -> tuple[NGramTable, np.ndarray]:
    """A table without n-grams, and the tokens of all texts with their start and end, `[N]`."""
    ids = defaultdict(count().__next__)
    start, end, unknown = ids[START], ids[END], ids[UNKNOWN]
    ids[UNKNOWN_IN_CAPITALS] = unknown
    buffer = array("q")
    number_of_texts = 0
    for text in texts:
        buffer.append(start)
        buffer.extend([ids[token] for token in text])
        buffer.append(end)
        number_of_texts += 1
    if not number_of_texts:
        raise ValueError("texts must have at least one text, got none.")
    stream = np.frombuffer(buffer, "int64")
    for token, number in ((START, start), (END, end)):
        if np.count_nonzero(stream == number) > number_of_texts:
            raise ValueError(f"texts must not have the token {token!r}: it is added to each text.")
    return NGramTable([token for token in ids if token != UNKNOWN_IN_CAPITALS]), stream
