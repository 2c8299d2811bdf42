"""The quasi-recurrent neural network."""

import keras
from keras import ops

from unroll.layers.backend import product
from unroll.layers.operations import add_bias, cast_like, full_precision, require_size
from unroll.layers.recurrent.base_cell import forwarded
from unroll.layers.recurrent.layer import RecurrentLayer
from unroll.layers.recurrent.linear_cell import LinearRecurrentCell
from unroll.layers.recurrent.steps import Steps

POOLING = ("f", "fo", "ifo")


@keras.saving.register_keras_serializable(package="unroll")
class QRNNCell(LinearRecurrentCell):
    """One step of a quasi-recurrent network: gates by a convolution over the last inputs.

    Bradbury, Merity, Xiong and Socher 2017, "Quasi-recurrent neural networks", equations 3 to 6:

        z, f, o, i = [x_{t-k+1}; ...; x_t] W + b, each with its own columns
        h' = f h + (1 - f) z                      f-pooling
        c' = f c + (1 - f) z,   h' = o c'         fo-pooling
        c' = f c + i z,         h' = o c'         ifo-pooling

    f, o and i are gates (sigmoid), z has the activation. The columns of the weights are in this
    order, and only those that are used exist. `kernel` is `[k, D, columns]`, as in
    `keras.layers.Conv1D`.

    The states are h, c if it is not h, and the last k - 1 inputs, `[(k - 1) D]`, the oldest first.
    A masked step is no input: the window then reaches further back.

    Args:
        activation: of z.
        window: k, the number of inputs that a step reads.
        pooling: "f", "fo" or "ifo".
        The others are those of `BaseCell`.

    Raises:
        ValueError: if `window` is not an integer of at least 1, or `pooling` is none of these.

    Differs from the paper: the regularization of f by zoneout is not there.
    """

    pooling = "fo"  # `states` needs one before the constructor sets it

    def __init__(
        self,
        units: int,
        activation="tanh",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        dropout: float = 0.0,
        seed: int | None = None,
        *,
        window: int = 2,
        pooling: str = "fo",
        **kwargs,
    ):
        super().__init__(**forwarded(locals(), "window", "pooling"))
        label = type(self).__name__
        if pooling not in POOLING:
            raise ValueError(f"{label}: pooling must be one of {POOLING}, got {pooling!r}.")
        self.window = require_size(f"{label}: window", window)
        self.pooling = pooling
        self.state_size = [units] * self.states  # and the window, when its size is known

    @property
    def gates(self):
        return 1 + len(self.pooling)

    @property
    def states(self):
        return 1 if self.pooling == "f" else 2

    def build(self, input_shape):
        self.features = input_shape[-1]
        columns = self.gates * self.units
        self.add_weights((self.window, self.features, columns), (columns,))
        self.state_size = [self.units] * self.states
        if self.window > 1:
            self.state_size.append((self.window - 1) * self.features)

    def coefficients(self, z, *weights):
        z, f, *gates = ops.split(z, self.gates, axis=-1)  # [..., U] each
        z = self.activation(z)
        if self.pooling == "ifo":
            return ops.sigmoid(f), ops.sigmoid(gates[1]) * z
        return ops.sigmoid(f), ops.sigmoid(-f) * z

    def output(self, z, memory, *weights):
        return ops.sigmoid(z[..., 2 * self.units : 3 * self.units]) * memory[0]

    def project(self, inputs):
        """The gates from the windows, `[..., k D]`."""
        kernel = ops.reshape(self.kernel, (self.window * self.features, -1))
        return add_bias(product(inputs, kernel), self.bias)

    def over_time(self, inputs, states, mask, dropout_mask, reverse: bool):
        if self.window == 1:
            return super().over_time(inputs, states, mask, dropout_mask, reverse)
        if reverse:
            inputs, mask = ops.flip(inputs, 0), None if mask is None else ops.flip(mask, 0)
        *states, window = states
        steps, before = Steps(inputs, mask), self.window - 1
        window = ops.reshape(window, (-1, before, self.features))
        rows, last = steps.extended(inputs, ops.transpose(window, (1, 0, 2)))  # [k - 1 + T, B, D]
        length = ops.shape(inputs)[0]
        if mask is None:
            parts = [rows[k : k + length] for k in range(self.window)]
        else:
            parts = [steps.at(rows, steps.before() + k) for k in range(self.window)]
        outputs, final = super().over_time(
            ops.concatenate(parts, axis=-1), states, mask, dropout_mask, False
        )
        window = ops.reshape(ops.transpose(last, (1, 0, 2)), (-1, before * self.features))
        return ops.flip(outputs, 0) if reverse else outputs, [*final, window]

    def call(self, inputs, states, training=False):
        if training and self.dropout:
            inputs = inputs * self.get_dropout_mask(inputs)
        window = []
        if self.window > 1:
            *states, window = states
            inputs = ops.concatenate([window, inputs], axis=-1)  # [B, k D]
            window = [inputs[:, self.features :]]
        z = full_precision(self.project(inputs))
        new = cast_like(self.step(z, full_precision(states)), states)
        return new[0], [*new, *window]

    def get_config(self):
        return {**super().get_config(), "window": self.window, "pooling": self.pooling}


@keras.saving.register_keras_serializable(package="unroll")
class QRNN(RecurrentLayer):
    """A quasi-recurrent network over time, which trains in parallel over the steps.

    `QRNNCell` has the equations. `RecurrentLayer` describes the call and the arguments that the
    cell does not have; `unroll` and `use_cudnn` have no effect.

    >>> import numpy as np
    >>> from unroll.layers import QRNN
    >>> QRNN(8, window=3, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = QRNNCell

    def __init__(
        self,
        units: int,
        activation="tanh",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
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
        window: int = 2,
        pooling: str = "fo",
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
