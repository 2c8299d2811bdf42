"""Greedy search."""

from collections.abc import Callable

from unroll.layers.decoding.logits_rules import make_rules
from unroll.layers.decoding.search import SearchResult, generate
from unroll.layers.operations import argmax


def greedy(
    step_function: Callable,
    states: list,
    *,
    start,
    end: int,
    max_length: int = 50,
    min_length: int = 0,
    prefix=None,
    no_repeat_ngram_size: int = 0,
    pad: int = 0,
) -> SearchResult:
    """Generates sequences of the most probable token at each step.

    Args:
        step_function: `(tokens [B], states) -> (logits [B, V], states, weights [B, S] or None)`,
            such as `AttentionDecoder.step_function` returns.
        states: list of the initial states, `[B, ...]` each.
        start: the symbol that the first step reads, an integer or `[B]`.
        end: the symbol that ends a sequence. It is not part of the result.
        max_length: L, the maximum number of steps. A sequence that has not ended by then is
            returned without an end.
        min_length: the minimum number of tokens before the end.
        prefix: `[B, P]`, integers, the tokens that the sequences start with; -1 where any token is
            allowed.
        no_repeat_ngram_size: n, if no n-gram may occur twice in a sequence; 0 for no limit.
        pad: the value after the end of a sequence.

    Returns:
        A `SearchResult` with one sequence per example.

    Raises:
        ValueError: if a number is out of its range, or `prefix` has the wrong shape.

    >>> import numpy as np
    >>> from unroll import layers
    >>> decoder = layers.RecurrentDecoder(50, 8, cells=[layers.LSTMCell(16)])
    >>> decoder.build((None, None))
    >>> states = decoder.initial_states(2)
    >>> result = layers.greedy(decoder.step_function(), states, start=1, end=2, max_length=7)
    >>> result.tokens.shape
    TensorShape([2, 7])
    """
    rules = make_rules(end, max_length, min_length, prefix, no_repeat_ngram_size)

    def choose(log_probs, step):
        del step
        return argmax(log_probs)

    return generate(step_function, states, start, rules, max_length, pad, choose)
