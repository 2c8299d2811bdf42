"""The mLSTM of xLSTM: a matrix memory with exponential gates."""

import math

import keras
from keras import ops

from unroll.layers import backend
from unroll.layers.operations import (
    LOG_ZERO,
    cast_like,
    cast_to,
    folded,
    full_precision,
    log_sigmoid,
    reduce_axis,
    require_size,
    unfolded,
)
from unroll.layers.recurrent.base_cell import BaseCell, forwarded
from unroll.layers.recurrent.layer import RecurrentLayer
from unroll.layers.recurrent.linear_recurrence import hold
from unroll.layers.recurrent.slstm import require_heads

# The steps of a chunk at most. The work of a step grows with it, and the number of chunks shrinks.
CHUNK = 64
# The limit of the denominator is at least exp(-40), which float32 has: 0 / 0 does not occur.
LARGEST_STABILIZER = 40.0


@keras.saving.register_keras_serializable(package="unroll")
class MLSTMCell(BaseCell):
    """One step of an mLSTM: a memory of key-value pairs with an exponential input gate.

    Beck et al. 2024, "xLSTM: extended long short-term memory", equations 19 to 27, stabilized. For
    each head, with keys and queries of the size K and values of the size V = U / heads:

        q, k, v, o, i, f = x W + b, each with its own columns
        k = k / sqrt(K)
        m' = max(log f(f) + m, i)                        the stabilizer
        i' = exp(i - m')
        f' = exp(log f(f) + m - m')                      f(f) is sigmoid(f) or exp(f)
        C' = f' C + i' k v^T                             the memory, K x V
        n' = f' n + i' k                                 the normalizer
        h' = sigmoid(o) * (C'^T q) / max(|n' . q|, exp(-m'))

    h does not depend on m, which keeps the exponential functions in range: with the memory
    C exp(m) and the normalizer n exp(m), the stabilizer disappears from the equations, and the
    limit of the denominator is 1. i and f are one number for each head.

    The states are h `[B, U]`, C `[B, heads K V]`, n `[B, heads K]` and m `[B, heads]`. The columns
    of W and b are in the order q, k, v, o, i, f; within each, and within a state, head by head.

    Args:
        activation: the activation of v.
        unit_forget_bias: whether the bias of the forget gate starts at one.
        heads: the number of heads. It must divide U.
        key_size: K, the size of the keys and queries of a head; by default U / heads.
        forget_activation: `"sigmoid"` or `"exponential"`, the f above.
        The others are those of `BaseCell`.

    Raises:
        ValueError: if `heads` is not an integer of at least 1 that divides `units`, `key_size` is
            not an integer of at least 1, or `forget_activation` is not one of these values.

    Differs from the paper: the bias of k is divided by sqrt(K) too, as in the authors' code. The
    causal convolution, the normalization of the heads and the projections of the paper's block are
    other layers: see `ResidualBlock`.
    """

    states = 4

    def __init__(
        self,
        units: int,
        activation="linear",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        dropout: float = 0.0,
        seed: int | None = None,
        *,
        heads: int = 1,
        key_size: int | None = None,
        forget_activation: str = "sigmoid",
        **kwargs,
    ):
        own = ("unit_forget_bias", "heads", "key_size", "forget_activation")
        super().__init__(**forwarded(locals(), *own, "own"))
        label = type(self).__name__
        self.heads = require_heads(label, self.units, heads, forget_activation)
        self.value_size = self.units // self.heads
        if key_size is None:
            key_size = self.value_size
        self.key_size = require_size(f"{label}: key_size", key_size)
        self.unit_forget_bias = unit_forget_bias
        self.forget_activation = forget_activation
        keys = self.heads * self.key_size
        self.state_size = [self.units, keys * self.value_size, keys, self.heads]

    @property
    def columns(self) -> list[int]:
        """The number of columns of q, k, v, o, i and f."""
        keys = self.heads * self.key_size
        return [keys, keys, self.units, self.units, self.heads, self.heads]

    def build(self, input_shape):
        width = sum(self.columns)
        self.kernel = self.add_part("kernel", (input_shape[-1], width), self.kernel_initializer)
        self.bias = self.add_part("bias", (width,), self.initial_bias) if self.use_bias else None

    def initial_bias(self, shape, dtype=None):
        bias = super().initial_bias(shape, dtype)
        if not self.unit_forget_bias:
            return bias
        return ops.concatenate([bias[: -self.heads], ops.ones_like(bias[-self.heads :])])

    def parts(self, z):
        """q and k `[..., heads, K]`, v `[..., heads, V]` and sigmoid(o) `[..., U]` of x W + b."""
        keys, _, units, *_ = self.columns
        ends = [keys, 2 * keys, 2 * keys + units, 2 * (keys + units)]
        q, k, v, o, _ = ops.split(z, ends, axis=-1)
        rows = (*ops.shape(z)[:-1], self.heads)
        q, k = (ops.reshape(x, (*rows, self.key_size)) for x in (q, k))
        v = self.activation(ops.reshape(v, (*rows, self.value_size)))
        return q, k / math.sqrt(self.key_size), v, ops.sigmoid(o)

    def log_gates(self, z):
        """The logarithms of the input gate and of the forget gate, `[..., heads]` each."""
        i, f = z[..., -2 * self.heads : -self.heads], z[..., -self.heads :]
        return i, f if self.forget_activation == "exponential" else log_sigmoid(f)

    def memory(self, states):
        """C `[B, heads, K, V]`, n `[B, heads, K]` and m `[B, heads]` of the states."""
        _, c, n, m = states
        c = ops.reshape(c, (-1, self.heads, self.key_size, self.value_size))
        return c, ops.reshape(n, (-1, self.heads, self.key_size)), m

    def states_of(self, h, memory) -> tuple:
        """The states with this output and this memory."""
        _, c, n, _ = self.state_size
        return h, ops.reshape(memory[0], (-1, c)), ops.reshape(memory[1], (-1, n)), memory[2]

    def step(self, z, states):
        c, n, m = self.memory(states)
        q, k, v, o = self.parts(z)
        i, f = self.log_gates(z)
        new = ops.maximum(f + m, i)  # [B, heads]
        f, i = ops.exp(f + m - new), ops.exp(i - new)
        k = column(i) * k  # [B, heads, K]
        c = column(column(f)) * c + column(k) * row(v)  # [B, heads, K, V]
        n = column(f) * n + k
        h = divided(
            ops.sum(column(q) * c, axis=-2), ops.sum(q * n, axis=-1, keepdims=True), column(new)
        )
        return self.states_of(o * ops.reshape(h, ops.shape(o)), (c, n, new))

    def chunk(self, memory, xs, constants=()):
        """The outputs of the steps of a chunk, in parallel, and the memory after the last one.

        With F_t the sum of the logarithms of the forget gates up to step t, the memory after step
        t is exp(F_t) C + sum_s exp(F_t - F_s + i_s) k_s v_s^T over the steps s up to t. The output
        reads it without forming it: q . k is computed for all pairs of steps.

        Args:
            memory: C, n and m before the first step.
            xs: x W + b, `[L, B, columns]`, and the logarithms of the gates i and f, `[L, B, heads]`
                each. A step with i = `LOG_ZERO` and f = 0 changes no memory.
            constants: not used.

        Returns:
            The memory, and h in a tuple, `[L, B, U]`.
        """
        c, n, m = memory
        z, *gates = xs
        q, k, v, o = self.parts(full_precision(z))
        q, k, v = (ops.transpose(x, (1, 2, 0, 3)) for x in (q, k, v))  # [B, heads, L, K or V]
        i, f = (ops.transpose(x, (1, 2, 0)) for x in gates)  # [B, heads, L]
        forgotten = ops.cumsum(f, axis=-1)
        written = i - forgotten
        before = forgotten + column(m)
        steps = ops.arange(0, ops.shape(z)[0], dtype="int32")
        pairs = ops.where(
            column(steps) >= row(steps), column(forgotten) + row(written), LOG_ZERO
        )  # [B, heads, L, L]
        # h does not depend on its stabilizer: that needs no gradient.
        stabilizer = ops.maximum(column(before), reduce_axis(ops.max, pairs, -1))
        stabilizer = ops.stop_gradient(stabilizer)  # [B, heads, L, 1]
        scores = ops.matmul(q, ops.swapaxes(k, -1, -2)) * ops.exp(pairs - stabilizer)
        old = ops.exp(column(before) - stabilizer)
        read = ops.matmul(scores, v) + old * ops.matmul(q, c)  # [B, heads, L, V]
        size = ops.sum(scores, axis=-1, keepdims=True) + old * ops.matmul(q, column(n))
        h = ops.transpose(divided(read, size, stabilizer), (2, 0, 1, 3))
        h = cast_to(o * ops.reshape(h, ops.shape(o)), z.dtype)  # [L, B, U]
        end, all_written = before[..., -1], column(forgotten[..., -1]) + written
        new = ops.maximum(end, reduce_axis(ops.max, all_written, -1)[..., 0])  # [B, heads]
        f = column(ops.exp(end - new))
        k = column(ops.exp(all_written - column(new))) * k
        c = column(f) * c + ops.matmul(ops.swapaxes(k, -1, -2), v)
        return (c, f * n + ops.sum(k, axis=-2), new), (h,)

    def over_time(self, inputs, states, mask, dropout_mask, reverse: bool):
        if reverse:
            inputs, mask = ops.flip(inputs, 0), None if mask is None else ops.flip(mask, 0)
        z = self.project(inputs)  # [T, B, columns]
        i, f = self.log_gates(full_precision(z))
        if mask is not None:
            keep = ops.expand_dims(mask, -1)
            i, f = ops.where(keep, i, LOG_ZERO), ops.where(keep, f, 0.0)
        length = ops.shape(z)[0]
        number = _at_least_one((length + CHUNK - 1) // CHUNK)
        size = _at_least_one((length + number - 1) // number)

        fills = (0.0, LOG_ZERO, 0.0)
        xs = [folded(x, number, size, fill) for x, fill in zip((z, i, f), fills, strict=True)]
        memory = full_precision(self.memory(states))
        if isinstance(number, int) and number == 1:
            memory, (h,) = self.chunk(memory, [x[0] for x in xs])
            h = h[None]
        else:
            like = ops.zeros((size, ops.shape(z)[1], self.units), dtype=z.dtype)
            run = backend.recomputed(self.chunk)
            memory, (h,) = backend.differentiable_scan(run, memory, xs, (), [], (like,))
        h, last = hold(unfolded(h, length), states[0], mask)
        final = cast_like(self.states_of(last, memory), states)
        return ops.flip(h, 0) if reverse else h, list(final)

    def get_config(self):
        return {
            **super().get_config(),
            "unit_forget_bias": self.unit_forget_bias,
            "heads": self.heads,
            "key_size": self.key_size,
            "forget_activation": self.forget_activation,
        }


def divided(read, size, stabilizer):
    """What a query reads, `[..., V]`, divided by max(|n . q|, exp(-m)), of `[..., 1]` each.

    For a negative m, both are multiplied with exp(m), which is then the smaller number.
    """
    factor = ops.exp(ops.minimum(stabilizer, 0.0))
    limit = ops.exp(-ops.minimum(ops.maximum(stabilizer, 0.0), LARGEST_STABILIZER))
    return read * (factor / ops.maximum(ops.abs(size) * factor, limit))


def column(x):
    """`[..., n]` as `[..., n, 1]`."""
    return ops.expand_dims(x, -1)


def row(x):
    """`[..., n]` as `[..., 1, n]`."""
    return ops.expand_dims(x, -2)


def _at_least_one(number):
    return max(number, 1) if isinstance(number, int) else ops.maximum(number, 1)


@keras.saving.register_keras_serializable(package="unroll")
class MLSTM(RecurrentLayer):
    """An mLSTM over time, which computes the steps of a chunk in parallel.

    `MLSTMCell` has the equations. `RecurrentLayer` describes the call and the arguments that the
    cell does not have; `unroll` and `use_cudnn` have no effect. A loop runs over chunks of up to 64
    steps. Its gradient keeps only the memory before each chunk.

    >>> import numpy as np
    >>> from unroll.layers import MLSTM
    >>> MLSTM(8, heads=2, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = MLSTMCell

    def __init__(
        self,
        units: int,
        activation="linear",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        *,
        heads: int = 1,
        key_size: int | None = None,
        forget_activation: str = "sigmoid",
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
