"""The sLSTM of xLSTM: an LSTM with exponential gates."""

import keras
from keras import ops

from unroll.layers.backend import product
from unroll.layers.initializers import clone_initializer
from unroll.layers.operations import LOG_ZERO, add_bias, log_sigmoid, require_size
from unroll.layers.recurrent.cell import GatedCell, forwarded
from unroll.layers.recurrent.layer import RecurrentLayer

FORGET_ACTIVATIONS = ("sigmoid", "exponential")


def require_heads(label: str, units: int, heads: int, forget_activation: str) -> int:
    """The number of heads; a `ValueError` for arguments that xLSTM's cells do not take."""
    heads = require_size(f"{label}: heads", heads)
    if units % heads:
        raise ValueError(
            f"{label}: units must be divisible by the number of heads, got {units} units and "
            f"{heads} heads."
        )
    if forget_activation not in FORGET_ACTIVATIONS:
        raise ValueError(
            f"{label}: forget_activation must be one of {FORGET_ACTIVATIONS}, got "
            f"{forget_activation!r}."
        )
    return heads


@keras.saving.register_keras_serializable(package="unroll")
class SLSTMCell(GatedCell):
    """One step of an sLSTM: an LSTM with an exponential input gate and a normalizer.

    Beck et al. 2024, "xLSTM: extended long short-term memory", equations 8 to 17, stabilized:

        i, f, z, o = x W + h R + b, each with its own columns
        l = log(sigmoid(f)), or f with an exponential forget gate
        m' = max(l + m, i), the stabilizer
        i' = exp(i - m')
        f' = exp(l + m - m')
        c' = f' * c + i' * tanh(z), the cell state
        n' = f' * n + i', the normalizer
        h' = sigmoid(o) * c' / n'

    h does not depend on m, which keeps the exponential functions in range. Where n is 0, as before
    the first step, f' is 0, and m' is i. The states are h, c, n and m, `[B, U]` each.

    With several heads, R is block diagonal: the units of a head read only those of the same head
    ("memory mixing" within heads). R is `recurrent_kernel`, `[heads, U / heads, 4 U / heads]`. The
    columns of W and b, and those of each block of R, are in the order i, f, z, o.

    Args:
        activation: the activation of z.
        recurrent_activation: the activation of the output gate.
        recurrent_initializer: of each block of R.
        unit_forget_bias: whether the bias of the forget gate starts at one.
        heads: the number of heads. It must divide U.
        forget_activation: `"sigmoid"` or `"exponential"`, the activation of the forget gate.
        The others are those of `GatedCell`.

    Raises:
        ValueError: if `heads` is not an integer of at least 1 that divides `units`, or
            `forget_activation` is not one of these values.

    Differs from the paper: nothing. The causal convolution, the group normalization and the
    projections of the paper's block are other layers.
    """

    gates = 4
    states = 4

    def __init__(
        self,
        units: int,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        *,
        recurrent_weight_dropout: float = 0.0,
        heads: int = 1,
        forget_activation: str = "sigmoid",
        **kwargs,
    ):
        super().__init__(**forwarded(locals(), "unit_forget_bias", "heads", "forget_activation"))
        heads = require_heads(type(self).__name__, self.units, heads, forget_activation)
        self.unit_forget_bias = unit_forget_bias
        self.heads = heads
        self.forget_activation = forget_activation

    def build(self, input_shape):
        size, width = self.units // self.heads, 4 * self.units
        self.add_weights((input_shape[-1], width), (self.heads, size, 4 * size), (width,))

    def initial_recurrent_kernel(self, shape, dtype=None):
        heads, *block = shape
        initial = [clone_initializer(self.recurrent_initializer) for _ in range(heads)]
        return ops.stack([initializer(block, dtype=dtype) for initializer in initial])

    def initial_bias(self, shape, dtype=None):
        i, f, z, o = ops.split(super().initial_bias(shape, dtype), 4)
        return ops.concatenate([i, ops.ones_like(f) if self.unit_forget_bias else f, z, o])

    @property
    def loop_kernel(self):
        kernel = self.masked_recurrent_kernel
        return kernel[0] if self.heads == 1 else kernel

    def by_head(self, x):
        """Columns in the order gate, head, unit, as head, gate, unit, in which h R has them."""
        if x is None or self.heads == 1:
            return x
        parts = ops.reshape(x, (-1, 4, self.heads, self.units // self.heads))
        return ops.reshape(ops.transpose(parts, (0, 2, 1, 3)), x.shape)

    def project(self, inputs):
        if self.heads == 1:
            return super().project(inputs)
        return add_bias(product(inputs, self.by_head(self.kernel)), self.by_head(self.bias))

    def step(self, z, states):
        _, c, n, m = states
        parts = ops.reshape(z, (*ops.shape(z)[:-1], self.heads, 4, self.units // self.heads))
        i, f, z, o = (ops.reshape(parts[..., k, :], ops.shape(c)) for k in range(4))  # [..., U]
        f = f if self.forget_activation == "exponential" else log_sigmoid(f)
        f = ops.where(n == 0, LOG_ZERO, f + m)
        m = ops.maximum(f, i)
        f, i = ops.exp(f - m), ops.exp(i - m)
        c = f * c + i * self.activation(z)
        n = f * n + i
        return self.recurrent_activation(o) * c / n, c, n, m

    def get_config(self):
        return {
            **super().get_config(),
            "unit_forget_bias": self.unit_forget_bias,
            "heads": self.heads,
            "forget_activation": self.forget_activation,
        }


@keras.saving.register_keras_serializable(package="unroll")
class SLSTM(RecurrentLayer):
    """An sLSTM over time.

    `SLSTMCell` has the equations. `RecurrentLayer` describes the call and the arguments that the
    cell does not have; `unroll` has no effect.

    >>> import numpy as np
    >>> from unroll.layers import SLSTM
    >>> SLSTM(8, heads=2, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = SLSTMCell

    def __init__(
        self,
        units: int,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        *,
        recurrent_weight_dropout: float = 0.0,
        heads: int = 1,
        forget_activation: str = "sigmoid",
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
