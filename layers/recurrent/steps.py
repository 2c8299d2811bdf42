"""The steps of a batch of sequences with a mask."""

from keras import ops


class Steps:
    """The steps of a batch that are not masked, numbered from 0 in each sequence.

    Attributes:
        count: the number of such steps in each sequence, `[B]`.
    """

    def __init__(self, inputs, mask):
        self.time, self.batch = ops.shape(inputs)[:2]
        self.mask = mask
        if mask is None:
            self.count = ops.full((self.batch,), self.time, dtype="int32")
            return
        valid = ops.cast(mask, "int32")  # [T, B]
        self.count_so_far = ops.cumsum(valid, axis=0)
        self.count = ops.sum(valid, axis=0)
        time = self.range(self.time)[:, None]
        # The time indices of the steps, those that are not masked first.
        self.order = ops.argsort(time + self.time * (1 - valid), axis=0)

    def before(self):
        """The number of unmasked steps before each time step, `[T, B]` or `[T, 1]`."""
        if self.mask is None:
            return self.range(self.time)[:, None]
        return self.count_so_far - ops.cast(self.mask, "int32")

    @staticmethod
    def range(stop):
        return ops.arange(0, stop, dtype="int32")

    @staticmethod
    def are_all(numbers) -> bool:
        """Whether these are all time steps, in order."""
        return numbers is None

    def every(self, period: int, first):
        """The step numbers `first`, `first + period`, ..., `[active, B]`, also those beyond T.

        None for all time steps in order.
        """
        if period == 1 and self.mask is None:
            return None
        active = (self.time + period - 1) // period
        return first[None] + period * self.range(active)[:, None]

    def number_before(self, period: int, first):
        """How many of `every` are below 0, 1, ..., T: `[T + 1, B]`."""
        return (self.range(self.time + 1)[:, None] - first[None] + period - 1) // period

    def take(self, x, numbers):
        """The rows of `x`, `[T, B, D]`, at the steps with these numbers, `[N, B]`."""
        if self.mask is None:
            return self.at(x, numbers)
        return self.at(x, self.at(self.order, numbers))

    def compacted(self, x):
        """The rows of `x`, `[T, B, D]`, those of the steps that are not masked first."""
        return x if self.mask is None else self.at(x, self.order)

    def after(self, held):
        """From one value per step number, `[T + 1, B, U]`, to one per time step, `[T, B, U]`."""
        return held[1:] if self.mask is None else self.at(held, self.count_so_far)

    def last(self, held):
        """The values `[B, U]` after the last step, from one per step number, `[T + 1, B, U]`."""
        return held[-1] if self.mask is None else self.at(held, self.count[None])[0]

    def extended(self, x, window):
        """The rows `[W + T, B, D]` of a window and of the steps, those not masked first.

        Args:
            x: `[T, B, D]`.
            window: the rows of the W steps before, `[W, B, D]`, the oldest first.

        Returns:
            The rows, and the window after the last step that is not masked.
        """
        rows = ops.concatenate([window, self.compacted(x)], axis=0)
        if self.mask is None:
            return rows, rows[self.time :]
        return rows, self.at(rows, self.count[None] + self.range(window.shape[0])[:, None])

    def at(self, x, index):
        """`x[index[n, b], b]` for all n and b. An index beyond the end counts as the last."""
        if index is None:
            return x[: self.time]
        index = ops.minimum(index, ops.shape(x)[0] - 1) * self.batch + self.range(self.batch)
        flat = ops.reshape(x, (-1, *x.shape[2:]))
        return ops.take(flat, index, axis=0)
