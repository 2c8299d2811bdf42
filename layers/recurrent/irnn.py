"""The recurrent network of rectified linear units that starts as the identity."""

import keras

from unroll.layers.recurrent.base import RecurrentLayer
from unroll.layers.recurrent.elman import ElmanRNNCell


@keras.saving.register_keras_serializable(package="unroll")
class IRNNCell(ElmanRNNCell):
    """One step of an IRNN.

    Le, Jaitly and Hinton 2015, "A simple way to initialize recurrent networks of rectified linear
    units":

        h' = relu(x W + h R + b), where R starts as the identity and b at zero

    so that at first a state that is not negative stays as it is while nothing comes in.

    Args:
        activation: of the state.
        recurrent_initializer: of R. The paper also starts from a fraction of the identity,
            `keras.initializers.Identity(0.01)`, where short dependencies matter more.
        **kwargs: as in `ElmanRNNCell`.

    Differs from the paper: nothing. Such a network needs clipped gradients.
    """

    def __init__(self, units: int, activation="relu", recurrent_initializer="identity", **kwargs):
        super().__init__(
            units, activation=activation, recurrent_initializer=recurrent_initializer, **kwargs
        )


@keras.saving.register_keras_serializable(package="unroll")
class IRNN(RecurrentLayer):
    """An IRNN over time: `IRNNCell` has the equations, `RecurrentLayer` the arguments.

    >>> import numpy as np
    >>> from unroll.layers import IRNN
    >>> IRNN(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = IRNNCell
