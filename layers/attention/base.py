"""The base class of Bahdanau's and Luong's attention."""

from collections.abc import Callable

import keras
from keras import ops

from unroll.layers.initializers import clone_initializer


class Attention(keras.layers.Layer):
    """Base class of layers in which a query, or a sequence of queries, attends to a memory.

    The layer stores no batch state: the memory, its mask and its keys are arguments. The keys are
    the part of the score that depends on the memory alone. `compute_keys(memory)` computes them
    once for all queries of a sequence.

    A subclass implements `build(query_shape, memory_shape)`, `project_keys` and `attend`, and
    overrides `output_size` if its vectors do not have the size of the memory.

    Args:
        kernel_initializer: the initializer of all weights.

    Call arguments:
        query: `[B, Q]`, or `[B, T, Q]` for T queries.
        memory: `[B, S, D]`.
        keys: the result of `compute_keys(memory)`; computed by default.
        mask: `[B, S]`, boolean. A position where it is False gets the weight zero.

    Returns:
        A tuple of the vectors, `[B, output_size(D)]`, and the attention weights, `[B, S]`; for T
        queries with T as the second axis.

    Raises:
        ValueError: if the query or the memory has another rank.

    >>> import numpy as np
    >>> from keras import ops
    >>> from unroll.layers.attention import Attention, scores
    >>> class ScaledDotAttention(Attention):
    ...     def build(self, query_shape, memory_shape):
    ...         self.check_shapes(query_shape, memory_shape)
    ...
    ...     def project_keys(self, memory):
    ...         return memory
    ...
    ...     def attend(self, queries, memory, keys, mask):
    ...         mask = None if mask is None else mask[:, None]  # [B, 1, S]
    ...         weights = scores.masked_softmax(scores.scaled_dot(queries, keys), mask)
    ...         return ops.matmul(weights, memory), weights
    >>> queries, memory = np.ones((2, 4, 3), "float32"), np.ones((2, 5, 3), "float32")
    >>> vectors, weights = ScaledDotAttention()(queries, memory)
    >>> vectors.shape, weights.shape
    (TensorShape([2, 4, 3]), TensorShape([2, 4, 5]))
    """

    def __init__(self, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def project_keys(self, memory):
        """The keys `[B, S, ...]` of a memory `[B, S, D]`, in the compute dtype."""
        raise NotImplementedError(f"{type(self).__name__} must implement project_keys().")

    def attend(self, queries, memory, keys, mask) -> tuple:
        """Attends with T queries.

        Args:
            queries: `[B, T, Q]`.
            memory: `[B, S, D]`.
            keys: `[B, S, ...]`.
            mask: `[B, S]`, boolean, or None.

        Returns:
            A tuple of the vectors `[B, T, output_size(D)]` and the attention weights `[B, T, S]`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement attend().")

    def output_size(self, memory_size: int) -> int:
        """The size of a vector, for a memory `[B, S, memory_size]`."""
        return memory_size

    def compute_keys(self, memory):
        """The keys of a memory `[B, S, D]`, to use in several calls.

        Raises:
            ValueError: if the layer is not built.
        """
        if not self.built:
            raise ValueError(
                f"{type(self).__name__} is not built: call it once, or "
                "build(query_shape, memory_shape), before compute_keys(memory)."
            )
        return self.project_keys(ops.cast(memory, self.compute_dtype))

    def call(self, query, memory, keys=None, mask=None):
        keys = self.compute_keys(memory) if keys is None else keys
        return for_each_query(lambda queries: self.attend(queries, memory, keys, mask), query)

    def compute_output_spec(self, query, memory, **kwargs):
        rows = tuple(query.shape[:-1])
        shapes = ((*rows, self.output_size(memory.shape[-1])), (*rows, memory.shape[1]))
        return tuple(keras.KerasTensor(shape, self.compute_dtype) for shape in shapes)

    def compute_mask(self, *args, **kwargs):
        return [None, None]

    def check_shapes(self, query_shape, memory_shape):
        """Raises a `ValueError` if the query or the memory has the wrong rank."""
        if len(query_shape) not in (2, 3) or len(memory_shape) != 3:
            raise ValueError(
                f"{type(self).__name__} expects a query [B, Q] or [B, T, Q] and a memory "
                f"[B, S, D], got {tuple(query_shape)} and {tuple(memory_shape)}."
            )

    def add_kernel(self, name: str, shape: tuple):
        """Adds a weight with the initializer of the layer."""
        return self.add_weight(
            name=name, shape=shape, initializer=clone_initializer(self.kernel_initializer)
        )

    def get_config(self):
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return {**super().get_config(), "kernel_initializer": initializer}


def for_each_query(attend: Callable, query) -> tuple:
    """Calls `attend([B, T, Q]) -> (vectors, weights)` with a query `[B, Q]` or `[B, T, Q]`."""
    if len(query.shape) == 3:
        return attend(query)
    return tuple(ops.squeeze(x, 1) for x in attend(query[:, None]))
