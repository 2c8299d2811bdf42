"""The gated recurrent unit."""

import keras
from keras import ops

from unroll.layers.recurrent.base import GatedCell, RecurrentLayer


@keras.saving.register_keras_serializable(package="unroll")
class GRUCell(GatedCell):
    """One step of a gated recurrent unit.

    Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder", equations 5 to 8:

        z, r = sigmoid(x W + h R + b), each its own columns
        g = tanh(x W + (r * h) R + b)            reset before the product (the paper)
        g = tanh(x W + b + r * (h R + b_g))      reset after it (cuDNN)
        h' = z * h + (1 - z) * g

    The columns of the weights stand in the order z, r, g. The bias has a second row, added to h R,
    where the reset comes after. All as in `keras.layers.GRUCell`, to and from which the weights
    move with `set_weights`.

    Args:
        reset_after: whether the reset gate acts after the recurrent product, which is one product
            a step instead of two.
        **kwargs: as in `GatedCell`.

    Differs from the paper: there the reset comes before (`reset_after=False`), without biases.
    """

    gates = 3
    states = 1

    def __init__(self, units: int, reset_after: bool = True, **kwargs):
        super().__init__(units, **kwargs)
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
        return 2 * self.units  # of g the step needs x W and h R apart

    @property
    def loop_kernel(self):
        if self.reset_after:
            return self.recurrent_kernel
        return self.recurrent_kernel[:, : self.added_columns]

    def step_weights(self, dropout_mask=None):
        if self.reset_after:
            return () if self.bias is None else (self.bias[1, self.added_columns :],)
        kernel = self.recurrent_kernel[:, self.added_columns :]
        return (kernel,) if dropout_mask is None else (kernel, dropout_mask)

    def project(self, inputs):
        x = ops.matmul(inputs, self.kernel)  # [..., 3 U]
        if self.bias is None:
            return x
        if not self.reset_after:
            return x + self.bias
        of_the_gates = ops.pad(self.bias[1, : self.added_columns], [[0, self.units]])
        return x + self.bias[0] + of_the_gates

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
    """A gated recurrent unit: `GRUCell` has the equations, `RecurrentLayer` the arguments.

    >>> import numpy as np
    >>> from unroll.layers import GRU
    >>> GRU(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = GRUCell
