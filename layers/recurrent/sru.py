"""The simple recurrent unit."""

import math

import keras
from keras import ops

from unroll.layers.backend import product
from unroll.layers.initializers import clone_initializer
from unroll.layers.operations import add_bias
from unroll.layers.recurrent.base_cell import BaseCell, forwarded
from unroll.layers.recurrent.layer import RecurrentLayer
from unroll.layers.recurrent.recurrence import recurrence


@keras.saving.register_keras_serializable(package="unroll")
class SRUCell(BaseCell):
    """One step of a simple recurrent unit: gates that read their own entry of the memory.

    Lei, Zhang, Wang, Dai and Artzi 2018, "Simple recurrent units for highly parallelizable
    recurrence", equations 1 to 4:

        f, r = sigmoid(x W + v * c + b), each with its own columns and its own v
        c' = f c + (1 - f) g
        h' = r activation(c') + (1 - r) alpha y

    g and y are x W, each with its own columns. Where the input has U features, y is the input
    itself. v is `peephole_kernel`, `[2, U]`. The columns are in the order f, r, g, y; b has those
    of f and r. The constant alpha keeps the variance of the input: it is sqrt(1 + 2 exp(b_r)) for
    the initial bias b_r of r (section 3.2).

    There is no product in a step, so that one takes little time, but the steps run one after the
    other.

    Args:
        activation: of c; linear in the paper.
        highway_bias: b_r, the initial bias of r, which is added to that of `bias_initializer`.
        The others are those of `BaseCell`; `kernel_initializer` is also that of v.

    Differs from the paper: nothing.
    """

    states = 2

    def __init__(
        self,
        units: int,
        activation="linear",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        dropout: float = 0.0,
        seed: int | None = None,
        *,
        highway_bias: float = 0.0,
        **kwargs,
    ):
        super().__init__(**forwarded(locals(), "highway_bias"))
        self.highway_bias = highway_bias

    def build(self, input_shape):
        features = input_shape[-1]
        self.is_direct = features == self.units
        columns = (3 if self.is_direct else 4) * self.units
        self.kernel = self.add_part("kernel", (features, columns), self.kernel_initializer)
        self.bias = None
        if self.use_bias:
            self.bias = self.add_part("bias", (2 * self.units,), self.initial_bias)
        self.peephole_kernel = self.add_weight(
            shape=(2, self.units),
            name="peephole_kernel",
            initializer=clone_initializer(self.kernel_initializer),
        )

    def initial_bias(self, shape, dtype=None):
        of_r = ops.repeat(ops.convert_to_tensor([0.0, self.highway_bias], dtype), self.units)
        return self.bias_initializer(shape, dtype=dtype) + of_r

    def project(self, inputs):
        """f, r, g and y without v * c: `[..., 4 U]`."""
        z = product(inputs, self.kernel)
        if self.is_direct:
            z = ops.concatenate([z, inputs], axis=-1)
        if self.bias is None:
            return z
        return add_bias(z, ops.pad(self.bias, [[0, 2 * self.units]]))

    def step_weights(self):
        return (self.peephole_kernel,)

    def step(self, z, states, peepholes):
        _, c = states
        f, r, g, y = ops.split(z, 4, axis=-1)  # [..., U] each
        f = ops.sigmoid(f + peepholes[0] * c)
        r = ops.sigmoid(r + peepholes[1] * c)
        c = g + f * (c - g)
        alpha = math.sqrt(1 + 2 * math.exp(self.highway_bias))
        return r * self.activation(c) + (1 - r) * alpha * y, c

    def over_time(self, inputs, states, mask, dropout_mask, reverse: bool):
        inputs, options = self.projected(inputs)
        return recurrence(
            self.step,
            inputs,
            states,
            None,
            self.step_weights(),
            **options,
            mask=mask,
            reverse=reverse,
        )

    def get_config(self):
        return {**super().get_config(), "highway_bias": self.highway_bias}


@keras.saving.register_keras_serializable(package="unroll")
class SRU(RecurrentLayer):
    """A simple recurrent unit over time.

    `SRUCell` has the equations. `RecurrentLayer` describes the call and the arguments that the cell
    does not have; `unroll` and `use_cudnn` have no effect.

    >>> import numpy as np
    >>> from unroll.layers import SRU
    >>> SRU(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = SRUCell

    def __init__(
        self,
        units: int,
        activation="linear",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        *,
        highway_bias: float = 0.0,
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
