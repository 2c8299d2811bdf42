"""The minimal long short-term memory."""

import keras
from keras import ops

from unroll.layers.recurrent.min_gru import MinGRU, MinGRUCell


@keras.saving.register_keras_serializable(package="unroll")
class MinLSTMCell(MinGRUCell):
    """One step of a minimal LSTM, whose gates do not read the state.

    Feng et al. 2024, "Were RNNs all we needed?", section 3.2:

        f, i, g = x W + b, each with its own columns
        a = sigmoid(f) / (sigmoid(f) + sigmoid(i))
        h' = a h + (1 - a) activation(g)

    The columns of the weights are in the order f, i, g.

    Args: those of `MinGRUCell`.

    Differs from the paper: nothing; see `MinGRUCell` on log space.
    """

    gates = 3

    def coefficients(self, z, *weights):
        f, i, g = ops.split(z, 3, axis=-1)  # [..., U] each
        # log of the ratio of the gates, which a quotient of small gates would lose.
        ratio = ops.softplus(-i) - ops.softplus(-f)
        return ops.sigmoid(ratio), ops.sigmoid(-ratio) * self.activation(g)


@keras.saving.register_keras_serializable(package="unroll")
class MinLSTM(MinGRU):
    """A minimal LSTM over time, which trains in parallel over the steps.

    `MinLSTMCell` has the equations. The arguments and the call are those of `MinGRU`.

    >>> import numpy as np
    >>> from unroll.layers import MinLSTM
    >>> MinLSTM(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = MinLSTMCell
