"""Independent oracles: the layers' equations again, in NumPy, in the plainest form there is.

Float64, one gate and one step at a time. A recurrent oracle is
`f(weights, sequences, states, mask=None, reverse=False) -> [outputs, *final states]`, with the
weights in the order of `layer.weights` and the outputs at their own places in time whatever the
direction. A layer without states takes `f(weights, inputs, states=(), mask=None)`.

Shape letters as in `layers`.
"""

from collections.abc import Callable, Sequence

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def identity(x):
    return x


def unroll(step: Callable, sequences, states: Sequence, mask=None, reverse: bool = False) -> list:
    """Runs `step(x_t, states) -> states` on every sequence by itself; the first state is put out.

    Where the mask is False nothing happens, and the output is that of the step before.
    """
    batch, time, _ = sequences.shape
    outputs = np.zeros((batch, time, states[0].shape[-1]))
    final = [np.array(s, "float64") for s in states]
    for b in range(batch):
        current = [s[b] for s in final]
        for t in reversed(range(time)) if reverse else range(time):
            if mask is None or mask[b, t]:
                current = step(sequences[b, t], current)
            outputs[b, t] = current[0]
        for whole, row in zip(final, current, strict=True):
            whole[b] = row
    return [outputs, *final]


def zeros(sequences, *sizes) -> list:
    return [np.zeros((len(sequences), size)) for size in sizes]


def lstm(weights, sequences, states, mask=None, reverse=False, gate=sigmoid, activation=np.tanh):
    """Gers et al. 2000, the gates' columns in the order input, forget, candidate, output."""
    (w_i, w_f, w_g, w_o), (r_i, r_f, r_g, r_o) = (np.split(w, 4, axis=1) for w in weights[:2])
    b_i, b_f, b_g, b_o = np.split(weights[2], 4) if len(weights) > 2 else np.zeros(4)

    def step(x, states):
        h, c = states
        i = gate(x @ w_i + h @ r_i + b_i)
        f = gate(x @ w_f + h @ r_f + b_f)
        o = gate(x @ w_o + h @ r_o + b_o)
        g = activation(x @ w_g + h @ r_g + b_g)
        c = f * c + i * g
        return [o * activation(c), c]

    return unroll(step, sequences, states, mask, reverse)


def peephole_lstm(weights, sequences, states, mask=None, reverse=False):
    """Gers and Schmidhuber 2000: input and forget gate see c_{t-1}, the output gate c_t."""
    (w_i, w_f, w_g, w_o), (r_i, r_f, r_g, r_o) = (np.split(w, 4, axis=1) for w in weights[:2])
    b_i, b_f, b_g, b_o = np.split(weights[2], 4)
    p_i, p_f, p_o = weights[3]

    def step(x, states):
        h, c = states
        i = sigmoid(x @ w_i + h @ r_i + p_i * c + b_i)
        f = sigmoid(x @ w_f + h @ r_f + p_f * c + b_f)
        c = f * c + i * np.tanh(x @ w_g + h @ r_g + b_g)
        return [sigmoid(x @ w_o + h @ r_o + p_o * c + b_o) * np.tanh(c), c]

    return unroll(step, sequences, states, mask, reverse)


def elman(weights, sequences, states, mask=None, reverse=False):
    """Elman 1990, the hidden layer."""
    w, r, b = weights

    def step(x, states):
        return [np.tanh(x @ w + states[0] @ r + b)]

    return unroll(step, sequences, states, mask, reverse)


def bidirectional(oracle, weights, sequences, states, mask=None) -> list:
    """Schuster and Paliwal 1997: both directions side by side, zero where the mask is False."""
    n, s = len(weights) // 2, len(states) // 2
    ahead = oracle(weights[:n], sequences, states[:s], mask)
    back = oracle(weights[n:], sequences, states[s:], mask, reverse=True)
    outputs = np.concatenate([ahead[0], back[0]], axis=-1)
    if mask is not None:
        outputs = outputs * mask[..., None]
    return [outputs, *ahead[1:], *back[1:]]


def stack(plan, weights, sequences, states, mask=None, both=False, skip=None) -> list:
    """Layers one upon another; `plan` has each one's oracle, its number of weights and of states.

    `both` makes each one bidirectional. `skip`: x_k = f_k(x_{k-1}) + x_{k-1} where that is
    possible (residual), or x_k = f_k([x_0; ...; x_{k-1}]) with the output [x_1; ...; x_K] (dense).
    """
    weights, states = list(weights), list(states)
    below, collected, final = sequences, [], []
    for oracle, weight_count, state_count in plan:
        n, s = weight_count * (1 + both), state_count * (1 + both)
        own, weights = weights[:n], weights[n:]
        start, states = states[:s], states[s:]
        if both:
            y, *new = bidirectional(oracle, own, below, start, mask)
        else:
            y, *new = oracle(own, below, start, mask)
        final += new
        collected.append(y)
        if skip == "dense":
            below = np.concatenate([sequences, *collected], axis=-1)
        elif skip == "residual" and y.shape == below.shape:
            below = below + y
        else:
            below = y
    return [np.concatenate(collected, axis=-1) if skip == "dense" else below, *final]


def segments(oracle, length, weights, sequences, states=(), mask=None) -> list:
    """Johnson and Zhang 2016: each segment is read from the same first state."""
    parts = []
    for start in range(0, sequences.shape[1], length):
        part = np.s_[:, start : start + length]
        outputs, *_ = oracle(weights, sequences[part], None if mask is None else mask[part])
        parts.append(outputs)
    return [np.concatenate(parts, axis=1)]


def softmax(scores, mask) -> np.ndarray:
    """Over the allowed places of one row; all zeros where there are none."""
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
    shares = np.stack(
        [
            softmax(np.array([np.tanh(h @ kernel + bias) @ context[:, 0] for h in hs]), allowed)
            for hs, allowed in zip(sequences, mask, strict=True)
        ]
    )
    pooled = [
        sum(a * h for a, h in zip(row, hs, strict=True))
        for row, hs in zip(shares, sequences, strict=True)
    ]
    return [np.stack(pooled), shares]


def word_hashing(weights, trigrams, states=(), mask=None) -> list:
    """Huang et al. 2013: the multi-hot vector of a word's trigrams, times the matrix."""
    (matrix,) = weights
    bags = np.zeros((*trigrams.shape[:-1], len(matrix)))
    for place in np.ndindex(trigrams.shape):
        if trigrams[place]:
            bags[(*place[:-1], trigrams[place])] = 1
    return [bags @ matrix]


def unchanged(weights, inputs, states=(), mask=None) -> list:
    return [inputs]
