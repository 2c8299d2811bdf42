"""Minimum Bayes risk decoding."""

from keras import ops

from unroll.layers.decoding.ranking import top_k
from unroll.layers.decoding.search import SearchResult
from unroll.layers.operations import LOG_ZERO, require_size, take_rows


def minimum_bayes_risk(
    candidates: SearchResult,
    samples: SearchResult,
    *,
    order: int = 2,
    num_return_sequences: int = 1,
) -> SearchResult:
    """Selects the candidates that are most similar to samples of the model.

    Kumar and Byrne 2004, "Minimum Bayes-risk decoding for statistical machine translation",
    equation 1, with the expectation estimated from samples (Eikema and Aziz 2022, "Sampling-based
    approximations to minimum Bayes risk decoding for neural machine translation", equation 4). The
    most probable sequence is often short and unspecific. The sequence with the minimum Bayes risk
    has the highest expected similarity to the sequences that the model generates. The similarity of
    a candidate c and a sample e is

        u(c, e) = 2 matches / (n-grams of c + n-grams of e)

    over the n-grams of 1 to `order` tokens, where an n-gram that occurs several times matches as
    often as it occurs in both. The score of a candidate is the mean of u over the samples, from 0
    to 1.

    Args:
        candidates: `[B, n, L]`, for instance the result of `beam_search`.
        samples: `[B, m, L']`, for instance the result of `sample` with `num_samples`.
        order: the maximum length of the n-grams.
        num_return_sequences: k, the number of candidates to return, best first.

    Returns:
        A `SearchResult` with k sequences per example, the means as its `scores`. Of candidates with
        equal means, the first comes first. Candidates with a log probability of -1e9, such as the
        missing ones of a beam search, are last, with a score of -1e9; such samples do not count.

    Raises:
        ValueError: if a number is not an integer or out of its range, or `candidates` or `samples`
            has one sequence per example.

    >>> from unroll import layers
    >>> decoder = layers.RecurrentDecoder(50, 8, cells=[layers.LSTMCell(16)])
    >>> decoder.build((None, None))
    >>> step_function, states = decoder.step_function(), decoder.initial_states(2)
    >>> limits = {"start": 1, "end": 2, "max_length": 7}
    >>> candidates = layers.beam_search(step_function, states, num_return_sequences=5, **limits)
    >>> samples = layers.sample(step_function, states, num_samples=20, **limits)
    >>> layers.minimum_bayes_risk(candidates, samples).tokens.shape
    TensorShape([2, 1, 7])

    Differs from the papers: the similarity of two empty sequences is 1.
    """
    order = require_size("order", order)
    num_return_sequences = require_size("num_return_sequences", num_return_sequences)
    for name, result in (("candidates", candidates), ("samples", samples)):
        if len(result.tokens.shape) != 3:
            raise ValueError(
                f"{name} must have several sequences per example, [B, n, L], got the shape "
                f"{tuple(result.tokens.shape)}."
            )
    count = candidates.tokens.shape[1]
    if count is not None and num_return_sequences > count:
        raise ValueError(
            f"num_return_sequences must be at most the number of candidates, {count}, got "
            f"{num_return_sequences}."
        )
    is_counted = ops.cast(_exists(samples), "float32")[:, None]  # [B, 1, m]
    total = ops.sum(_similarities(candidates, samples, order) * is_counted, axis=-1)  # [B, n]
    similarity = total / ops.maximum(ops.sum(is_counted, axis=-1), 1.0)
    # The mean is at least zero, so that missing candidates are last.
    ranked = candidates._replace(scores=ops.where(_exists(candidates), similarity, LOG_ZERO))
    rows = top_k(ranked.scores, num_return_sequences)[1]
    return SearchResult(*(x if x is None else take_rows(x, rows) for x in ranked))


def _exists(result: SearchResult):
    """Whether the sequences are possible, `[B, n]`."""
    return result.log_probabilities > LOG_ZERO / 2


def _similarities(candidates: SearchResult, samples: SearchResult, order: int):
    """u of each candidate and each sample, `[B, n, m]`."""
    tokens, others = candidates.tokens, samples.tokens
    # Whether the tokens at two positions are equal: of a candidate and a sample `[B, n, m, L, L']`,
    # and of a candidate and itself `[B, n, L, L]`.
    across = ops.equal(tokens[:, :, None, :, None], others[:, None, :, None, :])
    within = ops.equal(tokens[:, :, :, None], tokens[:, :, None, :])
    positions = ops.arange(ops.shape(tokens)[2])
    is_earlier = positions[None, :] < positions[:, None]  # [L, L]
    # The same for the n-grams that start at the two positions.
    equal_across, equal_within = across, within
    matches = total = 0.0
    for n in range(1, order + 1):
        if n > 1:
            equal_across = ops.logical_and(equal_across, _shift_left(across, n - 1))
            equal_within = ops.logical_and(equal_within, _shift_left(within, n - 1))
        starts = _starts_ngram(candidates.lengths, ops.shape(tokens)[2], n)  # [B, n, L]
        starts_other = _starts_ngram(samples.lengths, ops.shape(others)[2], n)  # [B, m, L']
        occurrences = _count(ops.logical_and(equal_across, starts_other[:, None, :, None, :]))
        # The k-th occurrence of an n-gram matches if the sample contains it k times.
        earlier = _count(ops.logical_and(equal_within, is_earlier))  # [B, n, L]
        is_match = ops.logical_and(occurrences > earlier[:, :, None], starts[:, :, None])
        matches = matches + _count(is_match)  # [B, n, m]
        total = total + _count(starts)[:, :, None] + _count(starts_other)[:, None, :]
    return ops.where(total > 0, 2 * matches / ops.maximum(total, 1.0), 1.0)


def _count(x):
    """The number of true values along the last axis, as float32."""
    return ops.sum(ops.cast(x, "float32"), axis=-1)


def _starts_ngram(lengths, size: int, n: int):
    """Whether an n-gram starts at each of `size` positions, `[..., size]`."""
    return ops.arange(size) + n <= ops.expand_dims(lengths, -1)


def _shift_left(x, n: int):
    """`x` shifted by n positions along both of the last axes, padded with False."""
    pad = [(0, 0)] * (len(x.shape) - 2) + [(0, n), (0, n)]
    return ops.pad(x, pad, constant_values=False)[..., n:, n:]
