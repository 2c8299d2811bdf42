"""The base classes of recurrent cells: arguments, weights, dropout, one step."""

import contextlib
import math

import keras
from keras import activations, constraints, initializers, ops, regularizers

from unroll.layers.operations import cast_like, cast_to, full_precision
from unroll.layers.recurrent.base_cell import BaseCell, forwarded, is_newest, require_rates
from unroll.layers.recurrent.recurrence import (
    StepWithGradient,
    pre_activation,
    recurrence,
    recurrent_product,
)

# The members of a cell that its `step_with_gradient` replaces.
EQUATIONS = ("step", "loop_step", "step_and_activations", "loop_weights", "step_weights")


class RecurrentCell(BaseCell):
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
    | `project(inputs)` | x W + b, of one step or of all, from the `weights` of the cell alone |
    | `loop_kernel` | what h is multiplied with in each step, as in `recurrent_product`; R |
    | `added_columns` | how many columns of x W + b and h R are added; all |
    | `step_weights(dropout_mask)` | the `weights` of `step`; none |
    | `loop_step`, `loop_weights` | as `step` and `step_weights`, with what follows the equations |
    | `read_out(h)` | the output for the first state; h |
    | `multiply_adds` | the work of the product in one step of one sequence |
    | `over_time(...)` | the loop over all steps; `recurrence` |
    | `noise(sequences)` | random numbers for each step in training; none |
    | `step_with_gradient` | a `StepWithGradient` of the same equations; the backend's gradient |
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
        own = ("recurrent_initializer", "recurrent_regularizer", "recurrent_constraint")
        require_rates(
            type(self).__name__,
            recurrent_dropout=recurrent_dropout,
            recurrent_weight_dropout=recurrent_weight_dropout,
        )
        super().__init__(
            **forwarded(locals(), *own, "own", "recurrent_dropout", "recurrent_weight_dropout")
        )
        self.recurrent_initializer = initializers.get(recurrent_initializer)
        self.recurrent_regularizer = regularizers.get(recurrent_regularizer)
        self.recurrent_constraint = constraints.get(recurrent_constraint)
        self.recurrent_dropout = recurrent_dropout
        self.recurrent_weight_dropout = recurrent_weight_dropout
        self._recurrent_weight_mask = self._masked_recurrent_kernel = None

    def build(self, input_shape):
        width = self.gates * self.units
        self.add_weights((input_shape[-1], width), (self.state_size[0], width), (width,))

    def add_weights(self, kernel, recurrent_kernel, bias, trainable: bool = True):
        """Creates W, R and b of the given shapes."""
        self.kernel = self.add_part("kernel", kernel, self.kernel_initializer, trainable)
        self.recurrent_kernel = self.add_part(
            "recurrent_kernel", recurrent_kernel, self.initial_recurrent_kernel, trainable
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_part("bias", bias, self.initial_bias, trainable)

    def initial_recurrent_kernel(self, shape, dtype=None):
        """The initial value of R."""
        return self.recurrent_initializer(shape, dtype=dtype)

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
    def multiply_adds(self):
        return math.prod(self.loop_kernel.shape)

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

    @property
    def step_with_gradient(self) -> StepWithGradient | None:
        """`step` with a gradient of its own, or None. A subclass with other equations has none."""
        return None

    def over_time(self, inputs, states, mask, dropout_mask, reverse: bool):
        inputs, options = self.projected(inputs)
        if is_newest(self, "step_with_gradient", EQUATIONS):
            options["step_with_gradient"] = self.step_with_gradient
        return recurrence(
            self.loop_step,
            inputs,
            states,
            self.loop_kernel,
            self.loop_weights(dropout_mask),
            **options,
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

    def get_config(self):
        return {
            **super().get_config(),
            **self.config_of("recurrent"),
            "recurrent_dropout": self.recurrent_dropout,
            "recurrent_weight_dropout": self.recurrent_weight_dropout,
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
