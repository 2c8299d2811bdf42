"""Long short-term memory with peepholes."""

import keras
from keras import ops

from unroll.layers.backend import sigmoid_gradient, tanh_gradient
from unroll.layers.recurrent.lstm import LSTM, LSTMCell, LSTMStep


class PeepholeLSTMStep(LSTMStep):
    """The step of a `PeepholeLSTMCell`; see `LSTMStep`."""

    def gradient(self, stored, states, weights, d_new):
        i, f, g, o, t = stored
        d_h, d_c = d_new
        p_i, p_f, p_o = weights
        d_o = sigmoid_gradient(o, d_h * t)
        d_c = d_c + tanh_gradient(t, d_h * o) + d_o * p_o
        d_i = sigmoid_gradient(i, d_c * g)
        d_f = sigmoid_gradient(f, d_c * states[1])
        d_g = tanh_gradient(g, d_c * i)
        d_z = ops.concatenate([d_i, d_f, d_g, d_o], axis=-1)
        return d_z, (None, d_c * f + d_i * p_i + d_f * p_f)

    def weight_gradients(self, stored, states, weights, d_z, d_new):
        i, f, g, *_ = stored
        c = states[1]
        d_i, d_f, _, d_o = ops.split(d_z, 4, axis=-1)
        rows = (d_i * c, d_f * c, d_o * (f * c + i * g))  # [T, B, U] each
        axes = tuple(range(len(c.shape) - 1))
        return tuple(ops.sum(row, axis=axes) for row in rows)


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
        return tuple(ops.convert_to_tensor(self.peephole_kernel)[k] for k in range(3))

    @property
    def step_with_gradient(self):
        return PeepholeLSTMStep(self) if self.is_plain else None

    def step_and_activations(self, z, states, p_i, p_f, p_o):
        _, c = states
        i, f, g, o = ops.split(z, 4, axis=-1)  # [..., U] each
        gate, activation = self.recurrent_activation, self.activation
        i, f, g = gate(i + p_i * c), gate(f + p_f * c), activation(g)
        c = self.clip(f * c + i * g)
        o, t = gate(o + p_o * c), activation(c)
        return (o * t, c), (i, f, g, o, t)


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
