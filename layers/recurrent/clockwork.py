"""The recurrent network of modules that are active at different rates."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from unroll.layers.operations import add_bias, require_size
from unroll.layers.recurrent.cell import RecurrentCell, forwarded
from unroll.layers.recurrent.layer import RecurrentLayer
from unroll.layers.recurrent.recurrence import recurrence
from unroll.layers.recurrent.steps import Steps

# With fewer units than this, the product of a step takes less time than the loops of the modules:
# at 256 units by a tenth to a third. More units were not measured.
UNITS_OF_SEPARATE_LOOPS = 512


@keras.saving.register_keras_serializable(package="unroll")
class ClockworkRNNCell(RecurrentCell):
    """One step of a clockwork network: modules of units, each with a period.

    Koutnik, Greff, Gomez and Schmidhuber 2014, "A clockwork RNN", equations 1 to 6. Module i is
    active at step t if t mod T_i = 0. It reads its own state and those of the slower modules:

        h_i' = tanh(x W_i + sum over j >= i of h_j R_ji + b_i)   if it is active
        h_i' = h_i                                               otherwise

    The states are h and a clock, `[B, modules]`: the number of steps since each module was last
    active. With both, a sequence can continue in another call. Clocks do not advance at a masked
    step.

    A slow module does not depend on the faster ones. With many units, the modules therefore run one
    after the other over time, the slowest first, each over its active steps only. A module of
    period T_i takes 1 / T_i of the work that it would take at every step. With few units one loop
    over all modules is faster.

    Args:
        units: U, the number of units of all modules together.
        periods: T_i of each module, in ascending order. Their number must divide U.
        The others are those of `RecurrentCell`. The blocks of R from a faster to a slower module
        are not used.

    Raises:
        ValueError: if `periods` is empty, has a value that is not an integer of at least 1, is not
            in ascending order, or has a length that does not divide `units`.

    Differs from the paper: nothing. In half precision, periods above 256 are not exact.
    """

    gates = 1
    states = 2

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
        periods: Sequence[int] = (1, 2, 4, 8),
        **kwargs,
    ):
        super().__init__(**forwarded(locals(), "periods"))
        label, periods = type(self).__name__, list(periods)
        if not periods:
            raise ValueError(f"{label}: periods must have at least one period, got {periods}.")
        try:
            periods = [require_size("period", p) for p in periods]
        except ValueError:
            raise ValueError(
                f"{label}: periods must be integers of at least 1, got {periods}."
            ) from None
        if periods != sorted(periods):
            raise ValueError(f"{label}: periods must be in ascending order, got {periods}.")
        if units % len(periods):
            raise ValueError(
                f"{label}: units must be divisible by the number of periods, got {units} units "
                f"and {len(periods)} periods."
            )
        self.periods = tuple(periods)  # Keras would track a list
        self.state_size = [units, len(periods)]
        module = np.repeat(np.arange(len(periods)), units // len(periods))
        self.connected = (module[:, None] >= module[None, :]).astype("float32")  # [U, U]

    def call(self, inputs, states, training=False):
        h, clock = states
        if training and self.dropout:
            inputs = inputs * self.get_dropout_mask(inputs)
        recurrent_input = h
        if training and self.recurrent_dropout:
            recurrent_input = h * self.get_recurrent_dropout_mask(h)
        with self.masking_recurrent_kernel(self.get_recurrent_weight_mask() if training else None):
            kernel = self.masked_recurrent_kernel * ops.cast(self.connected, self.compute_dtype)
        z = self.project(inputs) + ops.matmul(recurrent_input, kernel)  # [B, U]
        phase = self.phase(clock)  # [B, modules]
        active = ops.repeat(phase == 0, self.units // len(self.periods), axis=-1)  # [B, U]
        h = ops.where(active, self.activation(z), h)
        return h, [h, ops.cast(self.modulo(phase + 1), clock.dtype)]

    @property
    def has_one_loop(self) -> bool:
        """Whether all modules run in one loop, which is faster for few units."""
        return self.units < UNITS_OF_SEPARATE_LOOPS

    @property
    def multiply_adds(self):
        size = self.units if self.has_one_loop else self.units // len(self.periods)
        return size**2

    def phase(self, clock):
        """The number of steps since each module was last active, `[B, modules]`; 0 if it is now."""
        return self.modulo(ops.cast(ops.round(clock), "int32"))

    def modulo(self, steps):
        """`steps` modulo the period of each module."""
        return ops.mod(steps, ops.convert_to_tensor(self.periods, dtype="int32"))

    def over_time(self, inputs, states, mask, dropout_mask, reverse: bool):
        h, clock = states
        phase = self.phase(clock)  # [B, modules]
        if reverse:
            inputs, mask = ops.flip(inputs, 0), None if mask is None else ops.flip(mask, 0)
        steps = Steps(inputs, mask)
        loop = self._one_loop if self.has_one_loop else self._separate_loops
        outputs, h = loop(inputs, h, phase, steps, dropout_mask)
        count = steps.count[:, None]
        clock = ops.where(count > 0, ops.cast(self.modulo(phase + count), clock.dtype), clock)
        return ops.flip(outputs, 0) if reverse else outputs, [h, clock]

    def _one_loop(self, inputs, h, phase, steps, dropout_mask):
        """The outputs `[T, B, U]` and the final h `[B, U]`, with all modules in one loop."""
        phases = self.modulo(phase + ops.expand_dims(steps.before(), -1))  # [T, B, modules]
        active = ops.cast(phases == 0, inputs.dtype)

        def joined(z, active):
            active = ops.repeat(active, self.units // len(self.periods), axis=-1)
            return ops.concatenate([z, active], axis=-1)  # [..., 2 U]

        x, options = self.projected(inputs)  # [T, B, U], or the inputs as they are
        if options:

            def project(x, values):
                x, active = ops.split(x, [inputs.shape[-1]], axis=-1)
                return joined(self.project_with(x, values), active)

            options["project"] = project
            x = ops.concatenate([x, active], axis=-1)
        else:
            x = joined(x, active)

        def step(z, states):
            z, active = ops.split(z, 2, axis=-1)
            return (ops.where(active > 0.5, self.activation(z), states[0]),)

        kernel = ops.convert_to_tensor(self.masked_recurrent_kernel)
        outputs, (h,) = recurrence(
            step,
            x,
            (h,),
            kernel * ops.cast(self.connected, kernel.dtype),
            **options,
            added_columns=self.units,
            mask=steps.mask,
            dropout_mask=dropout_mask,
        )
        return outputs, h

    def _separate_loops(self, inputs, h, phase, steps, dropout_mask):
        """As `_one_loop`, with a loop for each module over its active steps."""
        size = self.units // len(self.periods)
        kernel = ops.convert_to_tensor(self.masked_recurrent_kernel)
        # The states of the slower modules before each step and after the last one,
        # [T + 1, B, size] each, without and with the dropout of the recurrent products.
        slower, dropped = [], []
        for k in reversed(range(len(self.periods))):
            own, others = slice(k * size, (k + 1) * size), slice((k + 1) * size, None)
            first = (-phase[:, k]) % self.periods[k]  # [B], the first active step
            active = steps.every(self.periods[k], first)  # [active steps, B]
            z = ops.matmul(steps.take(inputs, active), self.kernel[:, own])  # [active, B, size]
            if self.bias is not None:
                z = add_bias(z, self.bias[own])
            if dropped:
                below = ops.concatenate(dropped, axis=-1)
                z = z + ops.matmul(steps.at(below, active), kernel[others, own])
            after, _ = recurrence(
                lambda z, states: (self.activation(z),),
                z,
                (h[:, own],),
                kernel[own, own],
                mask=None if steps.are_all(active) else active < steps.count,
                dropout_mask=None if dropout_mask is None else dropout_mask[:, own],
            )
            held = ops.concatenate([h[None, :, own], after], axis=0)  # [active + 1, B, size]
            if not steps.are_all(active):
                before = steps.number_before(self.periods[k], first)  # [T + 1, B]
                held = steps.at(held, before)  # [T + 1, B, size]
            slower.insert(0, held)
            dropped.insert(0, held if dropout_mask is None else held * dropout_mask[:, own])
        held = ops.concatenate(slower, axis=-1)  # [T + 1, B, U]
        return steps.after(held), steps.last(held)

    def get_config(self):
        return {**super().get_config(), "periods": list(self.periods)}


@keras.saving.register_keras_serializable(package="unroll")
class ClockworkRNN(RecurrentLayer):
    """A clockwork network over time.

    `ClockworkRNNCell` has the equations. The arguments, except for `periods`, are those of
    `keras.layers.SimpleRNN`; `unroll` has no effect. `RecurrentLayer` describes the call.

    >>> import numpy as np
    >>> from unroll.layers import ClockworkRNN
    >>> ClockworkRNN(8, periods=[1, 3], return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = ClockworkRNNCell

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
        activity_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: int | None = None,
        zero_output_for_mask: bool = False,
        *,
        recurrent_weight_dropout: float = 0.0,
        periods: Sequence[int] = (1, 2, 4, 8),
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
