"""Recurrent layers whose steps multiply the state with weights, and the loop over time of all."""

from collections.abc import Callable, Sequence

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def identity(x):
    return x


def unroll(
    step: Callable, sequences, states: Sequence, mask=None, reverse: bool = False, after=None
) -> list:
    """Runs `step(x_t, states) -> states` on each sequence separately.

    The first state is the output. A step where the mask is False changes nothing, and its output is
    that of the step before. `after(states, new states, b, t)` replaces the new states.
    """
    batch, time, _ = sequences.shape
    outputs = np.zeros((batch, time, states[0].shape[-1]))
    final = [np.array(s, "float64") for s in states]
    for b in range(batch):
        current = [s[b] for s in final]
        for t in reversed(range(time)) if reverse else range(time):
            if mask is None or mask[b, t]:
                new = step(sequences[b, t], current)
                current = new if after is None else after(current, new, b, t)
            outputs[b, t] = current[0]
        for batch_state, state in zip(final, current, strict=True):
            batch_state[b] = state
    return [outputs, *final]


def zeros(sequences, *sizes) -> list:
    return [np.zeros((len(sequences), size)) for size in sizes]


def lstm(
    weights,
    sequences,
    states,
    mask=None,
    reverse=False,
    gate=sigmoid,
    activation=np.tanh,
    clip=identity,
    after=None,
):
    """Gers et al. 2000, the columns in the order input, forget, candidate, output."""
    (w_i, w_f, w_g, w_o), (r_i, r_f, r_g, r_o) = (np.split(w, 4, axis=1) for w in weights[:2])
    b_i, b_f, b_g, b_o = np.split(weights[2], 4) if len(weights) > 2 else np.zeros(4)

    def step(x, states):
        h, c = states
        i = gate(x @ w_i + h @ r_i + b_i)
        f = gate(x @ w_f + h @ r_f + b_f)
        o = gate(x @ w_o + h @ r_o + b_o)
        g = activation(x @ w_g + h @ r_g + b_g)
        c = clip(f * c + i * g)
        return [o * activation(c), c]

    return unroll(step, sequences, states, mask, reverse, after)


def peephole_lstm(weights, sequences, states, mask=None, reverse=False, clip=identity, after=None):
    """Gers and Schmidhuber 2000: input and forget gate read c_{t-1}, the output gate c_t."""
    (w_i, w_f, w_g, w_o), (r_i, r_f, r_g, r_o) = (np.split(w, 4, axis=1) for w in weights[:2])
    b_i, b_f, b_g, b_o = np.split(weights[2], 4)
    p_i, p_f, p_o = weights[3]

    def step(x, states):
        h, c = states
        i = sigmoid(x @ w_i + h @ r_i + p_i * c + b_i)
        f = sigmoid(x @ w_f + h @ r_f + p_f * c + b_f)
        c = clip(f * c + i * np.tanh(x @ w_g + h @ r_g + b_g))
        return [sigmoid(x @ w_o + h @ r_o + p_o * c + b_o) * np.tanh(c), c]

    return unroll(step, sequences, states, mask, reverse, after)


def coupled_lstm(weights, sequences, states, mask=None, reverse=False, clip=identity, after=None):
    """Greff et al. 2015, CIFG: the columns in the order forget, candidate, output."""
    (w_f, w_g, w_o), (r_f, r_g, r_o) = (np.split(w, 3, axis=1) for w in weights[:2])
    b_f, b_g, b_o = np.split(weights[2], 3)

    def step(x, states):
        h, c = states
        f = sigmoid(x @ w_f + h @ r_f + b_f)
        i = 1 - f
        c = clip(f * c + i * np.tanh(x @ w_g + h @ r_g + b_g))
        return [sigmoid(x @ w_o + h @ r_o + b_o) * np.tanh(c), c]

    return unroll(step, sequences, states, mask, reverse, after)


def layer_norm_lstm(
    weights,
    sequences,
    states,
    mask=None,
    reverse=False,
    epsilon=1e-3,
    clip=identity,
    after=None,
):
    """Ba, Kiros and Hinton 2016, equations 20 to 22."""
    w, r, b, input_gain, recurrent_gain, cell_gain, cell_bias = weights

    def norm(v, gain):
        mean = v.sum() / len(v)
        variance = ((v - mean) ** 2).sum() / len(v)
        return (v - mean) / np.sqrt(variance + epsilon) * gain

    def step(x, states):
        h, c = states
        i, f, g, o = np.split(norm(x @ w, input_gain) + norm(h @ r, recurrent_gain) + b, 4)
        c = clip(sigmoid(f) * c + sigmoid(i) * np.tanh(g))
        return [sigmoid(o) * np.tanh(norm(c, cell_gain) + cell_bias), c]

    return unroll(step, sequences, states, mask, reverse, after)


