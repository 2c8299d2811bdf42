"""What all recurrent cells and layers share: arguments, weights, dropout, the way through time."""

import math

import keras
from keras import activations, constraints, initializers, ops, regularizers

# Keras gives no public name to the mixin by which `keras.layers.RNN` draws one dropout mask a
# sequence instead of one a step.
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

from unroll.layers.backend import split_batch
from unroll.layers.operations import require_size, time_major
from unroll.layers.recurrent.recurrence import pre_activation, recurrence


class RecurrentCell(keras.layers.Layer, DropoutRNNCell):
    """Abstract: one step of a recurrent network whose pre-activation is x W + h R + b.

    A subclass sets `gates` and `states`, and writes its equations in `step`. It is a Keras cell:
    it runs in `keras.layers.RNN` and `keras.layers.StackedRNNCells`.

    Args:
        units: U, the size of the output and of each state.
        activation: of what is not a gate.
        use_bias: whether there is a bias b.
        kernel_initializer, recurrent_initializer, bias_initializer: of W, R and b.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: of W, R and b.
        kernel_constraint, recurrent_constraint, bias_constraint: on W, R and b.
        dropout: the share of the inputs to drop, one mask for all time steps.
        recurrent_dropout: the share of h to drop before R, one mask for all time steps.
        seed: of the dropout.

    Call arguments:
        inputs: `[B, D]`.
        states: list of `[B, U]`.
        training: whether dropout applies.

    Raises:
        ValueError: if `units` is below one or a dropout rate lies outside [0, 1].
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
        require_size("units", units)
        for name, rate in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
            if not 0 <= rate <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {rate!r}.")
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
        """Adds W, R and b, each of the shape given."""
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
        """The bias before training; a subclass may start a gate open."""
        return self.bias_initializer(shape, dtype=dtype)

    @property
    def loop_kernel(self):
        """The matrix of the product in every step, by default R."""
        return self.recurrent_kernel

    @property
    def work(self) -> int:
        """The multiply-adds of the product in a step of one sequence."""
        return math.prod(self.loop_kernel.shape)

    @property
    def added_columns(self) -> int | None:
        """How many columns of x W + b and of h R are added before `step`; see `recurrence`."""
        return None

    def step_weights(self, dropout_mask=None) -> tuple:
        """What `step` takes beside z and the states: what it learns beside W, R and b.

        A step with a recurrent product of its own adds the recurrent dropout's mask, `[B, U]`.
        """
        return ()

    def step(self, z, states, *weights):
        """The cell's equations after the products.

        Args:
            z: x W + b and h R joined, `[..., gates * U]`.
            states: each `[..., U]`.
            *weights: the `step_weights`.

        Returns:
            The new states, the output first.
        """
        raise AttributeError(f"{type(self).__name__} has no equations: it must define step().")

    def project(self, inputs):
        """x W + b, `[..., D]` to `[..., gates * U]`."""
        z = ops.matmul(inputs, self.kernel)
        return z if self.bias is None else z + self.bias

    def read_out(self, h):
        """What the cell puts out for its first state, `[..., U]`."""
        return h

    def over_time(self, inputs, states, mask, dropout_mask, reverse: bool):
        """The states of all steps.

        Args:
            inputs: `[T, B, D]`.
            states: the initial ones, each `[B, U]`.
            mask: `[T, B]`, boolean, or None.
            dropout_mask: `[B, U]`, on h before R, or None.
            reverse: whether time runs from the last step to the first.

        Returns:
            The first state of each step, `[T, B, U]`, and all states after the last.
        """
        return recurrence(
            self.step,
            self.project(inputs),
            states,
            ops.convert_to_tensor(self.loop_kernel),
            tuple(ops.convert_to_tensor(w) for w in self.step_weights(dropout_mask)),
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
        z = pre_activation(self.project(inputs), ops.matmul(h, self.loop_kernel), self.added_columns)
        states = self.step(z, states, *self.step_weights(dropout_mask))
        return self.read_out(states[0]), list(states)

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
    """Abstract: a cell with gates.

    Args:
        units: U, the size of the output and of each state.
        recurrent_activation: of the gates.
        **kwargs: as in `RecurrentCell`.
    """

    def __init__(self, units: int, recurrent_activation="sigmoid", **kwargs):
        super().__init__(units, **kwargs)
        self.recurrent_activation = activations.get(recurrent_activation)

    def get_config(self):
        gate = activations.serialize(self.recurrent_activation)
        return {**super().get_config(), "recurrent_activation": gate}


class RecurrentLayer(keras.layers.RNN):
    """Abstract: a recurrent layer, its cell run over time by `recurrence`.

    A subclass names its `cell_class`. Everything else is as in `keras.layers.RNN`. On a CPU the two
    halves of a batch run side by side: the product of one step is too small for more than one core.

    Args:
        units: U, the size of the output.
        return_sequences: whether to return the output of every step instead of the last.
        return_state: whether to return the final states too.
        go_backwards: whether to read the sequence from its end; the outputs then stand in the
            order of reading.
        stateful: whether a batch starts where the one before it ended.
        zero_output_for_mask: whether the output of a masked step is zero instead of that of the
            step before.
        **kwargs: of the cell, or of `keras.layers.Layer`.

    Call arguments:
        sequences: `[B, T, D]`.
        initial_state: list of `[B, U]`; zeros by default.
        mask: `[B, T]`, boolean. A step where it is False changes no state.
        training: whether dropout applies.

    Returns:
        `[B, U]`, or `[B, T, U]` with `return_sequences`; with `return_state` a tuple of that and
        the final states.

    Raises:
        ValueError: as `RecurrentCell`, or if the initial states are not as many as the cell's or
            not of their shapes.
    """

    cell_class: type[RecurrentCell]

    def __init__(
        self,
        units: int,
        *,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        zero_output_for_mask: bool = False,
        activity_regularizer=None,
        name: str | None = None,
        dtype=None,
        trainable: bool = True,
        **kwargs,
    ):
        super().__init__(
            self.cell_class(units, dtype=dtype, trainable=trainable, name="cell", **kwargs),
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            zero_output_for_mask=zero_output_for_mask,
            activity_regularizer=activity_regularizer,
            name=name,
            dtype=dtype,
            trainable=trainable,
        )
        self.input_spec = keras.layers.InputSpec(ndim=3)

    @property
    def units(self) -> int:
        return self.cell.units

    def _maybe_config_dropout_masks(self, cell, input_sequence, input_state):
        # Keras draws the masks here even when it does not train, which would leave random ops in
        # an exported model. `inner_loop` draws them when they are needed.
        pass

    def inner_loop(self, sequences, initial_state, mask, training=False):
        cell = self.cell
        self._assert_states_fit(initial_state, sequences.shape[0])
        if training and cell.dropout:
            sequences = sequences * ops.expand_dims(cell.get_dropout_mask(sequences[:, 0]), 1)
        dropout_mask = None
        if training and cell.recurrent_dropout:
            dropout_mask = cell.get_recurrent_dropout_mask(initial_state[0])
        if isinstance(mask, (list, tuple)):
            mask = mask[0]
        parts = [
            cell.over_time(
                ops.transpose(part["sequences"], (1, 0, 2)),  # [T, B, D]
                part["states"],
                None if part["mask"] is None else time_major(part["mask"]),
                part["dropout_mask"],
                self.go_backwards,
            )
            for part in split_batch(
                {
                    "sequences": sequences,
                    "states": list(initial_state),
                    "mask": mask,
                    "dropout_mask": dropout_mask,
                },
                cell.work,
            )
        ]
        outputs = _side_by_side([ops.transpose(h, (1, 0, 2)) for h, _ in parts])  # [B, T, U]
        states = [_side_by_side(s) for s in zip(*(states for _, states in parts), strict=True)]
        last_output = cell.read_out(states[0])
        outputs = cell.read_out(outputs)
        if mask is not None and self.zero_output_for_mask:
            outputs = ops.where(ops.expand_dims(ops.cast(mask, "bool"), -1), outputs, 0.0)
        if self.go_backwards:
            outputs = ops.flip(outputs, axis=1)
        return last_output, outputs, states

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
        config = super().get_config()
        cell = self.cell.get_config()
        for of_the_layer in ("name", "dtype", "trainable"):
            cell.pop(of_the_layer)
        for of_keras in ("cell", "unroll"):
            config.pop(of_keras)
        return {**config, **cell}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _side_by_side(parts):
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)
