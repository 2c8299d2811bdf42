"""Long short-term memory with a context vector."""

import keras
from keras import ops

from unroll.layers.backend import product
from unroll.layers.initializers import clone_initializer
from unroll.layers.operations import add_bias, require_size
from unroll.layers.recurrent.cell import forwarded
from unroll.layers.recurrent.lstm import LSTM, LSTMCell


@keras.saving.register_keras_serializable(package="unroll")
class ContextLSTMCell(LSTMCell):
    """One step of an LSTM with a context vector A, which has its own weights in each gate.

    It is the decoder of Xu et al. 2015, "Show, attend and tell", equations 1 to 3, and that of
    Bahdanau-style translation with an LSTM:

        i, f, o = sigmoid(x W + A V + h R + b), each with its own columns
        g = tanh(x W + A V + h R + b)
        c' = f * c + i * g
        h' = o * tanh(c')

    A cell has one input, `[x; A]`: the last `context_size` features are A. V is `context_kernel`;
    W, R and b are as in `LSTMCell`.

    Args:
        context_size: C, the length of A. With 0 the cell is an LSTM.
        The others are those of `LSTMCell`; `kernel_initializer` is also that of V.

    Raises:
        ValueError: if `context_size` is not an integer of at least 0, or if the inputs have no more
            features than that.

    Differs from the paper: nothing.
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
        unit_forget_bias: bool = True,
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
        projection: int | None = None,
        projection_clip: float | None = None,
        cell_clip: float | None = None,
        zoneout_cell: float = 0.0,
        zoneout_hidden: float = 0.0,
        context_size: int = 0,
        **kwargs,
    ):
        context_size = require_size(f"{type(self).__name__}: context_size", context_size, minimum=0)
        super().__init__(**forwarded(locals(), "context_size"))
        self.context_size = context_size

    def build(self, input_shape):
        width = input_shape[-1] - self.context_size
        if width < 1:
            raise ValueError(
                f"{type(self).__name__}: the inputs must have more features than the "
                f"{self.context_size} of the context, got {input_shape[-1]}."
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
        # Two products: in the loop of a decoder, concatenating the kernels would cost time in
        # each step.
        x, context = ops.split(inputs, [self.kernel.shape[0]], axis=-1)
        z = product(x, self.kernel) + product(context, self.context_kernel)  # [..., 4 U]
        return add_bias(z, self.bias)

    def get_config(self):
        return {**super().get_config(), "context_size": self.context_size}


@keras.saving.register_keras_serializable(package="unroll")
class ContextLSTM(LSTM):
    """An LSTM with a context vector over time.

    `ContextLSTMCell` has the equations. The arguments, except for `context_size`, are those of
    `LSTM`.

    Call arguments:
        sequences: `[B, T, D]`, or `[B, T, D + C]` with the context as the last features (as in
            `keras.layers.Bidirectional`, which passes no other arguments on).
        context: `[B, C]`, the same at every step, or `[B, T, C]`. C is `context_size`.
        initial_state, mask, training, sequences_mask: as in `RecurrentLayer`.

    >>> import numpy as np
    >>> from unroll.layers import ContextLSTM
    >>> tokens, image = np.zeros((2, 5, 3), "float32"), np.zeros((2, 4), "float32")
    >>> ContextLSTM(8, context_size=4, return_sequences=True)(tokens, context=image).shape
    TensorShape([2, 5, 8])
    """

    cell_class = ContextLSTMCell

    def __init__(
        self,
        units: int,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: bool | str = "auto",
        zero_output_for_mask: bool = False,
        *,
        recurrent_weight_dropout: float = 0.0,
        projection: int | None = None,
        projection_clip: float | None = None,
        cell_clip: float | None = None,
        zoneout_cell: float = 0.0,
        zoneout_hidden: float = 0.0,
        context_size: int = 0,
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))

    def build(self, sequences_shape, context_shape=None, initial_state_shape=None):
        width = sequences_shape[-1]
        if context_shape is not None:
            self._assert_context_fits(context_shape, sequences_shape[1])
            width += self.cell.context_size
        super().build((*sequences_shape[:-1], width))

    def call(
        self,
        sequences,
        context=None,
        initial_state=None,
        mask=None,
        training=False,
        sequences_mask=None,
    ):
        if context is not None:
            self._assert_context_fits(context.shape, sequences.shape[1])
            if len(context.shape) == 2:
                context = ops.repeat(context[:, None], ops.shape(sequences)[1], axis=1)
            sequences = ops.concatenate([sequences, context], axis=-1)  # [B, T, D + C]
        return super().call(sequences, initial_state, mask, training, sequences_mask)

    def _assert_context_fits(self, shape, time):
        size = self.cell.context_size
        steps = shape[1] if len(shape) == 3 else time
        if (
            len(shape) not in (2, 3)
            or shape[-1] != size
            or not (steps == time or None in (steps, time))
        ):
            raise ValueError(
                f"{self.name} takes a context of the shape [B, {size}] or [B, T, {size}] with "
                f"{time} steps, got {tuple(shape)}."
            )
