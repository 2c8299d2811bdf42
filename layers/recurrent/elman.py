"""The simple recurrent network."""

import keras
from keras import activations, ops

from unroll.layers.initializers import clone_initializer
from unroll.layers.operations import require_size
from unroll.layers.recurrent.base import RecurrentCell, RecurrentLayer


@keras.saving.register_keras_serializable(package="unroll")
class ElmanRNNCell(RecurrentCell):
    """One step of a simple recurrent network, with an output map where one is asked for.

    Elman 1990, "Finding structure in time":

        h' = tanh(x W + h R + b)
        y = sigmoid(h' W_y + b_y)

    The state is h. Without `output_units` h' itself is put out, and the weights move to and from
    `keras.layers.SimpleRNNCell` with `set_weights`.

    Args:
        output_units: the size of y; by default there is no output map.
        output_activation: of y.
        **kwargs: as in `RecurrentCell`; the matrix of the output map starts as the kernel does,
            its bias as the bias does.

    Raises:
        ValueError: if `output_units` is below one.

    Differs from the paper: tanh instead of the logistic function in the hidden layer, as is usual
    since.
    """

    gates = 1
    states = 1

    def __init__(
        self, units: int, output_units: int | None = None, output_activation="sigmoid", **kwargs
    ):
        super().__init__(units, **kwargs)
        self.output_units = output_units
        self.output_activation = activations.get(output_activation)
        if output_units is not None:
            require_size("output_units", output_units)
            self.output_size = output_units

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

    def step(self, z, states):
        return (self.activation(z),)

    def read_out(self, h):
        if self.output_units is None:
            return h
        y = ops.matmul(h, self.output_kernel)  # [..., output_units]
        return self.output_activation(y if self.output_bias is None else y + self.output_bias)

    def get_config(self):
        return {
            **super().get_config(),
            "output_units": self.output_units,
            "output_activation": activations.serialize(self.output_activation),
        }


@keras.saving.register_keras_serializable(package="unroll")
class ElmanRNN(RecurrentLayer):
    """A simple recurrent network: `ElmanRNNCell` has the equations, `RecurrentLayer` the arguments.

    >>> import numpy as np
    >>> from unroll.layers import ElmanRNN
    >>> ElmanRNN(8, output_units=2, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 2])
    """

    cell_class = ElmanRNNCell
