"""Greedy search."""

from collections.abc import Callable, Sequence

from unroll.layers.decoding.search import SearchResult, generate, prepare
from unroll.layers.operations import argmax


def greedy(
    step_function: Callable,
    states,
    *,
    start,
    end: int | list[int],
    max_length: int = 50,
    min_length: int = 0,
    prefix=None,
    no_repeat_ngram_size: int = 0,
    logits_processors: Sequence[Callable] = (),
    pad: int = 0,
) -> SearchResult:
    """Generates sequences of the most probable token at each step.

    If no token is possible, since the logits are NaN or all tokens are forbidden, the sequence ends
    with a log probability of -1e9.

    Args:
        step_function: `(tokens [B], states) -> (logits [B, V], states, weights [B, S] or None)`,
            such as `AttentionDecoder.step_function` returns. A logit of minus infinity, or of -1e9,
            makes a token impossible.
        states: the initial states, any nested structure of tensors `[B, ...]`.
        start: the token that the first step reads, an integer or `[B]`.
        end: the token that ends a sequence, or a list of such tokens. It is not part of the result.
        max_length: L, the maximum number of steps. A sequence that has not ended by then is
            returned without an end.
        min_length: the minimum number of tokens before the end.
        prefix: `[B, P]`, integers, the tokens that the sequences start with; negative where any
            token is allowed. If P is known only when the graph runs, tokens after the first L are
            ignored. A forced token is written even if it is impossible or forbidden. It counts with
            its log probability under the model, but at least -87.3, that of the smallest positive
            float32 number.
        no_repeat_ngram_size: n, if no n-gram may occur twice in a sequence; 0 for no limit.
        logits_processors: list of functions `(logits [B, V], tokens [B, L], step) -> logits` that
            change the log probabilities before the choice, such as `RepetitionPenalty`.
        pad: the value after the end of a sequence.

    Returns:
        A `SearchResult` with one sequence per example. Its log probabilities are those of the
        model, before `logits_processors`.

    Raises:
        ValueError: if an argument is out of its range, or has the wrong type or shape.

    >>> import numpy as np
    >>> from unroll import layers
    >>> decoder = layers.RecurrentDecoder(50, 8, cells=[layers.LSTMCell(16)])
    >>> decoder.build((None, None))
    >>> states = decoder.initial_states(2)
    >>> result = layers.greedy(decoder.step_function(), states, start=1, end=2, max_length=7)
    >>> result.tokens.shape
    TensorShape([2, 7])
    """
    inputs = prepare(
        step_function,
        states,
        start=start,
        end=end,
        max_length=max_length,
        min_length=min_length,
        prefix=prefix,
        no_repeat_ngram_size=no_repeat_ngram_size,
        logits_processors=logits_processors,
        pad=pad,
    )

    def choose(scores, step):
        del step
        return argmax(scores)

    return generate(inputs, choose)
