"""Long short-term memory."""

import keras
from keras import initializers, ops

from unroll.layers.recurrent.base import GatedCell, RecurrentLayer


@keras.saving.register_keras_serializable(package="unroll")
class LSTMCell(GatedCell):
    """One step of an LSTM with a forget gate.

    Hochreiter and Schmidhuber 1997, "Long short-term memory"; the forget gate is that of Gers,
    Schmidhuber and Cummins 2000, "Learning to forget":

        i, f, o = sigmoid(x W + h R + b), each its own columns
        g = tanh(x W + h R + b)
        c' = f * c + i * g
        h' = o * tanh(c')

    The columns of the weights stand in the order i, f, g, o, and the weights move to and from
    `keras.layers.LSTMCell` with `set_weights`.

    Args:
        unit_forget_bias: whether the forget gate's bias starts at one (Jozefowicz et al. 2015).
        **kwargs: as in `GatedCell`.

    Differs from the paper: recurrent dropout masks h once for all gates, Keras's once a gate.
    """

    gates = 4
    states = 2
    forget_gate = 1  # its place among the gates

    def __init__(self, units: int, unit_forget_bias: bool = True, **kwargs):
        super().__init__(units, **kwargs)
        self.unit_forget_bias = unit_forget_bias

    def initial_bias(self, shape, dtype=None):
        bias = super().initial_bias(shape, dtype)
        if not self.unit_forget_bias:
            return bias
        parts = ops.split(bias, self.gates)
        parts[self.forget_gate] = initializers.Ones()(parts[0].shape, dtype=dtype)
        return ops.concatenate(parts)

    def step(self, z, states):
        _, c = states
        i, f, g, o = ops.split(z, 4, axis=-1)  # [..., U] each
        gate, activation = self.recurrent_activation, self.activation
        c = gate(f) * c + gate(i) * activation(g)  # [..., U]
        return gate(o) * activation(c), c

    def get_config(self):
        return {**super().get_config(), "unit_forget_bias": self.unit_forget_bias}


@keras.saving.register_keras_serializable(package="unroll")
class LSTM(RecurrentLayer):
    """An LSTM over time: `LSTMCell` has the equations, `RecurrentLayer` the arguments.

    >>> import numpy as np
    >>> from unroll.layers import LSTM
    >>> LSTM(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = LSTMCell
