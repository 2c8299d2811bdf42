"""The base classes of recurrent cells and layers: arguments, weights, dropout, the time loop."""

import contextlib
import inspect
import math

import keras
from keras import activations, constraints, initializers, ops, regularizers

from unroll.layers.backend import split_batch, steps_at_once
from unroll.layers.operations import add_bias, cast_like, full_precision, require_size, time_major
from unroll.layers.recurrent.keras_private import DropoutRNNCell
from unroll.layers.recurrent.recurrence import pre_activation, recurrence


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
    | `loop_kernel` | the matrix that h is multiplied with in each step; R |
    | `added_columns` | how many columns of x W + b and h R are added; all |
    | `step_weights(dropout_mask)` | the `weights` of `step`; none |
    | `read_out(h)` | the output for the first state; h |
    | `multiply_adds` | the work of the product in one step of one sequence |
    | `over_time(...)` | the loop over all steps; `recurrence` |

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
        **kwargs,
    ):
        kwargs.pop("implementation", None)
        label = type(self).__name__
        units = require_size(f"{label}: units", units)
        for name, rate in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
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
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.state_size = [units] * self.states
        self.output_size = units

    def build(self, input_shape):
        width = self.gates * self.units
        self.add_weights((input_shape[-1], width), (self.units, width), (width,))

    def add_weights(self, kernel, recurrent_kernel, bias):
        """Creates W, R and b of the given shapes."""
        self.kernel = self.add_weight(
            shape=kernel,
            name="kernel",
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.recurrent_kernel = self.add_weight(
            shape=recurrent_kernel,
            name="recurrent_kernel",
            initializer=self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=bias,
                name="bias",
                initializer=self.initial_bias,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def initial_bias(self, shape, dtype=None):
        """The initial value of b. A subclass may start a gate open."""
        return self.bias_initializer(shape, dtype=dtype)

    @property
    def loop_kernel(self):
        """The matrix that h is multiplied with in each step; R by default."""
        return self.recurrent_kernel

    @property
    def multiply_adds(self) -> int:
        """The multiply-adds of the product in one step of one sequence."""
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

    def project(self, inputs):
        """x W + b: `[..., D]` to `[..., gates * U]`."""
        z = ops.matmul(inputs, self.kernel)
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
            self.step,
            self.project(inputs),
            states,
            self.loop_kernel,
            self.step_weights(dropout_mask),
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
        product = ops.matmul(h, self.loop_kernel)
        z = pre_activation(self.project(inputs), product, self.added_columns)  # [B, gates * U]
        weights = full_precision(self.step_weights(dropout_mask))
        new = self.step(full_precision(z), full_precision(states), *weights)
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
        **kwargs,
    ):
        super().__init__(**forwarded(locals(), "recurrent_activation"))
        self.recurrent_activation = activations.get(recurrent_activation)

    def get_config(self):
        gate = activations.serialize(self.recurrent_activation)
        return {**super().get_config(), "recurrent_activation": gate}


class RecurrentLayer(keras.layers.RNN):
    """Base class of recurrent layers: a `keras.layers.RNN` that runs its cell by `recurrence`.

    A subclass sets `cell_class`, a subclass of `RecurrentCell` (which shows an example), and may
    write out the arguments of its cell in a constructor of its own. On a CPU the two halves of a
    batch run in parallel, because the product of one step is too small for more than one core.

    Args:
        units: U, the size of the output.
        activity_regularizer: of the output.
        return_sequences: whether to return the output of every step instead of the last one.
        return_state: whether to return the final states too.
        go_backwards: whether to read the sequence from its end. The outputs are in the order of
            reading.
        stateful: whether each batch starts from the final states of the one before. A batch may
            have fewer sequences than the first one: those continue the first sequences of it.
        unroll, use_cudnn, implementation: accepted as in Keras's layers, without effect.
        zero_output_for_mask: whether the output of a masked step is zero instead of the output of
            the step before.
        **kwargs: the other arguments of the cell, and `name`, `dtype` and `trainable` of
            `keras.layers.Layer`.

    Call arguments:
        sequences: `[B, T, D]`.
        initial_state: list of `[B, U]`; zeros by default.
        mask: `[B, T]`, boolean. A step where it is False changes no state. By default the mask that
            Keras carries on the sequences.
        training: whether dropout applies.
        sequences_mask: set by Keras; pass `mask` instead.

    Returns:
        `[B, U]`, or `[B, T, U]` with `return_sequences`. With `return_state` a tuple of that and
        the final states.

    Raises:
        ValueError: as `RecurrentCell`, if the number or the shapes of the initial states are not
            those of the cell, or if a stateful layer gets more sequences than it has states for.
    """

    cell_class: type[RecurrentCell]

    def __init__(
        self,
        units: int,
        *,
        activity_regularizer=None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: bool | str = "auto",
        zero_output_for_mask: bool = False,
        **kwargs,
    ):
        kwargs.pop("implementation", None)
        names = _constructor_arguments(self.cell_class)
        of_the_cell = {k: kwargs.pop(k) for k in list(kwargs) if k in names}
        of_both = {k: kwargs[k] for k in ("dtype", "trainable") if k in kwargs}
        with self._errors_name_the_layer():
            cell = self.cell_class(units, name="cell", **of_both, **of_the_cell)
        super().__init__(
            cell,
            activity_regularizer=activity_regularizer,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )
        self.without_effect = {"unroll": unroll, "use_cudnn": use_cudnn}
        self.input_spec = keras.layers.InputSpec(ndim=3)

    @contextlib.contextmanager
    def _errors_name_the_layer(self):
        """A `ValueError` of the cell names the layer instead, which is what the user wrote."""
        try:
            yield
        except ValueError as error:
            message = str(error).removeprefix(f"{self.cell_class.__name__}: ")
            error.args = (f"{type(self).__name__}: {message}",)
            raise

    @property
    def units(self) -> int:
        return self.cell.units

    def build(self, sequences_shape, initial_state_shape=None):
        with self._errors_name_the_layer():
            super().build(sequences_shape, initial_state_shape)

    def call(self, sequences, initial_state=None, mask=None, training=False, sequences_mask=None):
        # Keras fills `mask` if the sequences are the only tensor argument, else `sequences_mask`.
        mask = sequences_mask if mask is None else mask
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        sequences = ops.cast(sequences, self.compute_dtype)
        if mask is not None:
            mask = ops.cast(mask, "bool")
            # Whatever a masked step contains, it affects neither outputs nor gradients.
            sequences = ops.where(ops.expand_dims(mask, -1), sequences, 0.0)
        states = self._initial_states(sequences, initial_state)
        last_output, outputs, states = self.inner_loop(sequences, states, mask, training)
        if self.stateful:
            self._store(states)
        output = outputs if self.return_sequences else last_output
        return (output, *states) if self.return_state else output

    def _initial_states(self, sequences, given) -> list:
        """The states before the first step, `[B, size]` each."""
        batch = ops.shape(sequences)[0]
        if given is not None:
            states = list(given) if isinstance(given, (list, tuple)) else [given]
            self._assert_states_fit(states, sequences.shape[0])
        elif self.stateful:
            self._assert_batch_fits(sequences)
            # A copy, because the variables are assigned to before a gradient is taken.
            states = [ops.copy(s)[:batch] for s in self.states]
        else:
            states = self.get_initial_state(batch)
        return [ops.cast(s, self.compute_dtype) for s in states]

    def _store(self, states):
        """Keeps the final states of a stateful layer; rows beyond the batch do not change."""
        for variable, state in zip(self.states, states, strict=True):
            rest = ops.convert_to_tensor(variable)[ops.shape(state)[0] :]
            variable.assign(ops.concatenate([ops.cast(state, rest.dtype), rest], axis=0))

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """The last output `[B, U]`, all outputs `[B, T, U]` and the final states."""
        cell = self.cell
        dropout_mask = None
        if training and cell.dropout:
            step = ops.zeros((ops.shape(sequences)[0], sequences.shape[2]), sequences.dtype)
            sequences = sequences * ops.expand_dims(cell.get_dropout_mask(step), 1)
        if training and cell.recurrent_dropout:
            dropout_mask = cell.get_recurrent_dropout_mask(initial_state[0])
        cell.reset_dropout_mask()
        cell.reset_recurrent_dropout_mask()
        batch = (sequences, initial_state, mask, dropout_mask)
        parts = [self._over_time(*part) for part in split_batch(batch, cell.multiply_adds)]
        outputs = _concatenate([h for h, _ in parts])  # [B, T, U]
        states = [_concatenate(s) for s in zip(*(states for _, states in parts), strict=True)]
        last_output = cell.read_out(states[0])
        outputs = cell.read_out(outputs)
        if mask is not None and self.zero_output_for_mask:
            outputs = ops.where(ops.expand_dims(mask, -1), outputs, 0.0)
        if self.go_backwards:
            outputs = ops.flip(outputs, axis=1)
        return last_output, outputs, states

    def _over_time(self, sequences, states, mask, dropout_mask):
        """The first state after each step, `[B, T, U]`, and the final states."""
        length = sequences.shape[1]
        steps = steps_at_once() or length
        if not length or length <= steps:
            return self._over_steps(sequences, states, mask, dropout_mask)
        starts, collected = range(0, length, steps), []
        for t in reversed(starts) if self.go_backwards else starts:
            part = slice(t, t + steps)
            kept = None if mask is None else mask[:, part]
            outputs, states = self._over_steps(sequences[:, part], states, kept, dropout_mask)
            collected.append(outputs)
        if self.go_backwards:
            collected.reverse()
        return ops.concatenate(collected, axis=1), states

    def _over_steps(self, sequences, states, mask, dropout_mask):
        """As `_over_time`, with the projected inputs of all steps in memory."""
        outputs, states = self.cell.over_time(
            ops.transpose(sequences, (1, 0, 2)),  # [T, B, D]
            states,
            None if mask is None else time_major(mask),
            dropout_mask,
            self.go_backwards,
        )
        return ops.transpose(outputs, (1, 0, 2)), states

    def _assert_batch_fits(self, sequences):
        batch, rows = sequences.shape[0], self.states[0].shape[0]
        if batch is not None and batch > rows:
            raise ValueError(
                f"{self.name} is stateful and has states for {rows} sequences, got a batch of "
                f"{batch}."
            )

    def _assert_states_fit(self, states, batch):
        given = [tuple(s.shape) for s in states]
        expected = [(batch, size) for size in self.state_size]
        if len(given) != len(expected) or any(
            len(a) != 2 or any(m != n and None not in (m, n) for m, n in zip(a, b, strict=True))
            for a, b in zip(given, expected, strict=True)
        ):
            raise ValueError(
                f"{self.name} takes initial states of the shapes {expected}, got {given}."
            )

    def get_config(self):
        config, cell = super().get_config(), self.cell.get_config()
        for name in ("name", "dtype", "trainable"):  # the layer has its own
            cell.pop(name)
        config.pop("cell")
        return {**config, **self.without_effect, **cell}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _constructor_arguments(cell_class: type) -> set[str]:
    """The names of the arguments of a cell, without those of `keras.layers.Layer`."""
    names = set()
    for base in cell_class.__mro__:
        if base is keras.layers.Layer:
            break
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()
            names |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
    return names - {"self"}


def _concatenate(parts):
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)
