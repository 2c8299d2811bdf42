"""Recurrent layers and their wrappers."""

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
    epsilon=1e-5,
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


def positive(x):
    return np.where(x >= 0, x + 0.5, sigmoid(x))


def min_gru(weights, sequences, states, mask=None, reverse=False, activation=positive):
    """Feng et al. 2024, section 3.1, with the candidate of appendix B; the columns are z, g."""
    (w_z, w_g), (b_z, b_g) = np.split(weights[0], 2, axis=1), np.split(weights[1], 2)

    def step(x, states):
        z = sigmoid(x @ w_z + b_z)
        return [(1 - z) * states[0] + z * activation(x @ w_g + b_g)]

    return unroll(step, sequences, states, mask, reverse)


def min_lstm(weights, sequences, states, mask=None, reverse=False):
    """Feng et al. 2024, section 3.2; the columns are f, i, g."""
    (w_f, w_i, w_g), (b_f, b_i, b_g) = np.split(weights[0], 3, axis=1), np.split(weights[1], 3)

    def step(x, states):
        f, i = sigmoid(x @ w_f + b_f), sigmoid(x @ w_i + b_i)
        return [(f * states[0] + i * positive(x @ w_g + b_g)) / (f + i)]

    return unroll(step, sequences, states, mask, reverse)


def rg_lru(weights, sequences, states, mask=None, reverse=False):
    """De et al. 2024, equations 1 to 4; the columns are r, i, g."""
    (w_r, w_i, w_g), (b_r, b_i, b_g) = np.split(weights[0], 3, axis=1), np.split(weights[1], 3)
    decay = np.log(1 + np.exp(weights[2]))

    def step(x, states):
        r, i = sigmoid(x @ w_r + b_r), sigmoid(x @ w_i + b_i)
        a = np.exp(-8 * r * decay)
        return [a * states[0] + np.sqrt(1 - a**2) * i * (x @ w_g + b_g)]

    return unroll(step, sequences, states, mask, reverse)


def lru(weights, sequences, states, mask=None, reverse=False):
    """Orvieto et al. 2023, with complex numbers."""
    kernel, bias, nu, theta, gamma, output, feedthrough = weights
    b = kernel[:, : len(nu)] + 1j * kernel[:, len(nu) :]
    c = output[: len(nu)] - 1j * output[len(nu) :]
    factor = np.exp(-np.exp(nu) + 1j * np.exp(theta))

    def step(x, states):
        memory = factor * (states[1] + 1j * states[2]) + np.exp(gamma) * (x @ b)
        direct = x * feedthrough if feedthrough.ndim == 1 else x @ feedthrough
        return [(memory @ c).real + direct + bias, memory.real, memory.imag]

    return unroll(step, sequences, states, mask, reverse)


def sru(weights, sequences, states, mask=None, reverse=False, highway_bias=0.0):
    """Lei et al. 2018, equations 1 to 4; the columns are f, r, g and, of other inputs, y."""
    units = weights[2].shape[1]
    w_f, w_r, w_g, *w_y = np.split(weights[0], weights[0].shape[1] // units, axis=1)
    (b_f, b_r), (v_f, v_r) = np.split(weights[1], 2), weights[2]

    def step(x, states):
        c = states[1]
        f, r = sigmoid(x @ w_f + v_f * c + b_f), sigmoid(x @ w_r + v_r * c + b_r)
        c = f * c + (1 - f) * (x @ w_g)
        y = x @ w_y[0] if w_y else x
        return [r * c + (1 - r) * np.sqrt(1 + 2 * np.exp(highway_bias)) * y, c]

    return unroll(step, sequences, states, mask, reverse)


def qrnn(weights, sequences, states, mask=None, reverse=False, pooling="fo"):
    """Bradbury et al. 2017, equations 3 to 6; the columns are z, f, o, i."""
    kernel, bias = weights
    window, features, _ = kernel.shape
    gates = 1 + len(pooling)

    def step(x, states):
        h, *rest = states
        inputs = np.concatenate([rest[-1], x]) if window > 1 else x
        rows = inputs.reshape(window, features)
        columns = sum(row @ w for row, w in zip(rows, kernel, strict=True)) + bias
        z, f, *others = np.split(columns, gates)
        z, f = np.tanh(z), sigmoid(f)
        of_input = sigmoid(others[1]) if pooling == "ifo" else 1 - f
        memory = f * (h if pooling == "f" else rest[0]) + of_input * z
        new = [memory] if pooling == "f" else [sigmoid(others[0]) * memory, memory]
        return [*new, inputs[features:]] if window > 1 else new

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
