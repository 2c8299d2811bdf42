"""The base classes of recurrent cells: arguments, weights, dropout, one step."""

import contextlib
import math

import keras
from keras import activations, constraints, initializers, ops, regularizers

from unroll.layers.backend import product
from unroll.layers.operations import (
    add_bias,
    cast_like,
    cast_to,
    full_precision,
    require_size,
)
from unroll.layers.recurrent.keras_private import DropoutRNNCell
from unroll.layers.recurrent.recurrence import pre_activation, recurrence, recurrent_product


def forwarded(arguments: dict, *own: str) -> dict:
    """The arguments that a constructor passes on to its base class.

    Args:
        arguments: the `locals()` of the constructor, before it sets any other variable.
        *own: the names of the arguments that the base class does not take.
    """
    dropped = {"self", "__class__", "kwargs", *own}
    return {k: v for k, v in arguments.items() if k not in dropped} | arguments["kwargs"]


class RecurrentCell(keras.layers.Layer, DropoutRNNCell):
    """Base class of cells: one step of a recurrent network whose pre-activation is x W + h R + b.

    A subclass sets `gates` and `states`, and defines `step`. It then runs in `keras.layers.RNN`,
    in `keras.layers.StackedRNNCells`, and, faster, in a subclass of `RecurrentLayer`. For example,
    h' = a h + (1 - a) tanh(x W + h R + b):

    >>> import keras, numpy as np
    >>> from unroll.layers.recurrent import RecurrentCell, RecurrentLayer
    >>> @keras.saving.register_keras_serializable(package="example")
    ... class LeakyRNNCell(RecurrentCell):
    ...     gates = 1
    ...     states = 1
    ...
    ...     def __init__(self, units, leak=0.9, **kwargs):
    ...         super().__init__(units, **kwargs)
    ...         self.leak = leak
    ...
    ...     def step(self, z, states):
    ...         (h,) = states
    ...         return (self.leak * h + (1 - self.leak) * self.activation(z),)
    ...
    ...     def get_config(self):
    ...         return {**super().get_config(), "leak": self.leak}
    >>> @keras.saving.register_keras_serializable(package="example")
    ... class LeakyRNN(RecurrentLayer):
    ...     cell_class = LeakyRNNCell
    >>> LeakyRNN(8, leak=0.5, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])

    The time loop of `RecurrentLayer` uses these members of a cell. All but the first three have a
    default.

    | member | meaning |
    | --- | --- |
    | `gates` | the number of blocks of U columns in W, R and b |
    | `states` | the number of states, each `[B, U]`; the first is the output |
    | `step(z, states, *weights)` | the equations after the products x W and h R |
    | `state_size`, `output_size` | the sizes of the states and of the output; U each |
    | `build(input_shape)` | creates the weights, with `add_weights` |
    | `project(inputs)` | x W + b, which the loop computes for all steps at once |
    | `loop_kernel` | what h is multiplied with in each step, as in `recurrent_product`; R |
    | `added_columns` | how many columns of x W + b and h R are added; all |
    | `step_weights(dropout_mask)` | the `weights` of `step`; none |
    | `loop_step`, `loop_weights` | as `step` and `step_weights`, with what follows the equations |
    | `read_out(h)` | the output for the first state; h |
    | `multiply_adds` | the work of the product in one step of one sequence |
    | `over_time(...)` | the loop over all steps; `recurrence` |
    | `noise(sequences)` | random numbers for each step in training; none |
    | `fused_kernel` | the kernel of the backend with the same equations; none |

    Args:
        units: U, the size of the output and of each state.
        activation: the activation of everything that is not a gate.
        use_bias: whether there is a bias b.
        kernel_initializer, recurrent_initializer, bias_initializer: of W, R and b.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: of W, R and b.
        kernel_constraint, recurrent_constraint, bias_constraint: of W, R and b.
        dropout: the fraction of the inputs to drop, with one mask for all time steps.
        recurrent_dropout: the fraction of h to drop before the product with R, with one mask for
            all time steps.
        seed: the random seed of the dropout.
        recurrent_weight_dropout: the fraction of the entries of R to drop, with one mask for all
            sequences and time steps of a batch (DropConnect, Wan et al. 2013, as Merity et al. 2018
            use it in "Regularizing and optimizing LSTM language models", section 2).
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`. `implementation`, which
            Keras's cells take, has no effect.

    Call arguments:
        inputs: `[B, D]`.
        states: list of `[B, U]`.
        training: whether dropout applies.

    Raises:
        ValueError: if `units` is not an integer of at least 1 or a dropout rate is not in [0, 1].
    """

    gates: int
    states: int

    def __init__(
        self,
        units: int,
        activation="tanh",
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
        seed: int | None = None,
        *,
        recurrent_weight_dropout: float = 0.0,
        **kwargs,
    ):
        kwargs.pop("implementation", None)
        label = type(self).__name__
        units = require_size(f"{label}: units", units)
        rates = {
            "dropout": dropout,
            "recurrent_dropout": recurrent_dropout,
            "recurrent_weight_dropout": recurrent_weight_dropout,
        }
        for name, rate in rates.items():
            if not 0 <= rate <= 1:
                raise ValueError(f"{label}: {name} must be in [0, 1], got {rate!r}.")
        super().__init__(**kwargs)
        self.units = units
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.recurrent_initializer = initializers.get(recurrent_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = regularizers.get(recurrent_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.recurrent_constraint = constraints.get(recurrent_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.dropout = dropout
        self.recurrent_dropout = recurrent_dropout
        self.recurrent_weight_dropout = recurrent_weight_dropout
        self._recurrent_weight_mask = self._masked_recurrent_kernel = None
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.state_size = [units] * self.states
        self.output_size = units

    def build(self, input_shape):
        width = self.gates * self.units
        self.add_weights((input_shape[-1], width), (self.state_size[0], width), (width,))

    def add_weights(self, kernel, recurrent_kernel, bias, trainable: bool = True):
        """Creates W, R and b of the given shapes."""
        self.kernel = self.add_weight(
            shape=kernel,
            name="kernel",
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            trainable=trainable,
        )
        self.recurrent_kernel = self.add_weight(
            shape=recurrent_kernel,
            name="recurrent_kernel",
            initializer=self.initial_recurrent_kernel,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
            trainable=trainable,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=bias,
                name="bias",
                initializer=self.initial_bias,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                trainable=trainable,
            )

    def initial_recurrent_kernel(self, shape, dtype=None):
        """The initial value of R."""
        return self.recurrent_initializer(shape, dtype=dtype)

    def initial_bias(self, shape, dtype=None):
        """The initial value of b. A subclass may start a gate open."""
        return self.bias_initializer(shape, dtype=dtype)

    @property
    def loop_kernel(self):
        """What h is multiplied with in each step, as in `recurrent_product`; R by default."""
        return self.masked_recurrent_kernel

    @property
    def masked_recurrent_kernel(self):
        """R, without the entries that `recurrent_weight_dropout` drops in this call."""
        masked = self._masked_recurrent_kernel
        return self.recurrent_kernel if masked is None else masked

    @contextlib.contextmanager
    def masking_recurrent_kernel(self, mask):
        """Within it, `masked_recurrent_kernel` is R times a mask of its shape, or R for None.

        A subclass that replaces a member which reads R reads `masked_recurrent_kernel` there.
        """
        if mask is not None:
            kernel = ops.convert_to_tensor(self.recurrent_kernel)
            self._masked_recurrent_kernel = kernel * cast_to(mask, kernel.dtype)
        try:
            yield
        finally:
            self._masked_recurrent_kernel = None

    def get_recurrent_weight_mask(self):
        """The mask of R, the same until `reset_recurrent_dropout_mask`; None without dropout."""
        if self._recurrent_weight_mask is None and self.recurrent_weight_dropout:
            self._recurrent_weight_mask = keras.random.dropout(
                ops.ones(self.recurrent_kernel.shape, self.compute_dtype),
                self.recurrent_weight_dropout,
                seed=self.seed_generator,
            )
        return self._recurrent_weight_mask

    def get_recurrent_dropout_mask(self, step_input):
        # Keras calls this before its loop, so that the loop has no random numbers.
        self.get_recurrent_weight_mask()
        return super().get_recurrent_dropout_mask(step_input)

    def reset_recurrent_dropout_mask(self):
        super().reset_recurrent_dropout_mask()
        self._recurrent_weight_mask = None

    @property
    def multiply_adds(self) -> int:
        """The multiply-adds of the product in one step of one sequence."""
        return math.prod(self.loop_kernel.shape)

    @property
    def fused_kernel(self) -> str | None:
        """The kernel with the equations of this class, a key of `fused.AT_MASKED_STEPS`, or None.

        A subclass that changes the equations does not inherit it.
        """
        return None

    @property
    def added_columns(self) -> int | None:
        """How many columns of x W + b and h R are added, as in `pre_activation`; None for all."""
        return None

    def step_weights(self, dropout_mask=None) -> tuple:
        """The weights other than W, R and b that `step` takes.

        A cell whose `step` has a recurrent product of its own adds the mask of the recurrent
        dropout, `[B, U]`.
        """
        return ()

    def step(self, z, states, *weights):
        """The equations of the cell after the products.

        Args:
            z: the sum of x W + b and h R, `[..., gates * U]`; see `added_columns`.
            states: `[..., U]` each.
            *weights: the `step_weights`.

        Returns:
            The new states, the output first.

        All of them have float32 where the compute dtype is a half precision.
        """
        raise NotImplementedError(f"{type(self).__name__} must define step().")

    def loop_weights(self, dropout_mask=None) -> tuple:
        """The weights that `loop_step` takes; the `step_weights` by default."""
        return self.step_weights(dropout_mask)

    def loop_step(self, z, states, *weights):
        """What the loops call: `step`, and what a base class does with its new states."""
        return self.step(z, states, *weights)

    def noise(self, sequences):
        """Random numbers `[B, T, N]` for the steps of `sequences` in training, or None.

        A cell that returns some takes them as the argument `noise` of `over_time`, `[T, B, N]`.
        """

    def project(self, inputs):
        """x W + b: `[..., D]` to `[..., gates * U]`."""
        z = product(inputs, self.kernel)
        return add_bias(z, self.bias)

    def read_out(self, h):
        """The output of the cell for its first state, `[..., U]`."""
        return h

    def over_time(self, inputs, states, mask, dropout_mask, reverse: bool):
        """Runs the cell over all time steps.

        Args:
            inputs: `[T, B, D]`.
            states: the initial states, `[B, U]` each.
            mask: `[T, B]`, boolean, or None.
            dropout_mask: `[B, U]`, multiplied with h before the product with R, or None.
            reverse: whether the loop runs from the last step to the first.

        Returns:
            The first state after each step, `[T, B, U]`, and all states after the last step.
        """
        return recurrence(
            self.loop_step,
            self.project(inputs),
            states,
            self.loop_kernel,
            self.loop_weights(dropout_mask),
            added_columns=self.added_columns,
            mask=mask,
            dropout_mask=dropout_mask,
            reverse=reverse,
        )

    def call(self, inputs, states, training=False):
        h, dropout_mask = states[0], None
        if training and self.dropout:
            inputs = inputs * self.get_dropout_mask(inputs)
        if training and self.recurrent_dropout:
            dropout_mask = self.get_recurrent_dropout_mask(h)
            h = h * dropout_mask
        with self.masking_recurrent_kernel(self.get_recurrent_weight_mask() if training else None):
            recurrent = recurrent_product(h, self.loop_kernel)
            weights = full_precision(self.loop_weights(dropout_mask))
        z = pre_activation(self.project(inputs), recurrent, self.added_columns)  # [B, gates * U]
        new = self.loop_step(full_precision(z), full_precision(states), *weights)
        new = cast_like(new, states)
        return self.read_out(new[0]), list(new)

    def get_initial_state(self, batch_size=None):
        return [ops.zeros((batch_size, size), dtype=self.compute_dtype) for size in self.state_size]

    def get_config(self):
        serialized = {"activation": activations.serialize(self.activation)}
        for part in ("kernel", "recurrent", "bias"):
            for kind, module in (
                ("initializer", initializers),
                ("regularizer", regularizers),
                ("constraint", constraints),
            ):
                serialized[f"{part}_{kind}"] = module.serialize(getattr(self, f"{part}_{kind}"))
        return {
            **super().get_config(),
            "units": self.units,
            "use_bias": self.use_bias,
            **serialized,
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
            "recurrent_weight_dropout": self.recurrent_weight_dropout,
            "seed": self.seed,
        }


class GatedCell(RecurrentCell):
    """Base class of cells with gates: a `RecurrentCell` with an activation for the gates.

    Args:
        units: U, the size of the output and of each state.
        activation: the activation of everything that is not a gate.
        recurrent_activation: the activation of the gates.
        use_bias, kernel_initializer, ..., seed, **kwargs: as in `RecurrentCell`.
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
        super().__init__(**forwarded(locals(), "recurrent_activation"))
        self.recurrent_activation = activations.get(recurrent_activation)

    @property
    def has_default_activations(self) -> bool:
        """Whether the activations are tanh, and the logistic function for the gates."""
        gate = self.recurrent_activation is activations.sigmoid
        return gate and self.activation is activations.tanh

    def get_config(self):
        gate = activations.serialize(self.recurrent_activation)
        return {**super().get_config(), "recurrent_activation": gate}
