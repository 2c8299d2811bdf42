"""The base class of Bahdanau's and Luong's attention."""

import keras
from keras import ops

from unroll.layers.attention.scores import masked_softmax
from unroll.layers.backend import product
from unroll.layers.initializers import clone_initializer
from unroll.layers.masks import zero_masked


class Attention(keras.layers.Layer):
    """Base class of layers in which a query, or a sequence of queries, attends to a memory.

    The layer stores no batch state: the memory, its mask and its keys are arguments. The keys are
    the part of the score that depends on the memory alone. `prepare(memory, memory_mask)` computes
    them once for all queries of a sequence.

    A subclass defines these members. A decoder uses no others, so that every subclass works in an
    `AttentionDecoder`, with attend="before" and with attend="after".

    | member | meaning |
    | --- | --- |
    | `build(query_shape, memory_shape)` | creates the weights |
    | `project_keys(memory)` | the keys `[B, S, ...]` |
    | `scores(queries, keys)` | the scores `[B, T, S]`, for the default of `attend` |
    | `vectors(weights, queries, memory)` | the vectors; by default the context |
    | `attend(queries, memory, keys, mask)` | the vectors `[B, T, ...]` and weights `[B, T, S]` |
    | `output_size(memory_size)` | the size of a vector; by default that of the memory |
    | `uses_positions` | whether `attend` also takes the `positions` of the queries; False |
    | `uses_previous` | whether it also takes `previous` and `noise`: see `MonotonicAttention` |

    Args:
        kernel_initializer: the initializer of all weights.

    Call arguments:
        query: `[B, Q]`, or `[B, T, Q]` for T queries.
        memory: `[B, S, D]`.
        keys: the keys from `prepare(memory, memory_mask)`, if `memory` comes from there too;
            computed by default.
        query_mask: `[B, T]`, boolean, for T queries. The vector of a query where it is False is
            zero, as in `keras.layers.Attention`. By default the mask that the query carries.
        memory_mask: `[B, S]`, boolean. A position where it is False gets the weight zero, and its
            values have no effect. By default the mask that the memory carries.
        position: for an attention with `uses_positions`, the position of the query: a number or
            `[B]` for one query; `[B, T]` for T queries, by default 0, 1, ..., T - 1.

    Returns:
        A tuple of the vectors, `[B, output_size(D)]`, and the attention weights, `[B, S]`; for T
        queries with T as the second axis. The vectors carry the mask that the query carries.

    Raises:
        ValueError: if the query or the memory has another rank, or a single query lacks the
            position that the attention uses.

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

    uses_positions = False
    uses_previous = False

    def __init__(self, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def project_keys(self, memory):
        """The keys `[B, S, ...]` of a memory `[B, S, D]`, in the compute dtype."""
        raise NotImplementedError(f"{type(self).__name__} must implement project_keys().")

    def scores(self, queries, keys):
        """The scores `[B, T, S]` of queries `[B, T, Q]` and keys `[B, S, ...]`."""
        raise NotImplementedError(f"{type(self).__name__} must implement scores() or attend().")

    def vectors(self, weights, queries, memory):
        """The vectors `[B, T, output_size(D)]`: the sum of the memory with these weights."""
        return product(weights, memory)

    def attend(self, queries, memory, keys, mask, **positions) -> tuple:
        """Attends with T queries, by default with the softmax of the scores as the weights.

        Args:
            queries: `[B, T, Q]`.
            memory: `[B, S, D]`, zero where the mask is False.
            keys: `[B, S, ...]`.
            mask: `[B, S]`, boolean, or None.
            positions: `[B, T]` or `[1, T]`, float32 or float64, the positions of the queries in
                their own sequence; only with `uses_positions`.

        Returns:
            A tuple of the vectors `[B, T, output_size(D)]` and the attention weights `[B, T, S]`.
        """
        mask = None if mask is None else mask[:, None]
        weights = masked_softmax(self.scores(queries, keys), mask)
        return self.vectors(weights, queries, memory), weights

    def output_size(self, memory_size: int) -> int:
        """The size of a vector, for a memory `[B, S, memory_size]`."""
        return memory_size

    def prepare(self, memory, memory_mask=None) -> tuple:
        """What depends on the memory alone, to use in several calls.

        Args:
            memory: `[B, S, D]`.
            memory_mask: `[B, S]`, boolean.

        Returns:
            A tuple of the memory in the compute dtype, zero where the mask is False, and its keys.

        Raises:
            ValueError: if the layer is not built.
        """
        if not self.built:
            raise ValueError(
                f"{type(self).__name__} is not built: call it once, or "
                "build(query_shape, memory_shape), before prepare(memory)."
            )
        memory = zero_masked(ops.cast(memory, self.compute_dtype), memory_mask)
        return memory, self.project_keys(memory)

    def call(
        self, query, memory, keys=None, query_mask=None, memory_mask=None, position=None
    ) -> tuple:
        options = {}
        if self.uses_positions:
            options["positions"] = self._positions(query, position)
        return self.attend_to(query, memory, keys, query_mask, memory_mask, **options)

    def attend_to(self, query, memory, keys, query_mask, memory_mask, **options) -> tuple:
        """`attend` for the arguments of a call; `options` are its other arguments."""
        if keys is None:
            memory, keys = self.prepare(memory, memory_mask)
        if memory_mask is not None:
            memory_mask = ops.cast(memory_mask, "bool")
        is_single = len(query.shape) == 2
        queries = query[:, None] if is_single else query  # [B, T, Q]
        found = self.attend(queries, memory, keys, memory_mask, **options)
        vectors, weights = (ops.squeeze(x, 1) for x in found) if is_single else found
        return zero_masked(vectors, query_mask), weights

    def _positions(self, query, position):
        """The positions of the queries, `[B, T]` or `[1, T]`."""
        if position is None and len(query.shape) == 2:
            raise ValueError(
                f"{type(self).__name__} needs the position of a query [B, Q], got position=None."
            )
        if position is None:
            position = ops.arange(ops.shape(query)[1])[None]
        # Half precision cannot represent all integers above some hundreds.
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        position = ops.cast(position, dtype)  # [], [B] or [B, T]
        return position if len(position.shape) == 2 else ops.reshape(position, (-1, 1))

    def compute_output_shape(self, query_shape, memory_shape):
        rows, length = tuple(query_shape[:-1]), memory_shape[1]
        return (*rows, self.output_size(memory_shape[-1])), (*rows, length)

    def compute_mask(self, query, mask=None):
        return [mask, None]

    def check_shapes(self, query_shape, memory_shape):
        """Raises a `ValueError` if the query or the memory has the wrong rank."""
        if len(query_shape) not in (2, 3) or len(memory_shape) != 3:
            raise ValueError(
                f"{type(self).__name__} expects a query [B, Q] or [B, T, Q] and a memory "
                f"[B, S, D], got {tuple(query_shape)} and {tuple(memory_shape)}."
            )

    def add_kernel(self, name: str, shape: tuple, **options):
        """Adds a weight with the initializer of the layer, and the options of `add_weight`."""
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=clone_initializer(self.kernel_initializer),
            **options,
        )

    def get_config(self):
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return {**super().get_config(), "kernel_initializer": initializer}


class Exact:
    """A tensor that `keras.layers.Layer.__call__` does not cast to the compute dtype of a layer."""

    def __init__(self, tensor):
        self.tensor = tensor
