"""The minimal gated recurrent unit."""

import keras
from keras import ops

from unroll.layers.recurrent.base_cell import forwarded
from unroll.layers.recurrent.layer import RecurrentLayer
from unroll.layers.recurrent.linear_cell import LinearRecurrentCell


@keras.saving.register_keras_serializable(package="unroll")
def positive(x):
    """x + 0.5 where x is not negative, and sigmoid(x) elsewhere, so that it is always positive.

    Feng et al. 2024, "Were RNNs all we needed?", appendix B.

    >>> import numpy as np
    >>> np.array(positive(np.array([-100.0, 0.0, 2.0], "float32"))).round(3).tolist()
    [0.0, 0.5, 2.5]
    """
    # min(x, 0), because the gradient of a branch that is not taken must be finite, too.
    return ops.maximum(x, 0.0) + ops.sigmoid(ops.minimum(x, 0.0))


@keras.saving.register_keras_serializable(package="unroll")
class MinGRUCell(LinearRecurrentCell):
    """One step of a minimal gated recurrent unit, whose gate does not read the state.

    Feng et al. 2024, "Were RNNs all we needed?", section 3.1:

        z, g = x W + b, each with its own columns
        h' = (1 - sigmoid(z)) h + sigmoid(z) activation(g)

    The columns of the weights are in the order z, g.

    Args:
        activation: of the candidate g. The default is that of the paper's parallel form; "linear"
            gives section 3.1.
        The others are those of `BaseCell`.

    Differs from the paper: nothing. The paper computes sums of exponentials in log space, so that
    a parallel scan neither overflows nor divides by zero. `linear_recurrence` needs no division,
    and gives the same values.
    """

    gates = 2

    def __init__(
        self,
        units: int,
        activation=positive,
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
        super().__init__(**forwarded(locals()))

    def coefficients(self, z, *weights):
        gate, g = ops.split(z, 2, axis=-1)  # [..., U] each
        return ops.sigmoid(-gate), ops.sigmoid(gate) * self.activation(g)


@keras.saving.register_keras_serializable(package="unroll")
class MinGRU(RecurrentLayer):
    """A minimal gated recurrent unit over time, which trains in parallel over the steps.

    `MinGRUCell` has the equations. `RecurrentLayer` describes the call and the arguments that the
    cell does not have; `unroll` and `use_cudnn` have no effect.

    >>> import numpy as np
    >>> from unroll.layers import MinGRU
    >>> MinGRU(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = MinGRUCell

    def __init__(
        self,
        units: int,
        activation=positive,
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
