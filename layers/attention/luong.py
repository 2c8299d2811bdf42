"""Luong's attention, with its scores, windows and attentional vector."""

import keras
from keras import ops

from unroll.layers.attention.base import Attention
from unroll.layers.attention.scores import additive, dot, general_keys, masked_softmax
from unroll.layers.backend import product
from unroll.layers.operations import full_precision, require_size

SCORES = ("dot", "general", "concat", "location")
WINDOWS = ("global", "local_m", "local_p")


@keras.saving.register_keras_serializable(package="unroll")
class LuongAttention(Attention):
    """Global or local attention with one of four scores.

    Luong, Pham and Manning 2015, "Effective approaches to attention-based neural machine
    translation", equations 5 to 10. With the query h and the memory m_1, ..., m_S:

        e_s = h . m_s, h . (W_a m_s), v . tanh(W_a [h; m_s]) or (W_a h)_s            (7, 8)
        a_s = exp(e_s) / sum_s exp(e_s), over the positions in the window
        c = sum_s a_s m_s
        attentional vector = tanh(W_c [c; h])                                        (5)

    The window "global" is the whole memory. The other windows are the positions from p - D to
    p + D. With "local_m" p is the position of the query in its own sequence. With "local_p"

        p = S sigmoid(v_p . tanh(W_p h)), a_s multiplied by exp(-(s - p)^2 / (D^2 / 2))    (9, 10)

    where S is the length of the memory without padding.

    Args:
        units: the size of the attentional vector. With None the layer returns the context c.
        score: `"dot"` (needs Q equal to D), `"general"`, `"concat"` (with a hidden layer of the
            size of the query) or `"location"`.
        window: `"global"`, `"local_m"` or `"local_p"`.
        half_width: D, for a local window.
        memory_size: the maximum S, for the score "location".
        kernel_initializer: the initializer of all weights.

    Call arguments:
        query: `[B, Q]`, or `[B, T, Q]` for T queries.
        memory: `[B, S, D]`.
        keys: the keys from `prepare(memory, memory_mask)`, if `memory` comes from there too;
            computed by default.
        query_mask: `[B, T]`, boolean, for T queries. The vector of a query where it is False is
            zero. By default the mask that the query carries.
        memory_mask: `[B, S]`, boolean. A position where it is False gets the weight zero, and its
            values have no effect. If it is False at all positions, the context is zero. By default
            the mask that the memory carries.
        position: the position of the query, for the window "local_m": an integer or integers `[B]`
            for one query; `[B, T]` for T queries, by default 0, 1, ..., T - 1.

    Returns:
        A tuple of the attentional vector `[B, units]` (or the context `[B, D]`) and the attention
        weights a, `[B, S]`; for T queries with T as the second axis. The vectors carry the mask
        that the query carries.

    Raises:
        ValueError: if an argument is out of its range, the query or the memory has another rank or
            a size that does not fit the score, the memory is longer than `memory_size`, or the
            window "local_m" lacks the position of a single query.

    >>> import numpy as np
    >>> from unroll.layers import LuongAttention
    >>> queries, memory = np.ones((2, 4, 6), "float32"), np.ones((2, 5, 3), "float32")
    >>> vectors, weights = LuongAttention(8, score="general")(queries, memory)
    >>> vectors.shape, weights.shape
    (TensorShape([2, 4, 8]), TensorShape([2, 4, 5]))

    Differs from the paper: positions count from 0. A local window is a mask, so that it takes as
    long to compute as the global one.
    """

    def __init__(
        self,
        units: int | None = None,
        score: str = "general",
        window: str = "global",
        half_width: int = 10,
        memory_size: int | None = None,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        units = None if units is None else require_size("units", units)
        if score not in SCORES:
            raise ValueError(f"score must be one of {', '.join(SCORES)}, got {score!r}.")
        if window not in WINDOWS:
            raise ValueError(f"window must be one of {', '.join(WINDOWS)}, got {window!r}.")
        half_width = require_size("half_width", half_width)
        if score == "location":
            memory_size = require_size("memory_size", memory_size)
        elif memory_size is not None:
            raise ValueError(
                f"memory_size must be None unless score='location', got {memory_size!r} with "
                f"score={score!r}."
            )
        super().__init__(kernel_initializer, **kwargs)
        self.units = units
        self.score = score
        self.window = window
        self.half_width = half_width
        self.memory_size = memory_size

    def build(self, query_shape, memory_shape):
        self.check_shapes(query_shape, memory_shape)
        self._check_length(memory_shape[1])
        query_size, size = query_shape[-1], memory_shape[-1]
        if self.score == "dot" and query_size != size:
            raise ValueError(
                f"{type(self).__name__} with score='dot' needs a query and a memory of the same "
                f"size, got {query_size} and {size}. Use score='general' instead."
            )
        if self.score == "general":
            self.kernel = self.add_kernel("kernel", (size, query_size))
        elif self.score == "concat":
            self.query_kernel = self.add_kernel("query_kernel", (query_size, query_size))
            self.key_kernel = self.add_kernel("key_kernel", (size, query_size))
            self.scale = self.add_kernel("scale", (query_size, 1))
        elif self.score == "location":
            self.kernel = self.add_kernel("kernel", (query_size, self.memory_size))
        if self.window == "local_p":  # computed in float32, also with half precision
            shapes = {
                "position_kernel": (query_size, query_size),
                "position_scale": (query_size, 1),
            }
            self.position_kernel, self.position_scale = (
                self.add_kernel(name, shape, autocast=False) for name, shape in shapes.items()
            )
        if self.units is not None:
            shape = (size + query_size, self.units)
            self.attentional_kernel = self.add_kernel("attentional_kernel", shape)

    @property
    def uses_positions(self) -> bool:
        return self.window == "local_m"

    def output_size(self, memory_size: int) -> int:
        return self.units or memory_size

    def project_keys(self, memory):
        self._check_length(memory.shape[1])
        if self.score == "general":
            return general_keys(memory, ops.cast(self.kernel, memory.dtype))  # [B, S, Q]
        if self.score == "concat":
            return ops.matmul(memory, ops.cast(self.key_kernel, memory.dtype))  # [B, S, Q]
        return memory

    def attend(self, queries, memory, keys, mask, positions=None):
        in_window, factors = self._window(queries, memory, mask, positions)
        weights = masked_softmax(self.scores(queries, keys), in_window)  # [B, T, S]
        if factors is not None:
            weights = weights * factors
        return self.vectors(weights, queries, memory), weights

    def vectors(self, weights, queries, memory):
        context = super().vectors(weights, queries, memory)  # [B, T, D]
        if self.units is None:
            return context
        both = ops.concatenate([context, queries], axis=-1)
        return ops.tanh(product(both, self.attentional_kernel))  # [B, T, U]

    def scores(self, queries, keys):
        if self.score == "concat":
            return additive(product(queries, self.query_kernel), keys, self.scale[:, 0])
        if self.score == "location":
            return product(queries, self.kernel)[:, :, : ops.shape(keys)[1]]
        return dot(queries, keys)

    def _window(self, queries, memory, mask, positions):
        """The memory positions in the window and the mask, and the factors of the weights.

        Each is `[B, T, S]`, or None if there is no restriction or no factor.
        """
        mask = None if mask is None else mask[:, None]  # [B, 1, S]
        if self.window == "global":
            return mask, None
        # Half precision cannot represent all integers above some hundreds.
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        index = ops.arange(ops.shape(memory)[1], dtype=dtype)  # [S]
        if self.window == "local_m":
            center = positions  # [B, T] or [1, T]
        else:
            length = ops.cast(ops.shape(memory)[1], dtype)
            if mask is not None:  # not the maximum position, which an empty memory does not have
                after = ops.cumsum(ops.cast(ops.flip(mask, axis=-1), "int32"), axis=-1)
                length = ops.sum(ops.cast(after > 0, dtype), axis=-1)  # [B, 1]
            hidden = ops.tanh(ops.matmul(full_precision(queries), self.position_kernel))
            center = length * ops.sigmoid(ops.matmul(hidden, self.position_scale))[..., 0]
        distance = index - ops.expand_dims(center, -1)  # [B, T, S]
        in_window = ops.abs(distance) <= self.half_width
        if mask is not None:
            in_window = ops.logical_and(in_window, mask)
        if self.window == "local_m":
            return in_window, None
        factors = ops.exp(-2 * ops.square(distance / self.half_width))
        return in_window, ops.cast(factors, self.compute_dtype)

    def _check_length(self, length: int | None):
        """Raises a `ValueError` if a memory is too long for the score "location"."""
        if self.score == "location" and length is not None and length > self.memory_size:
            raise ValueError(
                f"{type(self).__name__} with memory_size={self.memory_size} needs a memory of at "
                f"most {self.memory_size} positions, got {length}."
            )

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "score": self.score,
            "window": self.window,
            "half_width": self.half_width,
            "memory_size": self.memory_size,
        }
