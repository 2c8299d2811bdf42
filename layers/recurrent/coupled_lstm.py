"""Long short-term memory with coupled gates."""

import keras
from keras import ops

from unroll.layers.recurrent.lstm import LSTM, LSTMCell


@keras.saving.register_keras_serializable(package="unroll")
class CoupledLSTMCell(LSTMCell):
    """One step of an LSTM with a coupled input and forget gate (CIFG).

    It has three quarters of the weights of an LSTM. Greff et al. 2015, "LSTM: a search space
    odyssey", variant CIFG:

        f, o = sigmoid(x W + h R + b), each with its own columns
        g = tanh(x W + h R + b)
        c' = f * c + (1 - f) * g
        h' = o * tanh(c')

    The columns of the weights are in the order f, g, o.

    Args: those of `LSTMCell`.

    Differs from the paper: there are no peepholes.
    """

    gates = 3
    forget_gate = 0

    def step(self, z, states):
        _, c = states
        f, g, o = ops.split(z, 3, axis=-1)  # [..., U] each
        g = self.activation(g)
        c = self.clip(g + self.recurrent_activation(f) * (c - g))  # [..., U]
        return self.recurrent_activation(o) * self.activation(c), c


@keras.saving.register_keras_serializable(package="unroll")
class CoupledLSTM(LSTM):
    """An LSTM with a coupled input and forget gate over time.

    `CoupledLSTMCell` has the equations. The arguments and the call are those of `LSTM`.

    >>> import numpy as np
    >>> from unroll.layers import CoupledLSTM
    >>> CoupledLSTM(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = CoupledLSTMCell
