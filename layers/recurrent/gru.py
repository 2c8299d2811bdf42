"""The gated recurrent unit."""

import keras
from keras import ops

from unroll.layers.backend import product
from unroll.layers.operations import add_bias
from unroll.layers.recurrent.cell import GatedCell, forwarded
from unroll.layers.recurrent.layer import RecurrentLayer


@keras.saving.register_keras_serializable(package="unroll")
class GRUCell(GatedCell):
    """One step of a gated recurrent unit.

    Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder", equations 5 to 8:

        z, r = sigmoid(x W + h R + b), each with its own columns
        g = tanh(x W + (r * h) R + b)            reset before the product (the paper)
        g = tanh(x W + b + r * (h R + b_g))      reset after the product (cuDNN)
        h' = z * h + (1 - z) * g

    The columns of the weights are in the order z, r, g. With the reset after the product the bias
    has a second row, which is added to h R. All of this is as in `keras.layers.GRUCell`:
    `set_weights` copies weights between the two.

    Args:
        reset_after: whether the reset gate is applied after the recurrent product. This takes one
            product in each step instead of two.
        The others are those of `GatedCell`.

    Differs from the paper: it has the reset before the product (`reset_after=False`) and no biases.
    """

    gates = 3
    states = 1

    def __init__(
        self,
        units: int,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        reset_after: bool = True,
        seed: int | None = None,
        *,
        recurrent_weight_dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**forwarded(locals(), "reset_after"))
        self.reset_after = reset_after

    def build(self, input_shape):
        width = 3 * self.units
        self.add_weights(
            kernel=(input_shape[-1], width),
            recurrent_kernel=(self.units, width),
            bias=(2, width) if self.reset_after else (width,),
        )

    @property
    def added_columns(self):
        return 2 * self.units  # for g the step needs x W and h R separately

    @property
    def fused_kernel(self):
        return "gru" if self.reset_after and self.has_default_activations else None

    @property
    def loop_kernel(self):
        if self.reset_after:
            return self.masked_recurrent_kernel
        return self.masked_recurrent_kernel[:, : self.added_columns]

    def step_weights(self, dropout_mask=None):
        if self.reset_after:
            return () if self.bias is None else (self.bias[1, self.added_columns :],)
        kernel = self.masked_recurrent_kernel[:, self.added_columns :]
        return (kernel,) if dropout_mask is None else (kernel, dropout_mask)

    def project(self, inputs):
        x = product(inputs, self.kernel)  # [..., 3 U]
        if self.bias is None:
            return x
        if not self.reset_after:
            return add_bias(x, self.bias)
        gate_bias = ops.pad(self.bias[1, : self.added_columns], [[0, self.units]])
        return add_bias(x, self.bias[0] + gate_bias)

    def step(self, z, states, weight=0.0, dropout_mask=1.0):
        (h,) = states
        z, r, *g = ops.split(z, z.shape[-1] // self.units, axis=-1)  # [..., U] each
        z, r = self.recurrent_activation(z), self.recurrent_activation(r)
        if self.reset_after:
            g = self.activation(g[0] + r * (g[1] + weight))
        else:
            g = self.activation(g[0] + ops.matmul(r * h * dropout_mask, weight))
        return (g + z * (h - g),)

    def get_config(self):
        return {**super().get_config(), "reset_after": self.reset_after}


@keras.saving.register_keras_serializable(package="unroll")
class GRU(RecurrentLayer):
    """A gated recurrent unit over time, with the arguments and weights of `keras.layers.GRU`.

    `GRUCell` has the equations. `RecurrentLayer` describes the call and the arguments that the cell
    does not have; `unroll` has no effect.

    >>> import numpy as np
    >>> from unroll.layers import GRU
    >>> GRU(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = GRUCell

    def __init__(
        self,
        units: int,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
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
        reset_after: bool = True,
        use_cudnn: bool | str = "auto",
        zero_output_for_mask: bool = False,
        *,
        recurrent_weight_dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
