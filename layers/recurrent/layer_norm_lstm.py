"""Long short-term memory with layer normalization."""

import keras
from keras import ops

from unroll.layers.recurrent.base import RecurrentLayer
from unroll.layers.recurrent.lstm import LSTMCell


@keras.saving.register_keras_serializable(package="unroll")
class LayerNormLSTMCell(LSTMCell):
    """One step of a layer-normalized LSTM.

    Ba, Kiros and Hinton 2016, "Layer normalization", equations 20 to 22. With LN(v; a) the vector
    v less its mean, over its standard deviation, times a:

        i, f, o = sigmoid(LN(x W; a_x) + LN(h R; a_h) + b), each its own columns
        g = tanh(LN(x W; a_x) + LN(h R; a_h) + b)
        c' = f * c + i * g
        h' = o * tanh(LN(c'; a_c) + b_c)

    What is carried on is c', not its normalized value. LN(x W) and LN(h R) are taken over the
    columns of all gates together, as in the paper.

    Args:
        epsilon: added to the variance.
        **kwargs: as in `LSTMCell`.

    Raises:
        ValueError: if `epsilon` is not above zero.

    Differs from the paper: the biases of the two normalizations in the gates are one with b.
    """

    def __init__(self, units: int, epsilon: float = 1e-5, **kwargs):
        if not epsilon > 0:
            raise ValueError(f"epsilon must be above zero, got {epsilon!r}.")
        super().__init__(units, **kwargs)
        self.epsilon = epsilon

    def build(self, input_shape):
        super().build(input_shape)
        shapes = {"input_gain": 4 * self.units, "recurrent_gain": 4 * self.units}
        for name, size in {**shapes, "cell_gain": self.units}.items():
            setattr(self, name, self.add_weight(shape=(size,), name=name, initializer="ones"))
        self.cell_bias = self.add_weight(shape=(self.units,), name="cell_bias", initializer="zeros")

    @property
    def added_columns(self):
        return 0  # the step normalizes h R by itself

    def step_weights(self, dropout_mask=None):
        return (self.recurrent_gain, self.cell_gain, self.cell_bias)

    def project(self, inputs):
        z = self.normalize(ops.matmul(inputs, self.kernel)) * self.input_gain
        return z if self.bias is None else z + self.bias

    def step(self, z, states, recurrent_gain, cell_gain, cell_bias):
        _, c = states
        x, product = ops.split(z, 2, axis=-1)  # [..., 4 U] each
        z = x + self.normalize(product) * recurrent_gain
        i, f, g, o = ops.split(z, 4, axis=-1)  # [..., U] each
        gate, activation = self.recurrent_activation, self.activation
        c = gate(f) * c + gate(i) * activation(g)  # [..., U]
        return gate(o) * activation(self.normalize(c) * cell_gain + cell_bias), c

    def normalize(self, v):
        """`v` with mean zero and variance one along its last axis."""
        v = v - ops.mean(v, axis=-1, keepdims=True)
        return v * ops.rsqrt(ops.mean(ops.square(v), axis=-1, keepdims=True) + self.epsilon)

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="unroll")
class LayerNormLSTM(RecurrentLayer):
    """A normalized LSTM: `LayerNormLSTMCell` has the equations, `RecurrentLayer` the arguments.

    >>> import numpy as np
    >>> from unroll.layers import LayerNormLSTM
    >>> LayerNormLSTM(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = LayerNormLSTMCell
