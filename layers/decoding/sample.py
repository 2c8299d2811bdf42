"""Sampling."""

from collections.abc import Callable

from keras import ops, random

from unroll.layers.decoding.logits_rules import make_rules
from unroll.layers.decoding.search import SearchResult, generate, start_tokens
from unroll.layers.operations import require_size


def sample(
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
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed=None,
    num_samples: int | None = None,
) -> SearchResult:
    """Generates sequences of random tokens, with the probabilities of the model.

    Args:
        step_function: `(tokens [N], states) -> (logits [N, V], states, weights [N, S] or None)`,
            such as `AttentionDecoder.step_function` returns. N is B, or B times `num_samples`,
            where the rows of one example are consecutive.
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
        temperature: the logits are divided by it. Values below 1 favor the most probable tokens.
        top_k: sample only from the k most probable tokens; 0 for all.
        top_p: sample only from the smallest set of tokens with at least this total probability
            (Holtzman et al. 2020, "The curious case of neural text degeneration").
        seed: an integer, which gives the same tokens at each call, or a
            `keras.random.SeedGenerator`, which gives different ones.
        num_samples: n, the number of sequences per example, along the second axis of the result;
            by default one, without that axis. All examples use the same random numbers, so that the
            samples of an example do not depend on the rest of the batch.

    Returns:
        A `SearchResult`. Its log probabilities are those of the model, before `temperature`,
        `top_k` and `top_p`.

    Raises:
        ValueError: if a number is out of its range, or `prefix` has the wrong shape.

    >>> import numpy as np
    >>> from unroll import layers
    >>> decoder = layers.RecurrentDecoder(50, 8, cells=[layers.LSTMCell(16)])
    >>> decoder.build((None, None))
    >>> limits = {"start": 1, "end": 2, "max_length": 7}
    >>> states = decoder.initial_states(2)
    >>> layers.sample(decoder.step_function(), states, num_samples=5, **limits).tokens.shape
    TensorShape([2, 5, 7])
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature!r}.")
    if not isinstance(top_k, int) or top_k < 0:
        raise ValueError(f"top_k must be an integer of at least 0, got {top_k!r}.")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p!r}.")
    if num_samples is not None:
        require_size("num_samples", num_samples)
    rules = make_rules(end, max_length, min_length, prefix, no_repeat_ngram_size)
    batch = ops.shape(states[0])[0]
    # Generated before the loop: in the loop an integer seed would give equal numbers at each step.
    columns = batch if num_samples is None else num_samples
    numbers = random.uniform((max_length, columns), seed=seed)  # [L, N]
    if num_samples is not None:
        numbers = ops.tile(numbers, (1, batch))
        start = ops.repeat(start_tokens(start, states), num_samples, axis=0)
        states = [ops.repeat(s, num_samples, axis=0) for s in states]
        rules = rules.repeat_rows(num_samples)

    def choose(log_probs, step):
        probs = ops.softmax(log_probs / temperature, axis=-1)  # [N, V]
        probs = _truncate(probs, top_k, top_p)
        is_step = ops.arange(max_length)[:, None] == step
        number = ops.sum(ops.where(is_step, numbers, 0.0), axis=0)[:, None]  # [N, 1]
        return _inverse_cumulative(probs, number)

    result = generate(step_function, states, start, rules, max_length, pad, choose)
    if num_samples is None:
        return result
    return SearchResult(
        *(
            x if x is None else ops.reshape(x, (batch, num_samples, *ops.shape(x)[1:]))
            for x in result
        )
    )


def _truncate(probs, top_k: int, top_p: float):
    """The probabilities `[N, V]`, zero outside of the top k and the top p."""
    k = min(top_k, probs.shape[-1])
    if k:
        threshold = ops.top_k(probs, k)[0][:, -1:]  # [N, 1]
        probs = ops.where(probs >= threshold, probs, 0.0)
    if top_p < 1:
        probs = probs / ops.sum(probs, axis=-1, keepdims=True)
        ordered = ops.flip(ops.sort(probs, axis=-1), axis=-1)
        before = ops.cumsum(ordered, axis=-1) - ordered
        threshold = ops.min(ops.where(before < top_p, ordered, 1.0), axis=-1, keepdims=True)
        probs = ops.where(probs >= threshold, probs, 0.0)
    return probs


def _inverse_cumulative(probs, number):
    """The tokens `[N]` at which the cumulative sum of `probs` `[N, V]` exceeds `number` `[N, 1]`.

    `number` is relative to the total.
    """
    cumulative = ops.cumsum(probs, axis=-1)  # [N, V]
    is_before = cumulative <= number * cumulative[:, -1:]
    # With a number close to one, rounding may lead past the last token of positive probability.
    tokens = ops.arange(probs.shape[-1], dtype="int32")
    last = ops.max(ops.where(probs > 0, tokens, 0), axis=-1)  # [N]
    return ops.minimum(ops.sum(ops.cast(is_before, "int32"), axis=-1), last)
