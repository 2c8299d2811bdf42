"""The base class of all cells: arguments, weights of the input, dropout."""

import contextlib

import keras
from keras import activations, constraints, initializers, ops, regularizers

from unroll.layers import backend
from unroll.layers.operations import add_bias, cast_like, full_precision, require_size
from unroll.layers.recurrent.keras_private import DropoutRNNCell


def forwarded(arguments: dict, *own: str) -> dict:
    """The arguments that a constructor passes on to its base class.

    Args:
        arguments: the `locals()` of the constructor, before it sets any other variable.
        *own: the names of the arguments that the base class does not take.
    """
    dropped = {"self", "__class__", "kwargs", *own}
    return {k: v for k, v in arguments.items() if k not in dropped} | arguments["kwargs"]


class BaseCell(keras.layers.Layer, DropoutRNNCell):
    """Base class of all cells: one step of a recurrent network that reads its input by x W + b.

    Derive a cell from `RecurrentCell`, or from `LinearRecurrentCell`, which describe what
    `RecurrentLayer` takes from a cell.

    Args:
        units: U, the size of the output and of each state.
        activation: the activation of everything that is not a gate.
        use_bias: whether there is a bias b.
        kernel_initializer, bias_initializer: of W and b.
        kernel_regularizer, bias_regularizer: of W and b.
        kernel_constraint, bias_constraint: of W and b.
        dropout: the fraction of the inputs to drop, with one mask for all time steps.
        seed: the random seed of the dropout.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`. `implementation`, which
            Keras's cells take, has no effect.

    Raises:
        ValueError: if `units` is not an integer of at least 1 or a dropout rate is not in [0, 1].
    """

    gates: int
    states: int
    recurrent_dropout = 0.0

    def __init__(
        self,
        units: int,
        activation="tanh",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs,
    ):
        kwargs.pop("implementation", None)
        label = type(self).__name__
        units = require_size(f"{label}: units", units)
        require_rates(label, dropout=dropout)
        super().__init__(**kwargs)
        self.units = units
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.dropout = dropout
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.state_size = [units] * self.states
        self.output_size = units

    def add_part(self, name: str, shape, initializer, trainable: bool = True):
        """A weight with the regularizer and the constraint of its part: W, R or b."""
        part = name.removesuffix("_kernel")
        return self.add_weight(
            shape=shape,
            name=name,
            initializer=initializer,
            regularizer=getattr(self, f"{part}_regularizer"),
            constraint=getattr(self, f"{part}_constraint"),
            trainable=trainable,
        )

    def initial_bias(self, shape, dtype=None):
        """The initial value of b. A subclass may start a gate open."""
        return self.bias_initializer(shape, dtype=dtype)

    def get_recurrent_weight_mask(self):
        """The mask of R, or None."""
        return

    def masking_recurrent_kernel(self, mask):
        """A context in which R is multiplied with a mask; without R there is none."""
        del mask
        return contextlib.nullcontext()

    @property
    def fused_kernel(self) -> str | None:
        """The kernel with the equations of this class, a key of `fused.AT_MASKED_STEPS`, or None.

        A subclass that changes the equations does not inherit it.
        """
        return None

    @property
    def multiply_adds(self) -> int:
        """The multiply-adds of the product in one step of one sequence."""
        return 0

    def step_weights(self) -> tuple:
        """The weights other than W, R and b that the equations take."""
        return ()

    def step(self, z, states, *weights):
        """The equations of the cell after the products."""
        raise NotImplementedError(f"{type(self).__name__} must define step().")

    def noise(self, sequences):
        """Random numbers `[B, T, N]` for the steps of `sequences` in training, or None.

        A cell that returns some takes them as the argument `noise` of `over_time`, `[T, B, N]`.
        """

    def project(self, inputs):
        """x W + b: `[..., D]` to `[..., gates * U]`."""
        z = backend.product(inputs, self.kernel)
        return add_bias(z, self.bias)

    def project_with(self, inputs, values):
        """`project` with these values of the weights."""
        with keras.StatelessScope(state_mapping=list(zip(self.weights, values, strict=True))):
            return self.project(inputs)

    def projected(self, inputs):
        """The inputs of `recurrence`, and its arguments if it projects them step by step."""
        if not backend.computes_in_loops():
            return self.project(inputs), {}
        values = [ops.convert_to_tensor(w) for w in self.weights]
        return inputs, {"project": self.project_with, "project_weights": values}

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
        raise NotImplementedError(f"{type(self).__name__} must define over_time().")

    def call(self, inputs, states, training=False):
        if training and self.dropout:
            inputs = inputs * self.get_dropout_mask(inputs)
        z, weights = full_precision(self.project(inputs)), full_precision(self.step_weights())
        new = cast_like(self.step(z, full_precision(states), *weights), states)
        return self.read_out(new[0]), list(new)

    def get_initial_state(self, batch_size=None):
        return [ops.zeros((batch_size, size), dtype=self.compute_dtype) for size in self.state_size]

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **self.config_of("kernel"),
            **self.config_of("bias"),
            "dropout": self.dropout,
            "seed": self.seed,
        }

    def config_of(self, part: str) -> dict:
        """The configuration of the initializer, regularizer and constraint of W, R or b."""
        modules = {
            "initializer": initializers,
            "regularizer": regularizers,
            "constraint": constraints,
        }
        return {
            f"{part}_{kind}": module.serialize(getattr(self, f"{part}_{kind}"))
            for kind, module in modules.items()
        }


def is_newest(cell, name: str, others) -> bool:
    """Whether no class of a cell below the one that defines `name` defines one of the others."""
    classes = type(cell).__mro__

    def position(member: str) -> int:
        found = (k for k, cls in enumerate(classes) if member in vars(cls))
        return next(found, len(classes))

    return all(position(name) <= position(other) for other in others)


def require_rates(label: str, **rates: float):
    """Raises a `ValueError` if a dropout rate is not in [0, 1]."""
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            raise ValueError(f"{label}: {name} must be in [0, 1], got {rate!r}.")
