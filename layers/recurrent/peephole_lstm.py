"""Long short-term memory with peepholes."""

import keras
from keras import ops

from unroll.layers.recurrent.lstm import LSTM, LSTMCell


@keras.saving.register_keras_serializable(package="unroll")
class PeepholeLSTMCell(LSTMCell):
    """One step of an LSTM with peepholes: its gates read the cell state.

    Gers and Schmidhuber 2000, "Recurrent nets that time and count", as in Greff et al. 2015,
    appendix A. The input gate and the forget gate read the old cell state, the output gate the new
    one:

        i, f = sigmoid(x W + h R + p * c + b), each with its own columns and p
        g = tanh(x W + h R + b)
        c' = f * c + i * g
        o = sigmoid(x W + h R + p * c' + b)
        h' = o * tanh(c')

    W, R and b are as in `LSTMCell`. The rows of `peephole_kernel`, `[3, U]`, are the p of i, f and
    o. They start at zero, where the cell is an LSTM.

    Args: those of `LSTMCell`.

    Differs from the papers: nothing.
    """

    def build(self, input_shape):
        super().build(input_shape)
        self.peephole_kernel = self.add_weight(
            shape=(3, self.units), name="peephole_kernel", initializer="zeros"
        )

    def step_weights(self, dropout_mask=None):
        return (self.peephole_kernel,)

    def step(self, z, states, peephole_kernel):
        _, c = states
        i, f, g, o = ops.split(z, 4, axis=-1)  # [..., U] each
        p_i, p_f, p_o = peephole_kernel[0], peephole_kernel[1], peephole_kernel[2]
        gate, activation = self.recurrent_activation, self.activation
        c_new = self.clip(gate(f + p_f * c) * c + gate(i + p_i * c) * activation(g))
        return gate(o + p_o * c_new) * activation(c_new), c_new


@keras.saving.register_keras_serializable(package="unroll")
class PeepholeLSTM(LSTM):
    """An LSTM with peepholes over time.

    `PeepholeLSTMCell` has the equations. The arguments and the call are those of `LSTM`.

    >>> import numpy as np
    >>> from unroll.layers import PeepholeLSTM
    >>> PeepholeLSTM(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = PeepholeLSTMCell
