"""The independently recurrent neural network."""

import keras
from keras import constraints, initializers

from unroll.layers.operations import require_size
from unroll.layers.recurrent.cell import RecurrentCell, forwarded
from unroll.layers.recurrent.layer import RecurrentLayer


@keras.saving.register_keras_serializable(package="unroll")
class IndRNNCell(RecurrentCell):
    """One step of an independently recurrent network: each unit reads only itself.

    Li, Li, Cook, Zhu and Gao 2018, "Independently recurrent neural network (IndRNN): building a
    longer and deeper RNN", equation 2:

        h' = relu(x W + u * h + b)

    Units are combined by the layer on top. u is `recurrent_kernel`, `[1, U]`. After T steps, a unit
    of rectified linear units has multiplied its state by u^T: for a memory of T steps the paper
    limits the absolute value of u to 2^(1 / T) (section 3).

    Args:
        time_steps: T, the number of steps to remember. |u| is then at most 2^(1 / T), by a
            `keras.constraints.MaxNorm` as the `recurrent_constraint`. By default there is no limit.
        recurrent_initializer: of u. By default uniform from 0 to 1, or to 2^(1 / T).
        recurrent_constraint: of u, instead of that of `time_steps`.
        The others are those of `RecurrentCell`. `recurrent_weight_dropout` drops entries of u.

    Raises:
        ValueError: if `time_steps` is not an integer of at least 1.

    Differs from the paper: nothing. Batch normalization between layers is a layer of Keras.
    """

    gates = 1
    states = 1

    def __init__(
        self,
        units: int,
        activation="relu",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer=None,
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
        time_steps: int | None = None,
        **kwargs,
    ):
        super().__init__(**forwarded(locals(), "time_steps"))
        limit = 1.0
        if time_steps is not None:
            time_steps = require_size(f"{type(self).__name__}: time_steps", time_steps)
            limit = 2 ** (1 / time_steps)
            if recurrent_constraint is None:
                self.recurrent_constraint = constraints.MaxNorm(limit, axis=0)
        if recurrent_initializer is None:
            self.recurrent_initializer = initializers.RandomUniform(0.0, limit)
        self.time_steps = time_steps

    def build(self, input_shape):
        self.add_weights((input_shape[-1], self.units), (1, self.units), (self.units,))

    @property
    def loop_kernel(self):
        return None  # the step multiplies h by u

    @property
    def multiply_adds(self):
        return self.units

    def step_weights(self, dropout_mask=None):
        u = self.masked_recurrent_kernel
        return (u,) if dropout_mask is None else (u, dropout_mask)

    def step(self, z, states, u, dropout_mask=1.0):
        (h,) = states
        return (self.activation(z + u * (h * dropout_mask)),)

    def get_config(self):
        return {**super().get_config(), "time_steps": self.time_steps}


@keras.saving.register_keras_serializable(package="unroll")
class IndRNN(RecurrentLayer):
    """An independently recurrent network over time.

    `IndRNNCell` has the equations. `RecurrentLayer` describes the call and the arguments that the
    cell does not have; `unroll` has no effect.

    >>> import numpy as np
    >>> from unroll.layers import IndRNN
    >>> IndRNN(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = IndRNNCell

    def __init__(
        self,
        units: int,
        activation="relu",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer=None,
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
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        *,
        recurrent_weight_dropout: float = 0.0,
        time_steps: int | None = None,
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
