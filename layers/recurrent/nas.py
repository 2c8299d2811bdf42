"""The recurrent cell that neural architecture search has found."""

import keras
from keras import ops

from unroll.layers.backend import product
from unroll.layers.initializers import clone_initializer
from unroll.layers.operations import require_size
from unroll.layers.recurrent.cell import GatedCell, forwarded
from unroll.layers.recurrent.layer import RecurrentLayer


@keras.saving.register_keras_serializable(package="unroll")
class NASCell(GatedCell):
    """One step of the recurrent cell that neural architecture search has found.

    Zoph and Le 2017, "Neural architecture search with reinforcement learning", figure 8 (the cell
    found with max and sin not in use), as in TensorFlow Addons. With the eight blocks x_k of x W
    and h_k of h R + b:

        a_k = sigmoid(x_k + h_k)   for k = 0, 2, 5, 7
        a_1 = relu(x_1 + h_1)
        a_3 = relu(x_3 * h_3)
        a_k = tanh(x_k + h_k)      for k = 4, 6
        c' = tanh(tanh(a_0 * a_1) + c) * tanh(a_2 + a_3)
        h' = tanh(c' * tanh(tanh(a_4 * a_5) + sigmoid(a_6 + a_7)))

    With `projection`, h' is this vector times V, `[P, 8 U]` is the shape of R, and V `[U, P]` is
    `projection_kernel`. The states are h, `[B, P]` or `[B, U]`, and c, `[B, U]`.

    Args:
        activation: tanh in these equations.
        recurrent_activation: sigmoid in these equations.
        use_bias: whether there is a bias b.
        projection: P, the size of h and of the output; by default U, without V.
            `kernel_initializer` is also the initializer of V.
        The others are those of `GatedCell`.

    Raises:
        ValueError: if `projection` is not an integer of at least 1.

    Differs from TensorFlow Addons: the states are in the order h, c instead of c, h, and the
    weights in the order W, R, b, V instead of R, W, b, V.
    """

    gates = 8
    states = 2

    def __init__(
        self,
        units: int,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias: bool = False,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="glorot_uniform",
        bias_initializer="zeros",
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
        **kwargs,
    ):
        super().__init__(**forwarded(locals(), "projection"))
        if projection is not None:
            projection = require_size(f"{type(self).__name__}: projection", projection)
        self.projection = projection
        self.output_size = projection or units
        self.state_size = [self.output_size, units]

    def build(self, input_shape):
        super().build(input_shape)
        self.projection_kernel = None
        if self.projection is not None:
            self.projection_kernel = self.add_weight(
                shape=(self.units, self.projection),
                name="projection_kernel",
                initializer=clone_initializer(self.kernel_initializer),
            )

    @property
    def added_columns(self):
        return 3 * self.units  # a_3 needs x W and h R separately

    @property
    def multiply_adds(self):
        return super().multiply_adds + self.units * (self.projection or 0)

    def step_weights(self, dropout_mask=None):
        return tuple(w for w in (self.bias, self.projection_kernel) if w is not None)

    def project(self, inputs):
        return product(inputs, self.kernel)  # the step adds the bias to h R

    def step(self, z, states, *weights):
        _, c = states
        sigmoid, tanh = self.recurrent_activation, self.activation
        added, x, h = ops.split(z, [3 * self.units, 8 * self.units], axis=-1)
        if self.use_bias:
            bias, *weights = weights
            added, h = added + bias[: 3 * self.units], h + bias[3 * self.units :]
        z_0, z_1, z_2 = ops.split(added, 3, axis=-1)  # [..., U] each
        product_3 = x[..., : self.units] * h[..., : self.units]
        z_4, z_5, z_6, z_7 = ops.split((x + h)[..., self.units :], 4, axis=-1)
        c = tanh(tanh(sigmoid(z_0) * ops.relu(z_1)) + c) * tanh(sigmoid(z_2) + ops.relu(product_3))
        h = tanh(tanh(z_4) * sigmoid(z_5)) + sigmoid(tanh(z_6) + sigmoid(z_7))
        h = tanh(c * tanh(h))
        return (ops.matmul(h, weights[0]) if weights else h), c

    def get_config(self):
        return {**super().get_config(), "projection": self.projection}


@keras.saving.register_keras_serializable(package="unroll")
class NAS(RecurrentLayer):
    """The cell of neural architecture search over time.

    `NASCell` has the equations. `RecurrentLayer` describes the call and the arguments that the
    cell does not have; `unroll` has no effect.

    >>> import numpy as np
    >>> from unroll.layers import NAS
    >>> NAS(8, projection=4, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 4])
    """

    cell_class = NASCell

    def __init__(
        self,
        units: int,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias: bool = False,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="glorot_uniform",
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
        zero_output_for_mask: bool = False,
        *,
        recurrent_weight_dropout: float = 0.0,
        projection: int | None = None,
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
