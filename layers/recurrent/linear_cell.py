"""The base class of cells whose memory is linear in the memory before."""

from unroll.layers.operations import cast_like, cast_to, full_precision, is_half
from unroll.layers.recurrent.base_cell import BaseCell
from unroll.layers.recurrent.linear_recurrence import (
    gated_recurrence,
    hold,
    multiply_add,
)


class LinearRecurrentCell(BaseCell):
    """Base class of cells with the memory `c' = a c + b`, where a and b depend on the input alone.

    Without a product of the state, a layer trains in parallel over time (see `linear_recurrence`),
    and one step takes no time to speak of. A subclass sets `gates`, and defines `coefficients`. For
    example, an average with a learned decay:

    >>> import keras, numpy as np
    >>> from unroll.layers.recurrent import LinearRecurrentCell, RecurrentLayer
    >>> @keras.saving.register_keras_serializable(package="example")
    ... class DecayCell(LinearRecurrentCell):
    ...     gates = 2
    ...
    ...     def coefficients(self, z):
    ...         gate, x = keras.ops.split(z, 2, axis=-1)
    ...         a = keras.ops.sigmoid(gate)
    ...         return a, (1 - a) * x
    >>> @keras.saving.register_keras_serializable(package="example")
    ... class Decay(RecurrentLayer):
    ...     cell_class = DecayCell
    >>> Decay(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])

    | member | meaning |
    | --- | --- |
    | `gates` | the number of blocks of U columns in W and b |
    | `states` | 1 if the memory is the output; otherwise the output is a state of its own |
    | `coefficients(z, *weights)` | a and b |
    | `output(z, memory, *weights)` | the output for the memory after the step |
    | `step_weights()` | the `weights` of both; none |

    The arguments are those of `BaseCell`. There are no recurrent dropout and no initializer of a
    recurrent matrix, because there is no such matrix.
    """

    states = 1

    def build(self, input_shape):
        self.add_weights((input_shape[-1], self.gates * self.units), (self.gates * self.units,))

    def add_weights(self, kernel, bias):
        """Creates W and b of the given shapes."""
        self.kernel = self.add_part("kernel", kernel, self.kernel_initializer)
        self.bias = self.add_part("bias", bias, self.initial_bias) if self.use_bias else None

    @property
    def has_output(self) -> bool:
        """Whether the output is not the memory itself."""
        return self.states > 1

    def coefficients(self, z, *weights):
        """The factor a and the term b of the memory.

        Args:
            z: x W + b, `[..., gates * U]`, in float32 at least.
            *weights: the `step_weights`.

        Returns:
            a and b, `[..., size of the memory]` each, or a pair of them each, the real and the
            imaginary part. An axis of a may have the size 1.
        """
        raise NotImplementedError(f"{type(self).__name__} must define coefficients().")

    def output(self, z, memory, *weights):
        """The output `[..., U]`; `memory` is that after the step, in a tuple of its parts."""
        raise NotImplementedError(f"{type(self).__name__} must define output().")

    def step(self, z, states, *weights):
        memory = states[1:] if self.has_output else states
        a, b = self._parts((z,), weights)
        memory = multiply_add(a, memory, b)
        return (self.output(z, memory, *weights), *memory) if self.has_output else memory

    def _parts(self, inputs, weights):
        """a and b, in tuples of their parts."""
        a, b = self.coefficients(inputs[0], *weights)
        return (a, b) if isinstance(b, tuple) else ((a,), (b,))

    def _parts_of_inputs(self, inputs, weights):
        """As `_parts`, of inputs that are not projected yet."""
        n = len(self.weights)
        return self._parts((self.project_with(inputs[0], weights[:n]),), weights[n:])

    def over_time(self, inputs, states, mask, dropout_mask, reverse: bool):
        parts, weights = self._parts, self.step_weights()
        if self.has_output or is_half(inputs.dtype):
            z = self.project(inputs)
        else:
            z, options = self.projected(inputs)
            if options:
                parts, weights = self._parts_of_inputs, (*options["project_weights"], *weights)
        memory, final = gated_recurrence(
            parts,
            (z,),
            states[1:] if self.has_output else states,
            weights,
            mask=mask,
            reverse=reverse,
        )
        if not self.has_output:
            return memory[0], list(cast_like(final, states))
        h = self.output(full_precision(z), full_precision(memory), *full_precision(weights))
        h, last = hold(cast_to(h, z.dtype), states[0], mask, reverse)
        return h, list(cast_like((last, *final), states))
