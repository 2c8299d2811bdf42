"""The linear recurrent unit."""

import math

import keras
from keras import ops

from unroll.layers.backend import product
from unroll.layers.initializers import clone_initializer
from unroll.layers.operations import add_bias, require_size
from unroll.layers.recurrent.base_cell import forwarded
from unroll.layers.recurrent.layer import RecurrentLayer
from unroll.layers.recurrent.linear_cell import LinearRecurrentCell


@keras.saving.register_keras_serializable(package="unroll")
class LRUCell(LinearRecurrentCell):
    """One step of a linear recurrent unit: complex memory with a diagonal recurrence.

    Orvieto et al. 2023, "Resurrecting recurrent neural networks for long sequences", section 3.4:

        c' = exp(-exp(nu) + i exp(theta)) * c + exp(gamma) * (x B)       complex, N entries
        y = activation(Re(c' C) + x D + b)

    The magnitude of the factor is below 1 whatever the weights are. `kernel` has the real and then
    the imaginary part of B, `output_kernel` that of C. `nu`, `theta` and `gamma` are weights,
    `[N]` each: at first, the factors are uniform in a ring of the complex plane, and gamma
    normalizes the memory. D is `feedthrough`: a vector if the input has U features, otherwise a
    matrix.

    The states are y and the real and the imaginary part of c.

    Args:
        activation: of the output.
        state_units: N; by default U.
        min_radius, max_radius: of the ring, from 0 to 1.
        max_phase: the largest phase of a factor at first, in radians. A small one helps to remember
            over thousands of steps.
        The others are those of `BaseCell`; `kernel_initializer` is that of B and of a matrix D.

    Raises:
        ValueError: if `state_units` is not an integer of at least 1, or the radii or the phase are
            out of range.

    Differs from the paper: there is a bias b. The paper initializes B as a normal distribution of
    the variance 1 / (2 D).
    """

    gates = 1
    states = 3

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
        state_units: int | None = None,
        min_radius: float = 0.0,
        max_radius: float = 1.0,
        max_phase: float = 2 * math.pi,
        **kwargs,
    ):
        super().__init__(
            **forwarded(locals(), "state_units", "min_radius", "max_radius", "max_phase")
        )
        label = type(self).__name__
        if state_units is not None:
            state_units = require_size(f"{label}: state_units", state_units)
        if not 0 <= min_radius < max_radius <= 1:
            raise ValueError(
                f"{label}: the radii must be 0 <= min_radius < max_radius <= 1, got "
                f"min_radius={min_radius!r} and max_radius={max_radius!r}."
            )
        if not 0 < max_phase <= 2 * math.pi:
            raise ValueError(f"{label}: max_phase must be in (0, 2 pi], got {max_phase!r}.")
        self.state_units = state_units
        self.min_radius = min_radius
        self.max_radius = max_radius
        self.max_phase = max_phase
        size = state_units or units
        self.state_size = [units, size, size]

    def build(self, input_shape):
        features, size = input_shape[-1], self.state_size[1]
        self.add_weights((features, 2 * size), (self.units,))
        self.nu, self.theta = (
            self.add_weight(shape=(size,), name=name, initializer=initializer)
            for name, initializer in (
                ("nu", self.initial_nu),
                ("theta", self.initial_theta),
            )
        )
        self.gamma = self.add_weight(shape=(size,), name="gamma", initializer=self.initial_gamma)
        self.output_kernel = self.add_weight(
            shape=(2 * size, self.units),
            name="output_kernel",
            initializer=keras.initializers.RandomNormal(stddev=size**-0.5),
        )
        is_vector = features == self.units
        self.feedthrough = self.add_weight(
            shape=(features,) if is_vector else (features, self.units),
            name="feedthrough",
            initializer=keras.initializers.RandomNormal(stddev=1.0)
            if is_vector
            else clone_initializer(self.kernel_initializer),
        )

    def initial_nu(self, shape, dtype=None):
        """Magnitudes of the factors whose squares are uniform in the ring."""
        smallest, largest = self.min_radius**2, self.max_radius**2
        square = keras.random.uniform(
            shape, smallest, largest, dtype=dtype, seed=self.seed_generator
        )
        return ops.log(-0.5 * ops.log(ops.clip(square, 1e-7, 1 - 1e-7)))

    def initial_theta(self, shape, dtype=None):
        phase = keras.random.uniform(
            shape, 0, self.max_phase, dtype=dtype, seed=self.seed_generator
        )
        return ops.log(ops.maximum(phase, 1e-7))

    def initial_gamma(self, shape, dtype=None):
        """The logarithms of the scales with which the memory keeps the variance of its input."""
        return ops.cast(0.5 * ops.log(-ops.expm1(-2 * ops.exp(self.nu))), dtype)

    def project(self, inputs):
        """The real and the imaginary part of x B, and x D + b: `[..., 2 N + U]`."""
        feedthrough = ops.convert_to_tensor(self.feedthrough)
        if len(feedthrough.shape) == 1:
            direct = inputs * feedthrough
        else:
            direct = product(inputs, self.feedthrough)
        return ops.concatenate([product(inputs, self.kernel), add_bias(direct, self.bias)], axis=-1)

    def step_weights(self):
        return self.nu, self.theta, self.gamma

    def coefficients(self, z, nu, theta, gamma):
        size = self.state_size[1]
        real, imaginary, _ = ops.split(z, [size, 2 * size], axis=-1)
        scale = ops.exp(gamma)
        magnitude, phase = ops.exp(-ops.exp(nu)), ops.exp(theta)
        shape = (*[1] * (len(z.shape) - 1), size)
        a = tuple(ops.reshape(magnitude * f(phase), shape) for f in (ops.cos, ops.sin))
        return a, (scale * real, scale * imaginary)

    def output(self, z, memory, *weights):
        kernel = ops.cast(self.output_kernel, memory[0].dtype)
        read = ops.matmul(ops.concatenate(memory, axis=-1), kernel)
        return self.activation(read + z[..., 2 * self.state_size[1] :])

    def get_config(self):
        return {
            **super().get_config(),
            "state_units": self.state_units,
            "min_radius": self.min_radius,
            "max_radius": self.max_radius,
            "max_phase": self.max_phase,
        }


@keras.saving.register_keras_serializable(package="unroll")
class LRU(RecurrentLayer):
    """A linear recurrent unit over time, which trains in parallel over the steps.

    `LRUCell` has the equations. `RecurrentLayer` describes the call and the arguments that the cell
    does not have; `unroll` and `use_cudnn` have no effect.

    >>> import numpy as np
    >>> from unroll.layers import LRU
    >>> LRU(8, state_units=6, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = LRUCell

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
        state_units: int | None = None,
        min_radius: float = 0.0,
        max_radius: float = 1.0,
        max_phase: float = 2 * math.pi,
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
