"""Long short-term memory with a context vector at its gates."""

import keras
from keras import ops

from unroll.layers.initializers import clone_initializer
from unroll.layers.recurrent.base import RecurrentLayer
from unroll.layers.recurrent.lstm import LSTMCell


@keras.saving.register_keras_serializable(package="unroll")
class ContextLSTMCell(LSTMCell):
    """One step of an LSTM that a context vector A enters through weights of its own.

    The decoder of Xu et al. 2015, "Show, attend and tell", equations 1 to 3, and the one that
    Bahdanau-style translation uses with an LSTM:

        i, f, o = sigmoid(x W + A V + h R + b), each its own columns
        g = tanh(x W + A V + h R + b)
        c' = f * c + i * g
        h' = o * tanh(c')

    A cell has one input, so it is given `[x; A]`: the last `context_size` features are A.
    `context_kernel` is V; W, R and b are as in `LSTMCell`.

    Args:
        context_size: C, the length of A. With 0 there is none, and the cell is the LSTM.
        **kwargs: as in `LSTMCell`; V starts as the kernel does.

    Raises:
        ValueError: if `context_size` is below zero, or if the inputs are not longer than it.

    Differs from the paper: nothing.
    """

    def __init__(self, units: int, context_size: int = 0, **kwargs):
        if not isinstance(context_size, int) or context_size < 0:
            raise ValueError(
                f"context_size must be an integer of at least 0, got {context_size!r}."
            )
        super().__init__(units, **kwargs)
        self.context_size = context_size

    def build(self, input_shape):
        width = input_shape[-1] - self.context_size
        if width < 1:
            raise ValueError(
                f"the inputs hold {input_shape[-1]} features, and the last {self.context_size} are "
                "the context: at least one must be left."
            )
        super().build((*input_shape[:-1], width))
        self.context_kernel = None
        if self.context_size:
            self.context_kernel = self.add_weight(
                shape=(self.context_size, 4 * self.units),
                name="context_kernel",
                initializer=clone_initializer(self.kernel_initializer),
            )

    def project(self, inputs):
        if self.context_kernel is None:
            return super().project(inputs)
        # Two products, for in a decoder's loop one kernel would be put together at each step.
        x, context = ops.split(inputs, [self.kernel.shape[0]], axis=-1)
        z = ops.matmul(x, self.kernel) + ops.matmul(context, self.context_kernel)  # [..., 4 U]
        return z if self.bias is None else z + self.bias

    def get_config(self):
        return {**super().get_config(), "context_size": self.context_size}


@keras.saving.register_keras_serializable(package="unroll")
class ContextLSTM(RecurrentLayer):
    """An LSTM with context: `ContextLSTMCell` has the equations, `RecurrentLayer` the arguments.

    Call arguments:
        sequences: `[B, T, D]`, or `[B, T, D + C]` with the context inside (as in
            `keras.layers.Bidirectional`, which hands no other arguments on).
        context: `[B, C]`, the same at every step, or `[B, T, C]`; C is `context_size`.
        initial_state, mask, training: as in `RecurrentLayer`.

    >>> import numpy as np
    >>> from unroll.layers import ContextLSTM
    >>> words, image = np.zeros((2, 5, 3), "float32"), np.zeros((2, 4), "float32")
    >>> ContextLSTM(8, context_size=4, return_sequences=True)(words, context=image).shape
    TensorShape([2, 5, 8])
    """

    cell_class = ContextLSTMCell

    def build(self, sequences_shape, context_shape=None, initial_state_shape=None):
        width = sequences_shape[-1]
        if context_shape is not None:
            self._assert_context_fits(context_shape, sequences_shape[1])
            width += self.cell.context_size
        super().build((*sequences_shape[:-1], width))

    def call(self, sequences, context=None, initial_state=None, mask=None, training=False):
        if context is not None:
            self._assert_context_fits(context.shape, sequences.shape[1])
            if len(context.shape) == 2:
                context = ops.repeat(context[:, None], ops.shape(sequences)[1], axis=1)
            sequences = ops.concatenate([sequences, context], axis=-1)  # [B, T, D + C]
        return super().call(sequences, initial_state, mask, training)

    def _assert_context_fits(self, shape, time):
        size = self.cell.context_size
        steps = shape[1] if len(shape) == 3 else time
        if (
            len(shape) not in (2, 3)
            or shape[-1] != size
            or not (steps == time or None in (steps, time))
        ):
            raise ValueError(
                f"{self.name} takes a context of the shape [B, {size}] or [B, T, {size}] for its "
                f"{time} steps, got {tuple(shape)}."
            )
