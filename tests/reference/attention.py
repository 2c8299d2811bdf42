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
    query_kernel, key_kernel, scale = weights
    scores = [np.tanh(query @ query_kernel + m @ key_kernel) @ scale[:, 0] for m in memory]
    return attend(np.array(scores), memory, allowed)


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
