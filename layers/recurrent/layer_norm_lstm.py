"""Long short-term memory with layer normalization."""

import keras
from keras import ops

from unroll.layers.backend import product
from unroll.layers.operations import add_bias, cast_to, full_precision
from unroll.layers.recurrent.cell import forwarded
from unroll.layers.recurrent.lstm import LSTM, LSTMCell


@keras.saving.register_keras_serializable(package="unroll")
class LayerNormLSTMCell(LSTMCell):
    """One step of an LSTM with layer normalization.

    Ba, Kiros and Hinton 2016, "Layer normalization", equations 20 to 22. LN(v; a) is the vector v
    minus its mean, divided by its standard deviation, times a:

        i, f, o = sigmoid(LN(x W; a_x) + LN(h R; a_h) + b), each with its own columns
        g = tanh(LN(x W; a_x) + LN(h R; a_h) + b)
        c' = f * c + i * g
        h' = o * tanh(LN(c'; a_c) + b_c)

    The state is c', not its normalized value. LN(x W) and LN(h R) normalize the columns of all
    gates together, as in the paper.

    Args:
        epsilon: added to the variance.
        The others are those of `LSTMCell`.

    Raises:
        ValueError: if `epsilon` is not above 0.

    Differs from the paper: the biases of the two normalizations in the gates are part of b.
    """

    def __init__(
        self,
        units: int,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        *,
        recurrent_weight_dropout: float = 0.0,
        projection: int | None = None,
        projection_clip: float | None = None,
        cell_clip: float | None = None,
        zoneout_cell: float = 0.0,
        zoneout_hidden: float = 0.0,
        epsilon: float = 1e-5,
        **kwargs,
    ):
        if not epsilon > 0:
            raise ValueError(f"{type(self).__name__}: epsilon must be above 0, got {epsilon!r}.")
        super().__init__(**forwarded(locals(), "epsilon"))
        self.epsilon = epsilon

    def build(self, input_shape):
        super().build(input_shape)
        shapes = {"input_gain": 4 * self.units, "recurrent_gain": 4 * self.units}
        for name, size in {**shapes, "cell_gain": self.units}.items():
            setattr(self, name, self.add_weight(shape=(size,), name=name, initializer="ones"))
        self.cell_bias = self.add_weight(shape=(self.units,), name="cell_bias", initializer="zeros")

    @property
    def added_columns(self):
        return 0  # the step normalizes h R before it adds it

    def step_weights(self, dropout_mask=None):
        return (self.recurrent_gain, self.cell_gain, self.cell_bias)

    def project(self, inputs):
        z = self.normalize(product(inputs, self.kernel), self.input_gain)
        return add_bias(z, self.bias)

    def step(self, z, states, recurrent_gain, cell_gain, cell_bias):
        _, c = states
        x, product = ops.split(z, 2, axis=-1)  # [..., 4 U] each
        z = x + self.normalize(product, recurrent_gain)
        i, f, g, o = ops.split(z, 4, axis=-1)  # [..., U] each
        gate, activation = self.recurrent_activation, self.activation
        c = self.clip(gate(f) * c + gate(i) * activation(g))  # [..., U]
        return gate(o) * activation(self.normalize(c, cell_gain, cell_bias)), c

    def normalize(self, v, gain, bias=None):
        """LN(v; gain) + bias along the last axis, computed in float32."""
        x, gain = full_precision(v), full_precision(ops.convert_to_tensor(gain))
        if keras.backend.backend() == "torch":  # which has one operation for it
            x = ops.layer_normalization(x, gain, bias, axis=-1, epsilon=self.epsilon)
            return cast_to(x, v.dtype)
        x = x - ops.mean(x, axis=-1, keepdims=True)
        x = x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + self.epsilon) * gain
        return cast_to(x if bias is None else x + bias, v.dtype)

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="unroll")
class LayerNormLSTM(LSTM):
    """An LSTM with layer normalization over time.

    `LayerNormLSTMCell` has the equations. The call and the arguments, except for `epsilon`, are
    those of `LSTM`.

    >>> import numpy as np
    >>> from unroll.layers import LayerNormLSTM
    >>> LayerNormLSTM(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = LayerNormLSTMCell

    def __init__(
        self,
        units: int,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: bool | str = "auto",
        zero_output_for_mask: bool = False,
        *,
        recurrent_weight_dropout: float = 0.0,
        projection: int | None = None,
        projection_clip: float | None = None,
        cell_clip: float | None = None,
        zoneout_cell: float = 0.0,
        zoneout_hidden: float = 0.0,
        epsilon: float = 1e-5,
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
