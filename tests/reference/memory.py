"""Memory networks and question-guided attention, one example at a time."""

import numpy as np

from tests.reference.attention import softmax


def bag_of_words(words, kernel, position_encoding=True) -> np.ndarray:
    """The vector of one fact or question from the ids of its words; 0 is padding."""
    words = [w for w in words if w]
    units = kernel.shape[1]
    total = np.zeros(units)
    for j, word in enumerate(words, start=1):
        position = j / len(words)
        for d in range(units):
            factor = (1 - position) - (d + 1) / units * (1 - 2 * position)
            total[d] += (2 * factor if position_encoding else 1) * kernel[word, d]
    return total


def memory_network(
    weights,
    facts,
    states=(),
    mask=None,
    hops=3,
    tying="adjacent",
    memory_size=None,
    return_logits=False,
    linear=False,
    encode=None,
) -> list:
    """Sukhbaatar et al. 2015; the question is the only state."""
    encode = encode or (lambda x, kernel: x @ kernel)
    if mask is None:
        mask = np.ones(facts.shape[:2], "bool")
    weights = list(weights)
    count = hops + 1 if tying == "adjacent" else 2
    kernels = [weights.pop(0) for _ in range(count)]
    temporal_encodings = [weights.pop(0) for _ in range(count if memory_size else 0)]
    question_kernel, state_kernel = kernels[0], np.eye(kernels[0].shape[1])
    if tying == "layer_wise":
        question_kernel, state_kernel = weights.pop(0), weights.pop(0)
    outputs, all_weights = [], []
    for xs, q, allowed in zip(facts, states[0], mask, strict=True):
        u = encode(q, question_kernel)
        all_weights.append([])
        for k in range(hops):
            own = (0, 1) if tying == "layer_wise" else (k, k + 1)
            m, c = ([encode(x, kernels[i]) for x in xs] for i in own)
            if memory_size:
                for s in range(len(xs)):
                    age = allowed[s + 1 :].sum()
                    m[s], c[s] = (
                        m[s] + temporal_encodings[own[0]][age],
                        c[s] + temporal_encodings[own[1]][age],
                    )
            scores = np.array([u @ x for x in m])
            empty = max(memory_size - allowed.sum(), 0) if memory_size else 0
            slots = np.append(allowed, np.ones(empty, "bool"))
            p = softmax(np.append(scores, np.zeros(empty)), slots)[: len(xs)]
            p = scores * allowed if linear else p
            all_weights[-1].append(p)
            u = u @ state_kernel + sum(a * x for a, x in zip(p, c, strict=True))
        if return_logits:
            u = u @ (kernels[-1].T if tying == "adjacent" else weights[0])
        outputs.append(u)
    return [np.array(outputs), np.array(all_weights)]


def question_guided(weights, regions, states=(), mask=None, normalize=True) -> list:
    """Kim et al. 2017, equations 8 and 9; the question is the only state.

    With a `gate_bias` the result also contains the gated sums of `count_features`.
    """
    region_kernel, question_kernel, scale, region_bias, question_bias, *gate_bias = weights
    if mask is None:
        mask = np.ones(regions.shape[:2], "bool")
    outputs, all_weights = [], []
    for vs, question, allowed in zip(regions, states[0], mask, strict=True):
        factor = np.tanh(question @ question_kernel + question_bias)
        products = [np.tanh(v @ region_kernel + region_bias) * factor for v in vs]
        if normalize:
            products = [p / np.sqrt(p @ p + 1e-6) for p in products]
        scores = [np.array([p @ w for p in products]) for w in scale.T]
        rows = [softmax(e, allowed) for e in scores]
        all_weights.append(rows)
        attended = []
        for g, row in enumerate(rows):
            attended.append(sum(a * v for a, v in zip(row, vs, strict=True)))
            if gate_bias:
                gates = allowed / (1 + np.exp(-scores[g] - gate_bias[0][g]))
                gated = [a * v for a, v in zip(gates, vs, strict=True)]
                attended.append(sum(gated) / np.sqrt(max(1, allowed.sum())))
        outputs.append(np.concatenate(attended))
    return [np.array(outputs), np.array(all_weights)]
