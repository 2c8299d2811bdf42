"""Long short-term memory with layer normalization."""

import keras
from keras import ops

from unroll.layers.backend import product, sigmoid_gradient, tanh_gradient
from unroll.layers.operations import add_bias, cast_to, full_precision
from unroll.layers.recurrent.cell import forwarded
from unroll.layers.recurrent.lstm import LSTM, LSTMCell, LSTMStep


class LayerNormLSTMStep(LSTMStep):
    """The step of a `LayerNormLSTMCell`; see `LSTMStep`."""

    needs_state_gradients = True

    def gradient(self, stored, states, weights, d_new):
        i, f, g, o, t, product, product_scale, cell, cell_scale = stored
        recurrent_gain, cell_gain, _ = weights
        d_h, d_c = d_new
        d_o = sigmoid_gradient(o, d_h * t)
        d_cell = tanh_gradient(t, d_h * o) * cell_gain
        d_c = d_c + standardize_gradient(cell, cell_scale, d_cell)
        d_i = sigmoid_gradient(i, d_c * g)
        d_f = sigmoid_gradient(f, d_c * states[1])
        d_g = tanh_gradient(g, d_c * i)
        d_x = ops.concatenate([d_i, d_f, d_g, d_o], axis=-1)
        d_product = standardize_gradient(product, product_scale, d_x * recurrent_gain)
        return ops.concatenate([d_x, d_product], axis=-1), (None, d_c * f)

    def weight_gradients(self, stored, states, weights, d_z, d_new):
        *_, o, t, product, _, cell, _ = stored
        d_cell = tanh_gradient(t, d_new[0] * o)  # [T, B, U]
        rows = (d_z[..., : product.shape[-1]] * product, d_cell * cell, d_cell)
        axes = tuple(range(len(t.shape) - 1))
        return tuple(ops.sum(row, axis=axes) for row in rows)


def standardize_gradient(y, scale, d_y):
    """The gradient of v from that of y = (v - mean(v)) scale, with 1 / scale its deviation."""
    along = ops.mean(d_y * y, axis=-1, keepdims=True)
    return (d_y - ops.mean(d_y, axis=-1, keepdims=True) - y * along) * scale


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

    While a sequence begins with zeros, h R and c' are zero, where LN is at its steepest: each such
    step multiplies the gradient of the biases by up to 1 / (4 epsilon), which overflows after some
    sixteen steps. Mask such steps.

    Args:
        epsilon: added to the variance. The default is that of `keras.layers.LayerNormalization`
            and of TensorFlow Addons; the authors' code has 1e-5.
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
        epsilon: float = 1e-3,
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
        x = product(inputs, self.kernel)
        z, _ = self.normalize(
            full_precision(x), full_precision(ops.convert_to_tensor(self.input_gain))
        )
        return add_bias(cast_to(z, x.dtype), self.bias)

    @property
    def step_with_gradient(self):
        same = type(self).normalize is LayerNormLSTMCell.normalize
        if keras.backend.backend() == "torch" or not (self.is_plain and same):
            return None
        return LayerNormLSTMStep(self)

    def step_and_activations(self, z, states, recurrent_gain, cell_gain, cell_bias):
        _, c = states
        x, product = ops.split(z, 2, axis=-1)  # [..., 4 U] each
        normalized, of_product = self.normalize(product, recurrent_gain)
        i, f, g, o = ops.split(x + normalized, 4, axis=-1)  # [..., U] each
        gate, activation = self.recurrent_activation, self.activation
        i, f, g, o = gate(i), gate(f), activation(g), gate(o)
        c = self.clip(f * c + i * g)  # [..., U]
        normalized, of_cell = self.normalize(c, cell_gain, cell_bias)
        t = activation(normalized)
        return (o * t, c), (i, f, g, o, t, *of_product, *of_cell)

    def normalize(self, v, gain, bias=None):
        """LN(v; gain) + bias along the last axis, and what its gradient needs.

        The latter are v minus its mean, divided by its standard deviation, and the inverse of that
        deviation; nothing on PyTorch, which has one operation with a gradient.
        """
        if keras.backend.backend() == "torch":
            return ops.layer_normalization(v, gain, bias, axis=-1, epsilon=self.epsilon), ()
        v = v - ops.mean(v, axis=-1, keepdims=True)
        scale = ops.rsqrt(ops.mean(ops.square(v), axis=-1, keepdims=True) + self.epsilon)
        v = v * scale
        return v * gain if bias is None else v * gain + bias, (v, scale)

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
        epsilon: float = 1e-3,
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
