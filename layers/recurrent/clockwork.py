"""The recurrent network of modules that tick at different rates."""

import keras
import numpy as np
from keras import ops

from unroll.layers.recurrent.base import RecurrentCell, RecurrentLayer
from unroll.layers.recurrent.recurrence import recurrence


@keras.saving.register_keras_serializable(package="unroll")
class ClockworkRNNCell(RecurrentCell):
    """One step of a clockwork network: modules of units, each with a period.

    Koutnik, Greff, Gomez and Schmidhuber 2014, "A clockwork RNN", equations 1 to 6. Module i ticks
    at step t where t mod T_i = 0, and sees itself and the slower modules:

        h_i' = tanh(x W_i + sum over j >= i of h_j R_ji + b_i)   where it ticks
        h_i' = h_i                                               elsewhere

    The states are h and, for each module, how many steps ago it last ticked, `[B, modules]`, so a
    sequence can go on where another ended. A masked step is none: no clock goes on.

    Over time, a slow module depends on no faster one. So the modules are run one after the other,
    the slowest first, each through its own ticks alone: a module of period T_i costs 1 / T_i of
    what it would cost at every step.

    Args:
        units: U, of all modules together.
        periods: T_i of each module, none smaller than the one before it; their number divides U.
        **kwargs: as in `RecurrentCell`. The blocks of R from a faster to a slower module are not
            used.

    Raises:
        ValueError: if `periods` is empty, holds something that is not an integer of at least one,
            falls, or if the number of periods does not divide `units`.

    Differs from the paper: nothing. In half precision a period above 256 is not exact.
    """

    gates = 1
    states = 2

    def __init__(self, units: int, periods=(1, 2, 4, 8), **kwargs):
        super().__init__(units, **kwargs)
        periods = list(periods)
        if not periods or any(not isinstance(p, int) or p < 1 for p in periods):
            raise ValueError(f"periods must be integers of at least 1, got {periods}.")
        if periods != sorted(periods):
            raise ValueError(f"periods must not fall from one module to the next, got {periods}.")
        if units % len(periods):
            raise ValueError(
                f"units must be divisible by the number of periods, got {units} units "
                f"and {len(periods)} periods."
            )
        self.periods = periods
        self.state_size = [units, len(periods)]
        module = np.repeat(np.arange(len(periods)), units // len(periods))
        self.connected = (module[:, None] >= module[None, :]).astype("float32")  # [U, U]

    def call(self, inputs, states, training=False):
        h, clock = states
        if training and self.dropout:
            inputs = inputs * self.get_dropout_mask(inputs)
        seen = h
        if training and self.recurrent_dropout:
            seen = h * self.get_recurrent_dropout_mask(h)
        kernel = self.recurrent_kernel * ops.cast(self.connected, self.compute_dtype)
        new = self.activation(self.project(inputs) + ops.matmul(seen, kernel))  # [B, U]
        phase = self.phase(clock)  # [B, modules]
        ticks = ops.repeat(phase == 0, self.units // len(self.periods), axis=-1)  # [B, U]
        h = ops.where(ticks, new, h)
        return h, [h, ops.cast(self.modulo(phase + 1), clock.dtype)]

    @property
    def work(self):
        return (self.units // len(self.periods)) ** 2  # of one module

    def phase(self, clock):
        """How many steps ago each module ticked, `[B, modules]`: 0 where it ticks now."""
        return self.modulo(ops.cast(ops.round(clock), "int32"))

    def modulo(self, steps):
        """`steps` modulo each module's period."""
        return ops.mod(steps, ops.convert_to_tensor(self.periods, dtype="int32"))

    def over_time(self, inputs, states, mask, dropout_mask, reverse: bool):
        h, clock = states
        phase = self.phase(clock)  # [B, modules]
        if reverse:
            inputs, mask = ops.flip(inputs, 0), None if mask is None else ops.flip(mask, 0)
        steps = _Steps(inputs, mask)
        size = self.units // len(self.periods)
        kernel = ops.convert_to_tensor(self.recurrent_kernel)
        # What the modules run so far held before each step that is read and after the last,
        # `[T + 1, B, units of these]`, with the dropout of the recurrent products and without.
        slower, seen = [], []
        for k in reversed(range(len(self.periods))):
            own, others = slice(k * size, (k + 1) * size), slice((k + 1) * size, None)
            first = (-phase[:, k]) % self.periods[k]  # [B], the first step at which it ticks
            ticks = steps.every(self.periods[k], first)  # [ticks, B]
            z = ops.matmul(steps.take(inputs, ticks), self.kernel[:, own])  # [ticks, B, size]
            if self.bias is not None:
                z = z + self.bias[own]
            if seen:
                below = ops.concatenate(seen, axis=-1)
                z = z + ops.matmul(steps.at(below, ticks), kernel[others, own])
            after, _ = recurrence(
                lambda z, states: (self.activation(z),),
                z,
                (h[:, own],),
                kernel[own, own],
                mask=None if steps.are_all(ticks) else ticks < steps.count,
                dropout_mask=None if dropout_mask is None else dropout_mask[:, own],
            )
            held = ops.concatenate([h[None, :, own], after], axis=0)  # [ticks + 1, B, size]
            if not steps.are_all(ticks):
                held = steps.at(held, steps.ticks_before(self.periods[k], first))  # [T + 1, B, ..]
            slower.insert(0, held)
            seen.insert(0, held if dropout_mask is None else held * dropout_mask[:, own])
        outputs = steps.after(ops.concatenate(slower, axis=-1))  # [T, B, U]
        read = steps.count[:, None]
        phase = ops.cast(self.modulo(phase + read), clock.dtype)
        final = [outputs[-1], ops.where(read > 0, phase, clock)]
        return ops.flip(outputs, 0) if reverse else outputs, final

    def get_config(self):
        return {**super().get_config(), "periods": self.periods}


class _Steps:
    """Which steps of a batch are read: they are numbered from 0, each sequence for itself.

    Attributes:
        count: how many steps of each sequence are read, `[B]`.
    """

    def __init__(self, inputs, mask):
        self.time, self.batch = ops.shape(inputs)[:2]
        self.mask = mask
        if mask is None:
            self.count = ops.full((self.batch,), self.time, dtype="int32")
            return
        read = ops.cast(mask, "int32")  # [T, B]
        self.read_so_far = ops.cumsum(read, axis=0)
        self.count = self.read_so_far[-1]
        time = self.range(self.time)[:, None]
        self.places = ops.argsort(time + self.time * (1 - read), axis=0)  # the steps read first

    @staticmethod
    def range(stop):
        return ops.arange(0, stop, dtype="int32")

    @staticmethod
    def are_all(numbers) -> bool:
        """Whether these are the steps as they stand in the sequences."""
        return numbers is None

    def every(self, period: int, first):
        """The numbers of the steps `first`, `first + period`, ..., `[ticks, B]`, beyond T too.

        None for all steps as they stand in the sequences.
        """
        if period == 1 and self.mask is None:
            return None
        ticks = (self.time + period - 1) // period
        return first[None] + period * self.range(ticks)[:, None]

    def ticks_before(self, period: int, first):
        """How many of `every` are below 0, 1, ..., T: `[T + 1, B]`."""
        return (self.range(self.time + 1)[:, None] - first[None] + period - 1) // period

    def take(self, x, numbers):
        """What stands in `x`, `[T, B, D]`, at the steps of these numbers, `[N, B]`."""
        if self.mask is None:
            return self.at(x, numbers)
        return self.at(x, self.at(self.places, numbers))

    def after(self, held):
        """From one value a number, `[T + 1, B, U]`, to one a step, `[T, B, U]`."""
        return held[1:] if self.mask is None else self.at(held, self.read_so_far)

    def at(self, x, index):
        """`x[index[n, b], b]` for all n and b; an index beyond the end counts as the last."""
        if index is None:
            return x[: self.time]
        index = ops.minimum(index, ops.shape(x)[0] - 1) * self.batch + self.range(self.batch)
        flat = ops.reshape(x, (-1, *x.shape[2:]))
        return ops.take(flat, index, axis=0)


@keras.saving.register_keras_serializable(package="unroll")
class ClockworkRNN(RecurrentLayer):
    """A clockwork network: `ClockworkRNNCell` has the equations, `RecurrentLayer` the arguments.

    >>> import numpy as np
    >>> from unroll.layers import ClockworkRNN
    >>> ClockworkRNN(8, periods=[1, 3], return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = ClockworkRNNCell
