"""The recurrent network that feeds its output back."""

import keras
from keras import activations, ops

from unroll.layers.initializers import clone_initializer
from unroll.layers.operations import require_size
from unroll.layers.recurrent.base import RecurrentCell, RecurrentLayer


@keras.saving.register_keras_serializable(package="unroll")
class JordanRNNCell(RecurrentCell):
    """One step of a network whose output, and not its hidden layer, is fed back.

    Jordan 1986, "Serial order: a parallel distributed processing approach":

        h' = tanh(x W + y R + b)
        y' = sigmoid(h' W_y + b_y)

    The state is y.

    Args:
        units: U, the size of h.
        output_units: the size of y; by default U.
        output_activation: of y.
        **kwargs: as in `RecurrentCell`; W_y starts as the kernel does, b_y as the bias does.

    Raises:
        ValueError: if `output_units` is below one.

    Differs from the paper: the state is the last output alone, not a decaying sum of the outputs
    before it, and tanh stands for the logistic function in the hidden layer.
    """

    gates = 1
    states = 1

    def __init__(
        self, units: int, output_units: int | None = None, output_activation="sigmoid", **kwargs
    ):
        super().__init__(units, **kwargs)
        if output_units is not None:
            require_size("output_units", output_units)
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
    """A Jordan network: `JordanRNNCell` has the equations, `RecurrentLayer` the arguments.

    >>> import numpy as np
    >>> from unroll.layers import JordanRNN
    >>> JordanRNN(8, output_units=2, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 2])
    """

    cell_class = JordanRNNCell
