"""Long short-term memory."""

import keras
from keras import initializers, ops

from unroll.layers.recurrent.cell import GatedCell, forwarded
from unroll.layers.recurrent.layer import RecurrentLayer


@keras.saving.register_keras_serializable(package="unroll")
class LSTMCell(GatedCell):
    """One step of an LSTM with a forget gate.

    Hochreiter and Schmidhuber 1997, "Long short-term memory". The forget gate is from Gers,
    Schmidhuber and Cummins 2000, "Learning to forget":

        i, f, o = sigmoid(x W + h R + b), each with its own columns
        g = tanh(x W + h R + b)
        c' = f * c + i * g
        h' = o * tanh(c')

    The columns of the weights are in the order i, f, g, o, as in `keras.layers.LSTMCell`:
    `set_weights` copies weights between the two.

    Args:
        unit_forget_bias: whether the bias of the forget gate starts at one (Jozefowicz et al.
            2015).
        The others are those of `GatedCell`.

    Differs from the paper: nothing. Differs from Keras: recurrent dropout uses one mask for all
    gates.
    """

    gates = 4
    states = 2
    forget_gate = 1  # its index among the gates

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
        **kwargs,
    ):
        super().__init__(**forwarded(locals(), "unit_forget_bias"))
        self.unit_forget_bias = unit_forget_bias

    def initial_bias(self, shape, dtype=None):
        bias = super().initial_bias(shape, dtype)
        if not self.unit_forget_bias:
            return bias
        parts = ops.split(bias, self.gates)
        parts[self.forget_gate] = initializers.Ones()(parts[0].shape, dtype=dtype)
        return ops.concatenate(parts)

    @property
    def fused_kernel(self):
        return "lstm" if self.has_default_activations else None

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
    """An LSTM over time, with the arguments and weights of `keras.layers.LSTM`.

    `LSTMCell` has the equations. `RecurrentLayer` describes the call and the arguments that the
    cell does not have; `unroll` has no effect.

    >>> import numpy as np
    >>> from unroll.layers import LSTM
    >>> LSTM(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = LSTMCell

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
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
