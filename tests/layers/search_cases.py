"""The searches and a small model for their tests."""

import functools

import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.checks import assert_near
from unroll import layers

SAMPLE = functools.partial(layers.sample, seed=3, num_samples=4)
SEARCHES = [layers.greedy, layers.sample, SAMPLE, layers.beam_search]
IDS = ["greedy", "sample", "several samples", "beam search"]
LIMITS = {"start": 0, "end": 1, "max_length": 5}
EACH_SEARCH = pytest.mark.parametrize("search", SEARCHES, ids=IDS)


def run(search, step, states, **options):
    options = {**LIMITS, **options}
    if search is layers.sample:
        options.setdefault("seed", 3)
    return search(step, states, **options)


def rows_of(found) -> list[list[list[int]]]:
    """The tokens of all sequences of each example."""
    batch, length = found.tokens.shape[0], found.tokens.shape[-1]
    tokens = running.numpy(found.tokens).reshape(batch, -1, length)
    lengths = running.numpy(found.lengths).reshape(batch, -1)
    return [
        [row[:n].tolist() for row, n in zip(*of, strict=True)]
        for of in zip(tokens, lengths, strict=True)
    ]


def assert_same(found, expected):
    assert rows_of(found) == rows_of(expected)
    for name in ("log_probabilities", "scores", "alignments"):
        a, b = getattr(found, name), getattr(expected, name)
        assert (a is None) == (b is None)
        if a is not None:
            assert_near([running.numpy(a)], [running.numpy(b)], 1e-5, name)


BIGRAMS = 2 * np.random.default_rng(0).normal(size=(6, 6)).astype("float32")


def bigrams(tokens, states):
    """A step without states."""
    return ops.take(ops.convert_to_tensor(BIGRAMS), tokens, axis=0), states, None
