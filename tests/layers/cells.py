"""Two cells for the bench alone, so that it holds for more than what the package has.

One learns something beside W, R and b (`step_weights`), the other has one gate and one state.
"""

import keras
from keras import ops

from layers.recurrent.base import RecurrentCell, RecurrentLayer


@keras.saving.register_keras_serializable(package="unroll_tests")
class PeepholeCell(RecurrentCell):
    """Gers and Schmidhuber 2000."""

    gates = 4
    states = 2

    def build(self, input_shape):
        super().build(input_shape)
        self.peepholes = self.add_weight(shape=(3, self.units), name="peepholes")

    @property
    def step_weights(self):
        return (self.peepholes,)

    def step(self, z, states, peepholes):
        _, c = states
        i, f, g, o = ops.split(z, 4, axis=-1)
        p_i, p_f, p_o = peepholes[0], peepholes[1], peepholes[2]
        gate, activation = self.recurrent_activation, self.activation
        c = gate(f + p_f * c) * c + gate(i + p_i * c) * activation(g)
        return gate(o + p_o * c) * activation(c), c


@keras.saving.register_keras_serializable(package="unroll_tests")
class Peephole(RecurrentLayer):
    cell_class = PeepholeCell


@keras.saving.register_keras_serializable(package="unroll_tests")
class PlainCell(RecurrentCell):
    """Elman 1990."""

    gates = 1
    states = 1

    def step(self, z, states):
        return (self.activation(z),)


@keras.saving.register_keras_serializable(package="unroll_tests")
class Plain(RecurrentLayer):
    cell_class = PlainCell
