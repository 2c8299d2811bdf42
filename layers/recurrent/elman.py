"""The simple recurrent network."""

import keras
from keras import activations, ops

from unroll.layers.initializers import clone_initializer
from unroll.layers.operations import add_bias, require_size
from unroll.layers.recurrent.cell import RecurrentCell, forwarded
from unroll.layers.recurrent.layer import RecurrentLayer


@keras.saving.register_keras_serializable(package="unroll")
class ElmanRNNCell(RecurrentCell):
    """One step of a simple recurrent network, with an optional output map.

    Elman 1990, "Finding structure in time":

        h' = tanh(x W + h R + b)
        y = sigmoid(h' W_y + b_y)

    The state is h. Without `output_units` the output is h', and `set_weights` copies weights from
    and to `keras.layers.SimpleRNNCell`.

    Args:
        output_units: the size of y. By default there is no output map.
        output_activation: the activation of y.
        The others are those of `RecurrentCell`; `kernel_initializer` is also that of W_y, and
        `bias_initializer` that of b_y.

    Raises:
        ValueError: if `output_units` is not an integer of at least 1.

    Differs from the paper: the hidden layer has tanh instead of the logistic function, as is usual
    today.
    """

    gates = 1
    states = 1

    def __init__(
        self,
        units: int,
        activation="tanh",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
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
        output_units: int | None = None,
        output_activation="sigmoid",
        **kwargs,
    ):
        if output_units is not None:
            output_units = require_size(f"{type(self).__name__}: output_units", output_units)
        super().__init__(**forwarded(locals(), "output_units", "output_activation"))
        self.output_units = output_units
        self.output_activation = activations.get(output_activation)
        self.output_size = output_units or units

    def build(self, input_shape):
        super().build(input_shape)
        self.output_bias = None
        if self.output_units is None:
            return
        self.output_kernel = self.add_weight(
            shape=(self.units, self.output_units),
            name="output_kernel",
            initializer=clone_initializer(self.kernel_initializer),
        )
        if self.use_bias:
            self.output_bias = self.add_weight(
                shape=(self.output_units,), name="output_bias", initializer=self.bias_initializer
            )

    @property
    def fused_kernel(self):
        names = {activations.tanh: "rnn_tanh", activations.relu: "rnn_relu"}
        return names.get(self.activation)

    def step(self, z, states):
        return (self.activation(z),)

    def read_out(self, h):
        if self.output_units is None:
            return h
        y = ops.matmul(h, self.output_kernel)  # [..., output_units]
        return self.output_activation(add_bias(y, self.output_bias))

    def get_config(self):
        return {
            **super().get_config(),
            "output_units": self.output_units,
            "output_activation": activations.serialize(self.output_activation),
        }


@keras.saving.register_keras_serializable(package="unroll")
class ElmanRNN(RecurrentLayer):
    """A simple recurrent network over time.

    `ElmanRNNCell` has the equations. The arguments, except for `output_units` and
    `output_activation`, are those of `keras.layers.SimpleRNN`; `unroll` has no effect.
    `RecurrentLayer` describes the call.

    >>> import numpy as np
    >>> from unroll.layers import ElmanRNN
    >>> ElmanRNN(8, output_units=2, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 2])
    """

    cell_class = ElmanRNNCell

    def __init__(
        self,
        units: int,
        activation="tanh",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: int | None = None,
        zero_output_for_mask: bool = False,
        *,
        recurrent_weight_dropout: float = 0.0,
        output_units: int | None = None,
        output_activation="sigmoid",
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
