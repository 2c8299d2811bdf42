"""The recurrent network that feeds its output back."""

import keras
from keras import activations, ops

from unroll.layers.initializers import clone_initializer
from unroll.layers.operations import require_size
from unroll.layers.recurrent.cell import RecurrentCell, forwarded
from unroll.layers.recurrent.layer import RecurrentLayer


@keras.saving.register_keras_serializable(package="unroll")
class JordanRNNCell(RecurrentCell):
    """One step of a network that feeds back its output instead of its hidden layer.

    Jordan 1986, "Serial order: a parallel distributed processing approach":

        h' = tanh(x W + y R + b)
        y' = sigmoid(h' W_y + b_y)

    The state is y.

    Args:
        units: U, the size of h.
        output_units: the size of y; by default U.
        output_activation: the activation of y.
        The others are those of `RecurrentCell`; `kernel_initializer` is also that of W_y, and
        `bias_initializer` that of b_y.

    Raises:
        ValueError: if `output_units` is not an integer of at least 1.

    Differs from the paper: the state is the last output instead of a decaying sum of all outputs,
    and the hidden layer has tanh instead of the logistic function.
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
        self.state_size = [self.output_size]

    def build(self, input_shape):
        self.add_weights(
            kernel=(input_shape[-1], self.units),
            recurrent_kernel=(self.output_size, self.units),
            bias=(self.units,),
        )
        self.output_kernel = self.add_weight(
            shape=(self.units, self.output_size),
            name="output_kernel",
            initializer=clone_initializer(self.kernel_initializer),
        )
        self.output_bias = None
        if self.use_bias:
            self.output_bias = self.add_weight(
                shape=(self.output_size,), name="output_bias", initializer=self.bias_initializer
            )

    def step_weights(self, dropout_mask=None):
        kernel, bias = self.output_kernel, self.output_bias
        return (kernel,) if bias is None else (kernel, bias)

    def step(self, z, states, output_kernel, output_bias=0.0):
        h = self.activation(z)  # [..., U]
        return (self.output_activation(ops.matmul(h, output_kernel) + output_bias),)

    def get_config(self):
        return {
            **super().get_config(),
            "output_units": self.output_units,
            "output_activation": activations.serialize(self.output_activation),
        }


@keras.saving.register_keras_serializable(package="unroll")
class JordanRNN(RecurrentLayer):
    """A Jordan network over time.

    `JordanRNNCell` has the equations. The arguments, except for `output_units` and
    `output_activation`, are those of `keras.layers.SimpleRNN`; `unroll` has no effect.
    `RecurrentLayer` describes the call.

    >>> import numpy as np
    >>> from unroll.layers import JordanRNN
    >>> JordanRNN(8, output_units=2, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 2])
    """

    cell_class = JordanRNNCell

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
