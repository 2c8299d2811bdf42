"""The real-gated linear recurrent unit."""

import keras
from keras import ops

from unroll.layers.recurrent.base_cell import forwarded
from unroll.layers.recurrent.layer import RecurrentLayer
from unroll.layers.recurrent.linear_cell import LinearRecurrentCell

# Below it the derivative of the square root is not used: it is infinite at a decay of 1.
SMALLEST_SQUARE = 1e-6


@keras.saving.register_keras_serializable(package="unroll")
class RGLRUCell(LinearRecurrentCell):
    """One step of a real-gated linear recurrent unit.

    De et al. 2024, "Griffin: mixing gated linear recurrences with local attention for efficient
    language models", equations 1 to 4:

        r, i, g = x W + b, each with its own columns
        a = exp(-exponent * softplus(decay) * sigmoid(r))
        h' = a h + sqrt(1 - a^2) * sigmoid(i) * g

    The columns of the weights are in the order r, i, g. `decay` is a weight, `[U]`: at first, the
    squares of exp(-softplus(decay)) are uniform from .9^2 to .999^2. A step with a closed gate r
    keeps all of h, one with an open gate that number to the power of `exponent`.

    Args:
        activation: of g.
        exponent: c in the paper.
        The others are those of `BaseCell`.

    Raises:
        ValueError: if `exponent` is not above 0.

    Differs from the paper: g is a projection of the input, so that the input may have any size; in
    the paper g is the input itself, which its block projects. The gates have dense weights; in the
    paper's implementation those are block diagonal. The values of `decay` at first are those of the
    implementation. In the paper's text the numbers from .9 to .999 are those after the exponent; at
    first, such a layer cannot forget within some steps.
    """

    gates = 3

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
        exponent: float = 8.0,
        **kwargs,
    ):
        super().__init__(**forwarded(locals(), "exponent"))
        if not exponent > 0:
            raise ValueError(f"{type(self).__name__}: exponent must be above 0, got {exponent!r}.")
        self.exponent = exponent

    def build(self, input_shape):
        super().build(input_shape)
        self.decay = self.add_weight(
            shape=(self.units,), name="decay", initializer=self.initial_decay
        )

    def initial_decay(self, shape, dtype=None):
        bounds = 0.9**2, 0.999**2
        square = keras.random.uniform(shape, *bounds, dtype=dtype, seed=self.seed_generator)
        return ops.log(ops.expm1(-ops.log(square) / 2))

    def step_weights(self):
        return (self.decay,)

    def coefficients(self, z, decay):
        r, i, g = ops.split(z, 3, axis=-1)  # [..., U] each
        log_a = -self.exponent * ops.softplus(decay) * ops.sigmoid(r)
        square = ops.maximum(-ops.expm1(2 * log_a), SMALLEST_SQUARE)
        return ops.exp(log_a), ops.sqrt(square) * ops.sigmoid(i) * self.activation(g)

    def get_config(self):
        return {**super().get_config(), "exponent": self.exponent}


@keras.saving.register_keras_serializable(package="unroll")
class RGLRU(RecurrentLayer):
    """A real-gated linear recurrent unit over time, which trains in parallel over the steps.

    `RGLRUCell` has the equations. `RecurrentLayer` describes the call and the arguments that the
    cell does not have; `unroll` and `use_cudnn` have no effect.

    >>> import numpy as np
    >>> from unroll.layers import RGLRU
    >>> RGLRU(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = RGLRUCell

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
        exponent: float = 8.0,
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
