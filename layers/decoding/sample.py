"""Sampling."""

from collections.abc import Callable, Sequence

import numpy as np
from keras import ops, random

from unroll.layers.decoding.logits_processors import Temperature
from unroll.layers.decoding.ranking import top_k as select
from unroll.layers.decoding.search import SearchResult, generate, prepare
from unroll.layers.operations import require_size, take_rows


def sample(
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
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed=None,
    num_samples: int | None = None,
) -> SearchResult:
    """Generates sequences of random tokens, with the probabilities of the model.

    If no token is possible, since the logits are NaN or all tokens are forbidden, the sequence ends
    with a log probability of -1e9.

    Args:
        step_function: `(tokens [N], states) -> (logits [N, V], states, weights [N, S] or None)`,
            such as `AttentionDecoder.step_function` returns. N is B, or B times `num_samples`,
            where the rows of one example are consecutive. A logit of minus infinity, or of -1e9,
            makes a token impossible.
        states: the initial states, any nested structure of tensors `[B, ...]`.
        start: the token that the first step reads, an integer or `[B]`.
        end: the token that ends a sequence, or a list of such tokens. It is not part of the result.
        max_length: L, the maximum number of steps. A sequence that has not ended by then is
            returned without an end.
        min_length: the minimum number of tokens before the end.
        prefix: `[B, P]`, integers, the tokens that the sequences start with; negative where any
            token is allowed. Forced tokens are written and counted as in `greedy`.
        no_repeat_ngram_size: n, if no n-gram may occur twice in a sequence; 0 for no limit.
        logits_processors: list of functions `(logits [N, V], tokens [N, L], step) -> logits` that
            change the log probabilities before the choice, such as `RepetitionPenalty`.
        pad: the value after the end of a sequence.
        temperature: the logits are divided by it, after `logits_processors`. Values below 1 favor
            the most probable tokens.
        top_k: sample only from the k most probable tokens; 0 for all. Of equally probable tokens,
            those with the lower index come first.
        top_p: sample only from the smallest set of tokens with at least this total probability,
            after `top_k` (Holtzman et al. 2020, "The curious case of neural text degeneration",
            section 3.1). Of equally probable tokens, those with the lower index come first.
        seed: an integer, which gives the same tokens at each call, or a
            `keras.random.SeedGenerator`, which gives different ones. With an integer and
            `num_samples`, the random numbers are constants: the tokens are the same on each backend
            and in a compiled or exported search.
        num_samples: n, the number of sequences per example, along the second axis of the result;
            by default one, without that axis. All examples use the same random numbers, so that the
            samples of an example do not depend on the rest of the batch.

    Returns:
        A `SearchResult`. Its log probabilities are those of the model, before `logits_processors`,
        `temperature`, `top_k` and `top_p`.

    Raises:
        ValueError: if an argument is out of its range, or has the wrong type or shape.

    >>> import numpy as np
    >>> from unroll import layers
    >>> decoder = layers.RecurrentDecoder(50, 8, cells=[layers.LSTMCell(16)])
    >>> decoder.build((None, None))
    >>> limits = {"start": 1, "end": 2, "max_length": 7}
    >>> states = decoder.initial_states(2)
    >>> layers.sample(decoder.step_function(), states, num_samples=5, **limits).tokens.shape
    TensorShape([2, 5, 7])
    """
    heat = Temperature(temperature)
    top_k = require_size("top_k", top_k, minimum=0)
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p!r}.")
    if seed is not None and not isinstance(seed, random.SeedGenerator):
        seed = require_size("seed", seed, minimum=0)
    if num_samples is not None:
        num_samples = require_size("num_samples", num_samples)
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
        copies=num_samples or 1,
    )
    uniform = _uniform(inputs.max_length, inputs.batch, num_samples, seed)  # [L, N]

    def choose(scores, step):
        if temperature != 1:
            scores = heat(scores, None, step)
        number = ops.take(uniform, step, axis=0)[:, None]  # [N, 1]
        if not top_k and top_p == 1:
            return _inverse_cumulative(ops.softmax(scores, axis=-1), number)
        # From here on, the tokens are in the order of their scores.
        scores, tokens = select(scores, min(top_k or scores.shape[-1], scores.shape[-1]))
        if scores.shape[-1] == 1:
            return tokens[:, 0]
        probs = _truncate(ops.softmax(scores, axis=-1), top_p)
        return take_rows(tokens, _inverse_cumulative(probs, number)[:, None])[:, 0]

    result = generate(inputs, choose)
    if num_samples is None:
        return result
    return SearchResult(
        *(
            x if x is None else ops.reshape(x, (inputs.batch, num_samples, *ops.shape(x)[1:]))
            for x in result
        )
    )


def _uniform(length: int, batch, num_samples: int | None, seed):
    """A random number from 0 to 1 for each step and row, `[L, N]`.

    They are generated before the loop: in it, an integer seed would give equal numbers each time.
    """
    if num_samples is None:
        return random.uniform((length, batch), dtype="float32", seed=seed)
    shape = (length, num_samples)
    if isinstance(seed, int):
        numbers = ops.convert_to_tensor(np.random.default_rng(seed).random(shape, "float32"))
    else:
        numbers = random.uniform(shape, dtype="float32", seed=seed)
    return ops.tile(numbers, (1, batch))


def _truncate(probs, top_p: float):
    """The probabilities `[N, k]`, largest first, zero after a total of at least `top_p`."""
    before = ops.pad(ops.cumsum(probs, axis=-1)[:, :-1], ((0, 0), (1, 0)))
    return ops.where(before < top_p, probs, 0.0)


def _inverse_cumulative(probs, number):
    """The indices `[N]` at which the cumulative sum of `probs` `[N, k]` exceeds `number` `[N, 1]`.

    `number` is relative to the total.
    """
    cumulative = ops.cumsum(probs, axis=-1)  # [N, k]
    is_before = cumulative <= number * cumulative[:, -1:]
    # With a number close to one, rounding may lead past the last token of positive probability.
    positions = ops.arange(probs.shape[-1], dtype="int32")
    last = ops.max(ops.where(probs > 0, positions, 0), axis=-1)  # [N]
    return ops.minimum(ops.sum(ops.cast(is_before, "int32"), axis=-1), last)
