"""Long short-term memory with coupled gates."""

import keras
from keras import ops

from unroll.layers.backend import sigmoid_gradient, tanh_gradient
from unroll.layers.recurrent.lstm import LSTM, LSTMCell, LSTMStep


class CoupledLSTMStep(LSTMStep):
    """The step of a `CoupledLSTMCell`; see `LSTMStep`."""

    def gradient(self, stored, states, weights, d_new):
        f, g, o, t = stored
        d_h, d_c = d_new
        d_o = sigmoid_gradient(o, d_h * t)
        d_c = d_c + tanh_gradient(t, d_h * o)
        d_f = sigmoid_gradient(f, d_c * (states[1] - g))
        kept = d_c * f
        d_g = tanh_gradient(g, d_c - kept)
        return ops.concatenate([d_f, d_g, d_o], axis=-1), (None, kept)


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

    @property
    def step_with_gradient(self):
        return CoupledLSTMStep(self) if self.is_plain else None

    def step_and_activations(self, z, states):
        _, c = states
        f, g, o = ops.split(z, 3, axis=-1)  # [..., U] each
        gate, activation = self.recurrent_activation, self.activation
        f, g, o = gate(f), activation(g), gate(o)
        c = self.clip(g + f * (c - g))  # [..., U]
        t = activation(c)
        return (o * t, c), (f, g, o, t)


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
