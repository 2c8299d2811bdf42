"""The recurrent network of rectified linear units that starts as the identity."""

import keras

from unroll.layers.recurrent.cell import forwarded
from unroll.layers.recurrent.elman import ElmanRNN, ElmanRNNCell


@keras.saving.register_keras_serializable(package="unroll")
class IRNNCell(ElmanRNNCell):
    """One step of an IRNN.

    Le, Jaitly and Hinton 2015, "A simple way to initialize recurrent networks of rectified linear
    units":

        h' = relu(x W + h R + b), where R starts as the identity and b at zero

    Before training, a state without negative values does not change while the input is zero.

    Args:
        recurrent_initializer: of R. The paper also uses a fraction of the identity,
            `keras.initializers.Identity(0.01)`, where only short dependencies matter.
        The others are those of `ElmanRNNCell`.

    Differs from the paper: nothing. Training needs clipped gradients.
    """

    def __init__(
        self,
        units: int,
        activation="relu",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="identity",
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
        output_units: int | None = None,
        output_activation="sigmoid",
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))


@keras.saving.register_keras_serializable(package="unroll")
class IRNN(ElmanRNN):
    """An IRNN over time.

    `IRNNCell` has the equations. The arguments, with other defaults, and the call are those of
    `ElmanRNN`.

    >>> import numpy as np
    >>> from unroll.layers import IRNN
    >>> IRNN(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = IRNNCell

    def __init__(
        self,
        units: int,
        activation="relu",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="identity",
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
        output_units: int | None = None,
        output_activation="sigmoid",
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
