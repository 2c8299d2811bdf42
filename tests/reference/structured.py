"""Conditional random fields, by enumeration."""

from itertools import pairwise, product

import numpy as np


def paths(potentials, transitions, start, end) -> dict:
    """The score of each sequence of tags of one example `[T, K]`."""
    length, tags = potentials.shape
    scores = {}
    for path in product(range(tags), repeat=length):
        score = start[path[0]] + end[path[-1]] if path else 0.0
        score += sum(x[k] for x, k in zip(potentials, path, strict=True))
        score += sum(transitions[a, b] for a, b in pairwise(path))
        scores[path] = score
    return scores


def log_sum(scores) -> float:
    scores = np.array(list(scores))
    top = scores.max()
    return top + np.log(np.exp(scores - top).sum())


def crf(weights, potentials, states=(), mask=None) -> list:
    """log Z of each example."""
    if mask is None:
        mask = np.ones(potentials.shape[:2], "bool")
    rows = zip(potentials, mask, strict=True)
    return [np.array([log_sum(paths(x[keep], *weights).values()) for x, keep in rows])]


def crf_by_recursion(weights, potentials, states=(), mask=None) -> list:
    """As `crf`, by a recursion over the steps that are not masked."""
    transitions, start, end = weights
    result = []
    for x, keep in zip(potentials, mask, strict=True):
        first, *rest = x[keep]
        alpha = start + first
        for potential in rest:
            alpha = potential + [log_sum(alpha + column) for column in transitions.T]
        result.append(log_sum(alpha + end))
    return [np.array(result)]


def adaptive_softmax(cutoffs, weights, inputs, states=(), mask=None) -> list:
    """Grave et al. 2017, section 4.3: log P of each token, by its definition."""
    head, clusters, bias, *tails = weights
    ends = [*cutoffs[1:], cutoffs[-1] + len(tails[-1])]
    found = np.zeros((*inputs.shape[:-1], ends[-1]))
    for index in np.ndindex(inputs.shape[:-1]):
        x = inputs[index] if mask is None or mask[index] else 0 * inputs[index]
        scores = np.exp(np.concatenate([head @ x, x @ clusters]) + bias)
        y = scores / scores.sum()
        found[index][: cutoffs[0]] = np.log(y[: cutoffs[0]])
        for k, (start, end) in enumerate(zip(cutoffs, ends, strict=True)):
            own = np.exp(tails[2 * k + 1] @ (x @ tails[2 * k]))
            found[index][start:end] = np.log(y[cutoffs[0] + k] * own / own.sum())
    return [found]
