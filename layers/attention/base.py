"""What Bahdanau's and Luong's attention share: how they are called."""

import keras
from keras import ops

from unroll.layers.initializers import clone_initializer


class Attention(keras.layers.Layer):
    """Abstract: a query, or a sequence of queries, attends to a memory.

    A layer of this kind keeps nothing between calls: the memory, its mask and its keys are
    arguments. `compute_keys(memory)` makes the keys, once for all queries of a sequence.

    Args:
        kernel_initializer: of all weights.

    Call arguments:
        query: `[B, Q]`, or `[B, T, Q]` for T queries at once.
        memory: `[B, S, D]`.
        keys: what `compute_keys(memory)` returned; made anew by default.
        mask: `[B, S]`, boolean. A place where it is False has the weight zero.

    Raises:
        ValueError: if the query or the memory has not the rank above.
    """

    def __init__(self, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def project_keys(self, memory):
        """The part of the score that depends on the memory alone, `[B, S, ...]`."""
        raise AttributeError(f"{type(self).__name__} must define project_keys().")

    def compute_keys(self, memory):
        """The keys of a memory `[B, S, D]`, for many calls on it.

        Raises:
            ValueError: if the layer has no weights yet: `build(query_shape, memory_shape)` it.
        """
        if not self.built:
            raise ValueError(
                f"{self.name} has no weights yet: call it once, or build(query_shape, "
                "memory_shape), before compute_keys(memory)."
            )
        return self.project_keys(ops.cast(memory, self.compute_dtype))

    def output_size(self, memory_size: int) -> int:
        """The size of what a query gets from a memory of vectors of a size."""
        return memory_size

    def compute_output_spec(self, query, memory, **options):
        rows = tuple(query.shape[:-1])
        shapes = ((*rows, self.output_size(memory.shape[-1])), (*rows, memory.shape[1]))
        return tuple(keras.KerasTensor(shape, self.compute_dtype) for shape in shapes)

    def compute_mask(self, *arguments, **options):
        return [None, None]

    def check_shapes(self, query_shape, memory_shape):
        if len(query_shape) not in (2, 3) or len(memory_shape) != 3:
            raise ValueError(
                f"{self.name} takes a query [B, Q] or [B, T, Q] and a memory [B, S, D], got "
                f"{tuple(query_shape)} and {tuple(memory_shape)}."
            )

    def add_kernel(self, name: str, shape: tuple):
        return self.add_weight(
            name=name, shape=shape, initializer=clone_initializer(self.kernel_initializer)
        )

    def get_config(self):
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return {**super().get_config(), "kernel_initializer": initializer}


def for_each_query(attend, query):
    """`attend([B, T, Q]) -> (vectors, weights)` on a query `[B, Q]` or on T of them."""
    if len(query.shape) == 3:
        return attend(query)
    return tuple(ops.squeeze(x, 1) for x in attend(query[:, None]))
