"""Recurrent layers without a recurrent matrix."""

import numpy as np

from tests.reference.recurrent import sigmoid, unroll


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
