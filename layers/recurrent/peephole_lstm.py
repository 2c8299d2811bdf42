"""Long short-term memory whose gates see the cell."""

import keras
from keras import ops

from unroll.layers.recurrent.base import RecurrentLayer
from unroll.layers.recurrent.lstm import LSTMCell


@keras.saving.register_keras_serializable(package="unroll")
class PeepholeLSTMCell(LSTMCell):
    """One step of an LSTM with peepholes.

    Gers and Schmidhuber 2000, "Recurrent nets that time and count", as in Greff et al. 2015,
    appendix A. Input and forget gate see the cell as it was, the output gate as it has become:

        i, f = sigmoid(x W + h R + p * c + b), each its own columns and p
        g = tanh(x W + h R + b)
        c' = f * c + i * g
        o = sigmoid(x W + h R + p * c' + b)
        h' = o * tanh(c')

    W, R and b are as in `LSTMCell`; `peephole_kernel`, `[3, U]`, has a row for each of i, f and o.
    It starts at zero, where the layer is the LSTM.

    Args:
        **kwargs: as in `LSTMCell`.

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
        c_new = gate(f + p_f * c) * c + gate(i + p_i * c) * activation(g)  # [..., U]
        return gate(o + p_o * c_new) * activation(c_new), c_new


@keras.saving.register_keras_serializable(package="unroll")
class PeepholeLSTM(RecurrentLayer):
    """An LSTM with peepholes: `PeepholeLSTMCell` has the equations, `RecurrentLayer` the arguments.

    >>> import numpy as np
    >>> from unroll.layers import PeepholeLSTM
    >>> PeepholeLSTM(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = PeepholeLSTMCell
