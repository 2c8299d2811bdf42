"""The structurally constrained recurrent network."""

import keras
from keras import ops

from unroll.layers.backend import product
from unroll.layers.initializers import clone_initializer
from unroll.layers.operations import add_bias, require_size
from unroll.layers.recurrent.cell import RecurrentCell, forwarded
from unroll.layers.recurrent.layer import RecurrentLayer


@keras.saving.register_keras_serializable(package="unroll")
class SCRNCell(RecurrentCell):
    """One step of a structurally constrained recurrent network, with slow context units.

    Mikolov et al. 2015, "Learning longer memory in recurrent neural networks", equations 5 to 7:

        s' = (1 - alpha) x B + alpha s
        h' = sigmoid(s' P + x A + h R + b)

    The only state, which is also the output, is `[h; s]`: a dense layer on top of it is h U + s V
    of the paper. The columns of `kernel` are those of A and then those of B. P is `context_kernel`.

    For speed s' P is computed as (1 - alpha) (x B) P + alpha s P: the first term is outside the
    loop, and the second is part of the product with R.

    Args:
        units: U, the number of hidden units h.
        activation: the activation of h.
        context_units: C, the number of context units s; by default U.
        alpha: the fraction of s that remains in each step, from 0 to 1. With 1 the context never
            changes.
        The others are those of `RecurrentCell`; `kernel_initializer` is also that of P, and
        recurrent dropout applies to h only.

    Raises:
        ValueError: if `context_units` is not an integer of at least 1 or `alpha` is not in [0, 1].

    Differs from the paper: there is a bias b, and alpha is not learned (the paper reports no gain).
    """

    gates = 1
    states = 1

    def __init__(
        self,
        units: int,
        activation="sigmoid",
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
        context_units: int | None = None,
        alpha: float = 0.95,
        **kwargs,
    ):
        if context_units is not None:
            context_units = require_size(f"{type(self).__name__}: context_units", context_units)
        if not 0 <= alpha <= 1:
            raise ValueError(f"{type(self).__name__}: alpha must be in [0, 1], got {alpha!r}.")
        super().__init__(**forwarded(locals(), "context_units", "alpha"))
        self.context_units = context_units
        self.alpha = alpha
        self.output_size = units + (context_units or units)
        self.state_size = [self.output_size]

    def build(self, input_shape):
        self.add_weights(
            kernel=(input_shape[-1], self.output_size),
            recurrent_kernel=(self.units, self.units),
            bias=(self.units,),
        )
        self.context_kernel = self.add_weight(
            shape=(self.output_size - self.units, self.units),
            name="context_kernel",
            initializer=clone_initializer(self.kernel_initializer),
        )

    @property
    def added_columns(self):
        return self.units

    @property
    def loop_kernel(self):
        context = ops.convert_to_tensor(self.context_kernel)
        return ops.concatenate([self.masked_recurrent_kernel, self.alpha * context], axis=0)

    def get_recurrent_dropout_mask(self, state):
        mask = super().get_recurrent_dropout_mask(state[:, : self.units])
        if mask is None:
            return None
        return ops.concatenate([mask, ops.ones_like(state[:, self.units :])], axis=-1)

    def project(self, inputs):
        z = product(inputs, self.kernel)  # [..., U + C]
        fast, slow = ops.split(z, [self.units], axis=-1)
        slow = (1 - self.alpha) * slow
        fast = fast + ops.matmul(slow, self.context_kernel)
        return ops.concatenate([add_bias(fast, self.bias), slow], axis=-1)

    def step(self, z, states):
        fast, slow = ops.split(z, [self.units], axis=-1)
        _, s = ops.split(states[0], [self.units], axis=-1)
        s = slow + self.alpha * s  # [..., C]
        return (ops.concatenate([self.activation(fast), s], axis=-1),)

    def get_config(self):
        return {
            **super().get_config(),
            "context_units": self.context_units,
            "alpha": self.alpha,
        }


@keras.saving.register_keras_serializable(package="unroll")
class SCRN(RecurrentLayer):
    """A structurally constrained recurrent network over time.

    `SCRNCell` has the equations. The arguments, except for `context_units` and `alpha`, are those
    of `keras.layers.SimpleRNN`; `unroll` has no effect. `RecurrentLayer` describes the call.

    >>> import numpy as np
    >>> from unroll.layers import SCRN
    >>> SCRN(8, context_units=4, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 12])
    """

    cell_class = SCRNCell

    def __init__(
        self,
        units: int,
        activation="sigmoid",
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
        context_units: int | None = None,
        alpha: float = 0.95,
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