def extended_lstm(
    oracle,
    weights,
    sequences,
    states,
    mask=None,
    reverse=False,
    projection_clip=np.inf,
    cell_clip=np.inf,
    zoneout_cell=0.0,
    zoneout_hidden=0.0,
    kept=None,
):
    """An LSTM with a projection (Sak et al. 2014), clipping and zoneout (Krueger et al. 2017).

    The fourth weight is that of the projection. `kept` `[T, B, P + U]` tells which units of h and c
    keep their value; by default the probabilities do, as at inference.
    """
    weights = list(weights)
    projection = weights.pop(3)

    def after(states, new, b, t):
        h, c = new
        h = np.maximum(np.minimum(h @ projection, projection_clip), -projection_clip)
        d_h, d_c = zoneout_hidden, zoneout_cell
        if kept is not None:
            d_h, d_c = kept[t, b][: len(h)], kept[t, b][len(h) :]
        return [d_h * states[0] + (1 - d_h) * h, d_c * states[1] + (1 - d_c) * c]

    def clip(c):
        return np.maximum(np.minimum(c, cell_clip), -cell_clip)

    return oracle(weights, sequences, states, mask, reverse, clip=clip, after=after)


def slstm(weights, sequences, states, mask=None, reverse=False, forget_gate=sigmoid):
    """Beck et al. 2024, equations 8 to 17, head by head, with c and n that are not stabilized."""
    w, r, b = weights
    heads, size, _ = r.shape

    def step(x, states):
        h, c, n, m = states
        z_i, z_f, z_z, z_o = np.split(x @ w + b, 4)
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            for k, z in enumerate((z_i, z_f, z_z, z_o)):
                z[own] += h[own] @ r[head, :, k * size : (k + 1) * size]
        f = forget_gate(z_f)
        m_new = np.where(n == 0, z_i, np.maximum(np.log(f) + m, z_i))
        c = f * c * np.exp(m) + np.exp(z_i) * np.tanh(z_z)
        n = f * n * np.exp(m) + np.exp(z_i)
        return [sigmoid(z_o) * c / n, c * np.exp(-m_new), n * np.exp(-m_new), m_new]

    return unroll(step, sequences, states, mask, reverse)


def mlstm(
    weights,
    sequences,
    states,
    mask=None,
    reverse=False,
    heads=1,
    forget_gate=sigmoid,
    activation=identity,
):
    """Beck et al. 2024, equations 19 to 27, head by head, with C and n that are not stabilized."""
    w, b = weights
    units, keys = states[0].shape[1], states[2].shape[1]
    ends = np.cumsum([keys, keys, units, units, heads])

    def step(x, states):
        _, c, n, m = states
        q, k, v, o, i, f = np.split(x @ w + b, ends)
        m_new = np.maximum(np.log(forget_gate(f)) + m, i)
        k, v = k / np.sqrt(keys / heads), activation(v)
        parts = [np.split(part, heads) for part in (q, k, v, c, n)]
        outputs, memories, normalizers = [], [], []
        for head, (q, k, v, c, n) in enumerate(zip(*parts, strict=True)):
            forget, scale = forget_gate(f[head]), np.exp(-m_new[head])
            c = c.reshape(len(k), len(v)) * np.exp(m[head])
            c = forget * c + np.exp(i[head]) * np.outer(k, v)
            n = forget * n * np.exp(m[head]) + np.exp(i[head]) * k
            outputs.append(q @ c / max(abs(n @ q), 1))
            memories.append(c.ravel() * scale)
            normalizers.append(n * scale)
        h = sigmoid(o) * np.concatenate(outputs)
        return [h, np.concatenate(memories), np.concatenate(normalizers), m_new]

    return unroll(step, sequences, states, mask, reverse)


def nas(weights, sequences, states, mask=None, reverse=False):
    """Zoph and Le 2017, as in TensorFlow Addons: the biases are part of the recurrent products."""
    w, r, b, projection = weights

    def step(x, states):
        h, c = states
        xs, hs = np.split(x @ w, 8), np.split(h @ r + b, 8)
        left = np.tanh(sigmoid(xs[0] + hs[0]) * relu(xs[1] + hs[1]))
        right = np.tanh(sigmoid(xs[2] + hs[2]) + relu(xs[3] * hs[3]))
        c = np.tanh(left + c) * right
        left = np.tanh(np.tanh(xs[4] + hs[4]) * sigmoid(xs[5] + hs[5]))
        right = sigmoid(np.tanh(xs[6] + hs[6]) + sigmoid(xs[7] + hs[7]))
        return [np.tanh(c * np.tanh(left + right)) @ projection, c]

    return unroll(step, sequences, states, mask, reverse)


def ind_rnn(weights, sequences, states, mask=None, reverse=False):
    """Li et al. 2018, equation 2: a recurrent kernel that is diagonal."""
    w, u, b = weights
    return elman([w, np.diag(u[0]), b], sequences, states, mask, reverse, activation=relu)


