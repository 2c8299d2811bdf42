"""Parts of networks with a decoder: its cells and states, a regularizer and the loss of tokens."""

import keras
from keras import ops

from unroll import layers


def decoder_cell(name: str, units: int, context_size: int = 0):
    """A cell by the name of its layer. `ContextLSTM` has separate weights for the context."""
    make = getattr(layers, f"{name}Cell")
    return make(units, context_size=context_size) if name == "ContextLSTM" else make(units)


def split_states(states, sizes: list[int]) -> list:
    """Splits concatenated states, `[N, U]`, into one tensor per size."""
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    return [states[:, end - size : end] for size, end in zip(sizes, ends, strict=True)]


@keras.saving.register_keras_serializable(package="unroll")
class DoublyStochastic(keras.layers.Layer):
    """Doubly stochastic regularization of attention (Xu et al. 2015, equation 14).

    With the weight `a_ti` of position i at step t, it adds to the loss `strength` times the sum
    over sequences and positions of `(1 - sum over t of a_ti)^2`, divided by the number of tokens.

    Args:
        strength: the factor.

    Call arguments:
        logits: returned unchanged.
        weights: attention weights, `[N, T, S]`.
        tokens: `[N, T]`. Padding, 0, is ignored.
        memory_mask: `[N, S]`, boolean, the positions that count; all by default.
    """

    def __init__(self, strength: float, **kwargs):
        super().__init__(**kwargs)
        self.strength = strength

    def call(self, logits, weights, tokens, memory_mask=None):
        counted = ops.cast(ops.not_equal(tokens, 0), weights.dtype)  # [N, T]
        sums = ops.sum(weights * ops.expand_dims(counted, -1), axis=1)  # [N, S]
        squares = ops.square(1 - sums)
        if memory_mask is not None:
            squares = squares * ops.cast(memory_mask, weights.dtype)
        exists = ops.cast(ops.sum(counted, axis=1) > 0, weights.dtype)  # [N]
        penalty = ops.sum(exists * ops.sum(squares, axis=-1))
        self.add_loss(self.strength * penalty / ops.maximum(ops.sum(counted), 1))
        return logits

    def get_config(self):
        return {**super().get_config(), "strength": self.strength}
