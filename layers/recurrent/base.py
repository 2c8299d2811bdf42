"""What all recurrent cells and layers share: arguments, weights, dropout, the time loop."""

import keras
from keras import activations, constraints, initializers, ops, regularizers

# Keras gives no public name to the mixin by which `keras.layers.RNN` draws one dropout mask a
# sequence instead of one a step.
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

from layers.recurrent.recurrence import recurrence


class RecurrentCell(keras.layers.Layer, DropoutRNNCell):
    """Abstract: one step of a recurrent network whose pre-activation is x W + h R + b.

    A subclass sets `gates` and `states`, and writes its equations in `step`. It is a Keras cell:
    it runs in `keras.layers.RNN` and `keras.layers.StackedRNNCells`.

    Args:
        units: U, the size of the output and of each state.
        activation: of the candidate and the output.
        recurrent_activation: of the gates.
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
        if not isinstance(units, int) or units < 1:
            raise ValueError(f"units must be an integer of at least 1, got {units!r}.")
        for name, rate in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
            if not 0 <= rate <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {rate!r}.")
        super().__init__(**kwargs)
        self.units = units
        self.activation = activations.get(activation)
        self.recurrent_activation = activations.get(recurrent_activation)
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
        self.kernel = self.add_weight(
            shape=(input_shape[-1], width),
            name="kernel",
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, width),
            name="recurrent_kernel",
            initializer=self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(width,),
                name="bias",
                initializer=self.initial_bias,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def initial_bias(self, shape, dtype=None):
        """The bias before training; a subclass may start a gate open."""
        return self.bias_initializer(shape, dtype=dtype)

    @property
    def step_weights(self) -> tuple:
        """What `step` learns beside W, R and b."""
        return ()

    def step(self, z, states, *weights):
        """The cell's equations after the products.

        Args:
            z: x W + h R + b, `[..., gates * U]`.
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

    def call(self, inputs, states, training=False):
        h = states[0]
        if training and self.dropout:
            inputs = inputs * self.get_dropout_mask(inputs)
        if training and self.recurrent_dropout:
            h = h * self.get_recurrent_dropout_mask(h)
        z = self.project(inputs) + ops.matmul(h, self.recurrent_kernel)
        states = self.step(z, states, *self.step_weights)
        return states[0], list(states)

    def get_initial_state(self, batch_size=None):
        return [ops.zeros((batch_size, size), dtype=self.compute_dtype) for size in self.state_size]

    def get_config(self):
        serialized = {
            "activation": activations.serialize(self.activation),
            "recurrent_activation": activations.serialize(self.recurrent_activation),
        }
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


class RecurrentLayer(keras.layers.RNN):
    """Abstract: a recurrent layer, its cell run over time by `recurrence`.

    A subclass names its `cell_class`. Everything else is as in `keras.layers.RNN`.

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
        outputs, states = recurrence(
            cell.step,
            cell.project(ops.transpose(sequences, (1, 0, 2))),  # [T, B, gates * U]
            initial_state,
            ops.convert_to_tensor(cell.recurrent_kernel),
            tuple(ops.convert_to_tensor(w) for w in cell.step_weights),
            mask=None if mask is None else _time_major(mask),
            dropout_mask=dropout_mask,
            reverse=self.go_backwards,
        )
        outputs = ops.transpose(outputs, (1, 0, 2))  # [B, T, U]
        last_output = states[0]
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


def _time_major(mask):
    # By way of numbers: oneDNN transposes no booleans, and says so on every start.
    return ops.cast(ops.transpose(ops.cast(mask, "float32")), "bool")
