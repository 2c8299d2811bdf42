"""Attention layers, one query and one memory at a time."""

import numpy as np


def softmax(scores, mask) -> np.ndarray:
    """The softmax of one row where `mask` is True; zeros if it is False everywhere."""
    weights = np.zeros(len(scores))
    if mask.any():
        e = np.exp(scores[mask] - scores[mask].max())
        weights[mask] = e / e.sum()
    return weights


def attention_pool(weights, sequences, states=(), mask=None) -> list:
    """Yang et al. 2016, equations 5 to 7."""
    kernel, bias, context = weights
    if mask is None:
        mask = np.ones(sequences.shape[:2], "bool")
    all_weights = np.stack(
        [
            softmax(np.array([np.tanh(h @ kernel + bias) @ context[:, 0] for h in hs]), allowed)
            for hs, allowed in zip(sequences, mask, strict=True)
        ]
    )
    pooled = [
        sum(a * h for a, h in zip(row, hs, strict=True))
        for row, hs in zip(all_weights, sequences, strict=True)
    ]
    return [np.stack(pooled), all_weights]


def attend(scores, memory, allowed) -> tuple:
    """The weighted sum of a memory and the weights, from the scores of one query."""
    weights = softmax(scores, allowed)
    return sum(a * m for a, m in zip(weights, memory, strict=True)), weights


def bahdanau_one(weights, query, memory, allowed) -> tuple:
    """Bahdanau, Cho and Bengio 2015, section A.1.2."""
    return attend(bahdanau_scores(weights, query, memory), memory, allowed)


def bahdanau_scores(weights, query, memory) -> np.ndarray:
    """The scores of one query; with g and b as further weights those of Raffel et al. 2017."""
    query_kernel, key_kernel, scale, *normalization = weights
    g, b = normalization or (np.linalg.norm(scale), 0.0)
    v = g * scale[:, 0] / np.linalg.norm(scale)
    return np.array([np.tanh(query @ query_kernel + m @ key_kernel + b) @ v for m in memory])


def monotonic(weights, memory, states, mask=None, hard=False, general=False) -> list:
    """Raffel et al. 2017, section 2, for several queries of each memory.

    The scores are those of additive attention; with `general`, those of Luong et al. 2015, and the
    vectors are theirs.
    """
    bias, *weights = weights
    if mask is None:
        mask = np.ones(memory.shape[:2], "bool")
    vectors, alignments = [], []
    for b, m in enumerate(memory):
        previous = np.eye(len(m))[0]
        vectors.append([])
        alignments.append([])
        for query in (s[b] for s in states):
            if general:
                e = np.array([query @ (x @ weights[0]) for x in m]) + bias
            else:
                e = bahdanau_scores(weights, query, m) + bias
            p = (e > 0) * 1.0 if hard else 1 / (1 + np.exp(-e))
            p = p * mask[b]
            previous = np.array([chosen_first(p, previous, j) for j in range(len(m))])
            vector = sum(
                a * x for a, x in zip(previous, np.where(mask[b][:, None], m, 0), strict=True)
            )
            if general:
                vector = np.tanh(np.concatenate([vector, query]) @ weights[1])
            vectors[-1].append(vector)
            alignments[-1].append(previous)
    return [np.array(vectors), np.array(alignments)]


def chosen_first(p, previous, j: int) -> float:
    """The probability that j is the first position that is chosen from that before."""
    return p[j] * sum(previous[k] * np.prod(1 - p[k:j]) for k in range(j + 1))


def luong_one(
    weights,
    query,
    memory,
    allowed,
    score="general",
    window="global",
    half_width=10,
    position=None,
    vector=True,
) -> tuple:
    """Luong, Pham and Manning 2015, equations 5 to 10."""
    weights = list(weights)
    if score == "dot":
        scores = [query @ m for m in memory]
    elif score == "general":
        kernel = weights.pop(0)
        scores = [query @ (m @ kernel) for m in memory]
    elif score == "concat":
        kernel = np.concatenate([weights.pop(0), weights.pop(0)])
        scale = weights.pop(0)[:, 0]
        scores = [scale @ np.tanh(np.concatenate([query, m]) @ kernel) for m in memory]
    else:
        scores = (query @ weights.pop(0))[: len(memory)]
    allowed = allowed.copy()
    factors = np.ones(len(memory))
    if window == "local_p":
        kernel, scale = weights.pop(0), weights.pop(0)
        length = 1 + np.flatnonzero(allowed)[-1] if allowed.any() else 0
        position = length / (1 + np.exp(-np.tanh(query @ kernel) @ scale[:, 0]))
    if window != "global":
        for s in range(len(memory)):
            allowed[s] &= abs(s - position) <= half_width
            if window == "local_p":
                factors[s] = np.exp(-((s - position) ** 2) / (2 * (half_width / 2) ** 2))
    attention = softmax(np.array(scores), allowed) * factors
    context = sum(a * m for a, m in zip(attention, memory, strict=True))
    if vector:
        context = np.tanh(np.concatenate([context, query]) @ weights.pop(0))
    return context, attention


def by_rows(one, weights, memory, states, mask=None, **options) -> list:
    """`one(weights, query, memory, allowed)` for each example; the queries are the only state."""
    if mask is None:
        mask = np.ones(memory.shape[:2], "bool")
    found = [one(weights, *row, **options) for row in zip(states[0], memory, mask, strict=True)]
    return [np.stack(part) for part in zip(*found, strict=True)]
