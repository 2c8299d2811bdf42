"""Of several sequences the one that is most like what else could be said."""

from keras import ops

from unroll.layers.decoding.search import SearchResult
from unroll.layers.operations import LOG_ZERO, require_size, take_rows


def minimum_bayes_risk(
    candidates: SearchResult,
    evidence: SearchResult,
    *,
    order: int = 2,
    num_return_sequences: int = 1,
):
    """The candidates that agree most with sequences drawn from the model.

    Kumar and Byrne 2004, "Minimum Bayes-risk decoding for statistical machine translation",
    equation 1, with the expectation over samples (Eikema and Aziz 2022, "Sampling-based
    approximations to minimum Bayes risk decoding for neural machine translation", equation 4). The
    likeliest sequence is often a short and common one, though most of the probability lies on
    others; this one shares with them as much as can be. What a candidate c and a sample e share is

        u(c, e) = 2 matches / (n-grams of c + n-grams of e)

    over the n-grams of one to `order` words, each of which matches as often as it stands in both;
    the score of a candidate is the mean of u over the samples, from 0 to 1.

    Args:
        candidates: `[B, n, L]`, of `beam_search` with `num_return_sequences` above 1, or of `sample`.
        evidence: `[B, m, L']`, of `sample` with `num_samples`.
        order: the most words of the n-grams that are compared.
        num_return_sequences: k, how many candidates to return, from the best down.

    Returns:
        `SearchResult`, `[B, k, ...]`, with the means as its `scores`. Candidates that do not exist come
        last.

    Raises:
        ValueError: if a number is out of its range, or a `SearchResult` holds one sequence per example.
    """
    require_size("order", order)
    require_size("num_return_sequences", num_return_sequences)
    for name, found in (("candidates", candidates), ("evidence", evidence)):
        if len(found.tokens.shape) != 3:
            raise ValueError(
                f"{name} must hold several sequences per example, [B, n, L], got the shape "
                f"{tuple(found.tokens.shape)}."
            )
    count = candidates.tokens.shape[1]
    if num_return_sequences > count:
        raise ValueError(
            f"num_return_sequences must be at most the number of candidates, got {num_return_sequences} of {count}."
        )
    own, others = candidates.tokens, evidence.tokens
    # Whether the n-grams that begin at two places are the same, n by n: `[B, n, m, L, L']`, and
    # within a candidate `[B, n, L, L]`.
    across = ops.equal(own[:, :, None, :, None], others[:, None, :, None, :])
    within = ops.equal(own[:, :, :, None], own[:, :, None, :])
    same_across, same_within = across, within
    places = ops.arange(own.shape[2])
    before = places[None, :] < places[:, None]  # [L, L]
    matches = total = 0.0
    for n in range(1, order + 1):
        if n > 1:
            same_across = ops.logical_and(same_across, _moved(across, n - 1))
            same_within = ops.logical_and(same_within, _moved(within, n - 1))
        is_own = _begin(candidates.lengths, own.shape[2], n)  # [B, n, L]
        is_other = _begin(evidence.lengths, others.shape[2], n)  # [B, m, L']
        there = ops.logical_and(same_across, is_other[:, None, :, None, :])
        there = ops.sum(ops.cast(there, "float32"), axis=-1)  # [B, n, m, L]
        # The k-th of equal n-grams of a candidate matches if the sample has k of them.
        earlier = ops.sum(ops.cast(ops.logical_and(same_within, before), "float32"), axis=-1)
        match = ops.logical_and(there > earlier[:, :, None], is_own[:, :, None])
        matches = matches + ops.sum(ops.cast(match, "float32"), axis=-1)  # [B, n, m]
        sizes = [ops.sum(ops.cast(x, "float32"), axis=-1) for x in (is_own, is_other)]
        total = total + sizes[0][:, :, None] + sizes[1][:, None, :]
    # Of two sequences without words one says as much as the other.
    like = ops.where(total > 0, 2 * matches / ops.maximum(total, 1.0), 1.0)
    scores = ops.mean(like, axis=-1)  # [B, n]
    scores = ops.where(candidates.log_probabilities > LOG_ZERO / 2, scores, LOG_ZERO + scores)
    _, rows = ops.top_k(scores, num_return_sequences)
    rows = ops.cast(rows, "int32")
    ranked = candidates._replace(scores=scores)
    return SearchResult(*(x if x is None else take_rows(x, rows) for x in ranked))


def _begin(lengths, size: int, n: int):
    """At which of `size` places of sequences with so many words n-grams begin, `[..., size]`."""
    return ops.arange(size) + n <= ops.expand_dims(lengths, -1)


def _moved(same, n: int):
    """At each place what is n places behind it, along both of the last axes."""
    pad = [(0, 0)] * (len(same.shape) - 2) + [(0, n), (0, n)]
    return ops.pad(same, pad, constant_values=False)[..., n:, n:]