def esn(weights, sequences, states, mask=None, reverse=False, leaky=1.0):
    """Jaeger et al. 2007, equation 2."""
    w, r, b = weights

    def step(x, states):
        (h,) = states
        return [(1 - leaky) * h + leaky * np.tanh(x @ w + h @ r + b)]

    return unroll(step, sequences, states, mask, reverse)


def context_lstm(weights, sequences, states, mask=None, reverse=False):
    """Xu et al. 2015, equations 1 to 3; the last features of each step are the context."""
    w, r, b, v = weights
    size = len(v)

    def step(x, states):
        h, c = states
        x, context = x[:-size], x[-size:]
        i, f, g, o = np.split(x @ w + context @ v + h @ r + b, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return [sigmoid(o) * np.tanh(c), c]

    return unroll(step, sequences, states, mask, reverse)


def gru(weights, sequences, states, mask=None, reverse=False):
    """Cho et al. 2014 with the reset after the recurrent product, as in cuDNN."""
    (w_z, w_r, w_g), (r_z, r_r, r_g) = (np.split(w, 3, axis=1) for w in weights[:2])
    b_z, b_r, b_g = np.split(weights[2][0], 3) if len(weights) > 2 else np.zeros(3)
    d_z, d_r, d_g = np.split(weights[2][1], 3) if len(weights) > 2 else np.zeros(3)

    def step(x, states):
        (h,) = states
        z = sigmoid(x @ w_z + b_z + h @ r_z + d_z)
        r = sigmoid(x @ w_r + b_r + h @ r_r + d_r)
        g = np.tanh(x @ w_g + b_g + r * (h @ r_g + d_g))
        return [z * h + (1 - z) * g]

    return unroll(step, sequences, states, mask, reverse)


def gru_of_the_paper(weights, sequences, states, mask=None, reverse=False):
    """Cho et al. 2014, equations 5 to 8, with biases: the reset is before the product."""
    (w_z, w_r, w_g), (r_z, r_r, r_g) = (np.split(w, 3, axis=1) for w in weights[:2])
    b_z, b_r, b_g = np.split(weights[2], 3)

    def step(x, states):
        (h,) = states
        z = sigmoid(x @ w_z + h @ r_z + b_z)
        r = sigmoid(x @ w_r + h @ r_r + b_r)
        return [z * h + (1 - z) * np.tanh(x @ w_g + (r * h) @ r_g + b_g)]

    return unroll(step, sequences, states, mask, reverse)


def elman(weights, sequences, states, mask=None, reverse=False, activation=np.tanh):
    """Elman 1990, with an output map if the weights include one."""
    w, r, b, *output_map = weights

    def step(x, states):
        return [activation(x @ w + states[0] @ r + b)]

    outputs, final = unroll(step, sequences, states, mask, reverse)
    if output_map:
        outputs = sigmoid(outputs @ output_map[0] + output_map[1])
    return [outputs, final]


def relu(x):
    return np.where(x > 0, x, 0.0)


def irnn(weights, sequences, states, mask=None, reverse=False):
    """Le, Jaitly and Hinton 2015."""
    return elman(weights, sequences, states, mask, reverse, activation=relu)


def jordan(weights, sequences, states, mask=None, reverse=False):
    """Jordan 1986: the output is the recurrent input."""
    w, r, b, output_kernel, output_bias = weights

    def step(x, states):
        h = np.tanh(x @ w + states[0] @ r + b)
        return [sigmoid(h @ output_kernel + output_bias)]

    return unroll(step, sequences, states, mask, reverse)


def scrn(weights, sequences, states, mask=None, reverse=False, alpha=0.95):
    """Mikolov et al. 2015, equations 5 to 7; the state is [hidden; slow units]."""
    w, r, b, p = weights
    units = len(r)
    a, slow = w[:, :units], w[:, units:]

    def step(x, states):
        h, s = states[0][:units], states[0][units:]
        s = (1 - alpha) * (x @ slow) + alpha * s
        return [np.concatenate([sigmoid(s @ p + x @ a + h @ r + b), s])]

    return unroll(step, sequences, states, mask, reverse)


def clockwork(weights, sequences, states, mask=None, reverse=False, periods=(1, 2)):
    """Koutnik et al. 2014, one module after the other; inactive modules keep their state."""
    w, r, b = weights
    size = len(r) // len(periods)

    def step(x, states):
        h, clock = states
        new = h.copy()
        phase = np.round(clock).astype(int) % periods
        for i in range(len(periods)):
            if phase[i] == 0:
                own = slice(i * size, (i + 1) * size)
                z = x @ w[:, own] + b[own]
                for j in range(i, len(periods)):
                    other = slice(j * size, (j + 1) * size)
                    z = z + h[other] @ r[other, own]
                new[own] = np.tanh(z)
        return [new, ((phase + 1) % periods).astype(float)]

    return unroll(step, sequences, states, mask, reverse)
