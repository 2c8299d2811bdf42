"""The echo state network."""

import keras
import numpy as np
from keras import ops

from unroll.layers.recurrent.cell import RecurrentCell, forwarded
from unroll.layers.recurrent.layer import RecurrentLayer


@keras.saving.register_keras_serializable(package="unroll")
class ESNCell(RecurrentCell):
    """One step of an echo state network: a random reservoir that is not trained.

    Jaeger 2001, "The echo state approach to analysing and training recurrent neural networks", with
    the leaky units of Jaeger et al. 2007, "Optimization and applications of echo state networks
    with leaky-integrator neurons", equation 2:

        h' = (1 - a) h + a tanh(x W + h R + b)

    W, R and b keep their initial values: they are weights that are not trainable, so they are saved
    with the model. Train a `Dense` layer on top. An entry of R is zero with the probability
    1 - `connectivity`, and R is divided by its spectral radius, the largest absolute value of its
    eigenvalues, and multiplied by `spectral_radius`. Below 1, the state then usually forgets where
    it started (the echo state property).

    Args:
        connectivity: the probability that one unit is connected to another, from 0 to 1.
        leaky: a, above 0 and at most 1.
        spectral_radius: the largest absolute value of the eigenvalues of R, at least 0.
        use_norm2: whether to divide R by its Frobenius norm, an upper bound of the spectral radius,
            so that no eigenvalues are computed.
        recurrent_initializer: of R, before it is scaled.
        seed: the random seed of the connections, and of the dropout.
        The others are those of `RecurrentCell`. Regularizers and constraints are refused, because
        no weight is trained.

    Raises:
        ValueError: if an argument is out of its range, or a regularizer or constraint of a weight
            is given.

    Differs from the papers: the output has no feedback to the reservoir.
    """

    gates = 1
    states = 1

    def __init__(
        self,
        units: int,
        connectivity: float = 0.1,
        leaky: float = 1.0,
        spectral_radius: float = 0.9,
        use_norm2: bool = False,
        use_bias: bool = True,
        activation="tanh",
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
        **kwargs,
    ):
        super().__init__(
            **forwarded(locals(), "connectivity", "leaky", "spectral_radius", "use_norm2")
        )
        label = type(self).__name__
        for part in ("kernel", "recurrent", "bias"):
            for kind in ("regularizer", "constraint"):
                if getattr(self, f"{part}_{kind}") is not None:
                    raise ValueError(
                        f"{label}: {part}_{kind} must be None, because the weights are not trained."
                    )
        if not 0 <= connectivity <= 1:
            raise ValueError(f"{label}: connectivity must be in [0, 1], got {connectivity!r}.")
        if not 0 < leaky <= 1:
            raise ValueError(f"{label}: leaky must be above 0 and at most 1, got {leaky!r}.")
        if not spectral_radius >= 0:
            raise ValueError(
                f"{label}: spectral_radius must be 0 or more, got {spectral_radius!r}."
            )
        self.connectivity = connectivity
        self.leaky = leaky
        self.spectral_radius = spectral_radius
        self.use_norm2 = use_norm2

    def build(self, input_shape):
        self.add_weights(
            (input_shape[-1], self.units), (self.units, self.units), (self.units,), trainable=False
        )

    def initial_recurrent_kernel(self, shape, dtype=None):
        kernel = super().initial_recurrent_kernel(shape, dtype)
        # An initializer, because a random generator cannot be created within that of a variable.
        numbers = keras.initializers.RandomUniform(0.0, 1.0, seed=self.seed)(shape, dtype=dtype)
        kernel = ops.where(numbers < self.connectivity, kernel, 0.0)
        values = ops.cast(kernel, "float32")
        radius = ops.norm(values) if self.use_norm2 else spectral_radius(values)
        # Without connections, or without a cycle of them, all eigenvalues are zero.
        factor = ops.where(radius > 1e-6, self.spectral_radius / ops.maximum(radius, 1e-6), 1.0)
        return ops.cast(values * factor, kernel.dtype)

    def step(self, z, states):
        (h,) = states
        return ((1 - self.leaky) * h + self.leaky * self.activation(z),)

    def get_config(self):
        return {
            **super().get_config(),
            "connectivity": self.connectivity,
            "leaky": self.leaky,
            "spectral_radius": self.spectral_radius,
            "use_norm2": self.use_norm2,
        }


@keras.saving.register_keras_serializable(package="unroll")
class ESN(RecurrentLayer):
    """An echo state network over time.

    `ESNCell` has the equations. `RecurrentLayer` describes the call and the arguments that the
    cell does not have; `unroll` has no effect.

    >>> import numpy as np
    >>> from unroll.layers import ESN
    >>> ESN(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = ESNCell

    def __init__(
        self,
        units: int,
        connectivity: float = 0.1,
        leaky: float = 1.0,
        spectral_radius: float = 0.9,
        use_norm2: bool = False,
        use_bias: bool = True,
        activation="tanh",
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
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))


def spectral_radius(kernel):
    """The largest absolute value of the eigenvalues of a square matrix."""
    if keras.backend.backend() == "tensorflow":  # which may build a layer in a graph
        return ops.max(ops.abs(ops.eig(kernel)[0]))
    return float(np.abs(np.linalg.eigvals(ops.convert_to_numpy(kernel))).max())
