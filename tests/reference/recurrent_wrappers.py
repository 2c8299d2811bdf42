"""What surrounds recurrent layers: both directions, stacks, blocks, segments."""

import numpy as np

from tests.reference.recurrent import sigmoid


def bidirectional(oracle, weights, sequences, states, mask=None) -> list:
    """Schuster and Paliwal 1997: both outputs concatenated, zero where the mask is False."""
    n, s = len(weights) // 2, len(states) // 2
    forward = oracle(weights[:n], sequences, states[:s], mask)
    backward = oracle(weights[n:], sequences, states[s:], mask, reverse=True)
    outputs = np.concatenate([forward[0], backward[0]], axis=-1)
    if mask is not None:
        outputs = outputs * mask[..., None]
    return [outputs, *forward[1:], *backward[1:]]


def stack(plan, weights, sequences, states, mask=None, both=False, skip=None) -> list:
    """Stacked layers; `plan` has the oracle, the number of weights and of states of each layer.

    `both` makes each layer bidirectional. `skip`: x_k = f_k(x_{k-1}) + x_{k-1} where the sizes are
    equal (residual), or x_k = f_k([x_0; ...; x_{k-1}]) with the output [x_1; ...; x_K] (dense).
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


def residual_block(
    oracle, weights, sequences, states, mask=None, width=None, projected=False, gated=False, wide=0
) -> list:
    """De et al. 2024, sections 2.1 to 2.3, step by step; each sequence without its masked steps.

    Args:
        oracle: that of the recurrent layer.
        weights: of the input, the convolution, the gate, the output and the feed-forward part, of
            the normalizations, and of the layer.
        width: the number of steps that the convolution reads, or None.
        projected, gated: whether there are a projection of the input and a gate.
        wide: F, the size of the feed-forward part.
    """
    weights, states = list(weights), [np.array(s, "float64") for s in states]

    def take(number, present=True):
        return [weights.pop(0) for _ in range(number)] if present else None

    of_input, convolution, gate = take(2, projected), take(2, width), take(2, gated)
    output, feed_forward = take(2), take(4, wide)
    scales = take(1 + bool(wide))
    outputs = np.zeros_like(sequences, "float64")

    def silu(x):
        return x * sigmoid(x)

    def norm(x, scale):
        return x / np.sqrt((x**2).sum(axis=-1, keepdims=True) / x.shape[-1] + 1e-6) * scale

    for b, sequence in enumerate(sequences):
        kept = np.ones(len(sequence), "bool") if mask is None else mask[b]
        x = sequence[kept]
        n = u = norm(x, scales[0])
        if projected:
            u = u @ of_input[0] + of_input[1]
        own = [s[b : b + 1] for s in states]
        if width:
            rows = [*own.pop(0).reshape(width - 1, -1), *u]
            windows = [np.stack(rows[t : t + width]) for t in range(len(x))]
            u = [(convolution[0] * window).sum(axis=0) + convolution[1] for window in windows]
            states[0][b] = np.concatenate(rows[len(x) :])
        if len(x):
            (y,), *final = oracle(weights, np.stack(u)[None], own)
            for state, new in zip(states[bool(width) :], final, strict=True):
                state[b] = new[0]
        else:
            y = np.zeros((0, len(output[0])))
        y = y * silu(n @ gate[0] + gate[1]) if gated else y
        x = x + y @ output[0] + output[1]
        if wide:
            p, q = np.split(norm(x, scales[1]) @ feed_forward[0] + feed_forward[1], 2, axis=1)
            x = x + (silu(p) * q) @ feed_forward[2] + feed_forward[3]
        outputs[b][kept] = x
    return [outputs, *states]


def segments(oracle, length, weights, sequences, states=(), mask=None) -> list:
    """Johnson and Zhang 2016: each segment starts from the same state."""
    parts = []
    for start in range(0, sequences.shape[1], length):
        part = np.s_[:, start : start + length]
        outputs, *_ = oracle(weights, sequences[part], None if mask is None else mask[part])
        parts.append(outputs)
    return [np.concatenate(parts, axis=1)]
