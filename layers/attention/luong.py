"""Luong's attention: scores, windows and the attentional vector."""

import keras
from keras import ops

from unroll.layers.attention.base import Attention, for_each_query
from unroll.layers.attention.scores import additive, dot, general_keys, masked_softmax
from unroll.layers.operations import require_size

SCORES = ("dot", "general", "concat", "location")
WINDOWS = ("global", "local_m", "local_p")


@keras.saving.register_keras_serializable(package="unroll")
class LuongAttention(Attention):
    """Attention as in "Effective approaches to attention-based neural machine translation".

    Luong, Pham and Manning 2015, equations 5 to 10. With the query h and the memory m_1, ..., m_S:

        e_s = h . m_s, or h . (W_a m_s), or v . tanh(W_a [h; m_s]), or (W_a h)_s      (7, 8)
        a_s = exp(e_s) / sum over s of exp(e_s), over the places in the window
        c = sum over s of a_s m_s
        the attentional vector is tanh(W_c [c; h])                                    (5)

    The window is the whole memory (global), or p - D to p + D around a place p: the position of the
    query in its own sequence (local-m), or

        p = S sigmoid(v_p . tanh(W_p h)), a_s multiplied by exp(-(s - p)^2 / (D^2 / 2))    (9, 10)

    (local-p), where S is the true length of the memory.

    Args:
        units: the size of the attentional vector; with `None` there is none, and the layer returns
            the context c.
        score: `"dot"` (needs Q equal to D), `"general"`, `"concat"` (its hidden layer has the size
            of the query) or `"location"`.
        window: `"global"`, `"local_m"` or `"local_p"`.
        half_width: D, of a local window.
        memory_size: for the score `"location"`, the greatest S.
        kernel_initializer: of all weights.

    Call arguments:
        query: `[B, Q]`, or `[B, T, Q]` for T queries at once.
        memory: `[B, S, D]`.
        keys: what `compute_keys(memory)` returned; made anew by default.
        mask: `[B, S]`, boolean. A place where it is False has the weight zero; a memory with no
            place left gives a zero context.
        position: of the query, for local-m: a number or `[B]` for one query; for T queries
            `[B, T]`, by default 0, 1, ..., T - 1.

    Returns:
        A tuple of the attentional vector `[B, units]` (or the context, `[B, D]`) and the weights a,
        `[B, S]`; for T queries with T as second axis.

    Raises:
        ValueError: if an argument is none of the above, if the query does not fit the score, if the
            memory is longer than `memory_size`, or if local-m knows no position of a single query.

    >>> import numpy as np
    >>> from unroll.layers import LuongAttention
    >>> states, encoded = np.ones((2, 4, 6), "float32"), np.ones((2, 5, 3), "float32")
    >>> vectors, weights = LuongAttention(8, score="general")(states, encoded)
    >>> vectors.shape, weights.shape
    (TensorShape([2, 4, 8]), TensorShape([2, 4, 5]))

    Differs from the paper: places are counted from 0. A local window leaves out by a mask what lies
    outside of it, so that it costs what the global one does.
    """

    def __init__(
        self,
        units: int | None = None,
        score: str = "general",
        window: str = "global",
        half_width: int = 10,
        memory_size: int | None = None,
        **kwargs,
    ):
        if units is not None:
            require_size("units", units)
        if score not in SCORES:
            raise ValueError(f"score must be one of {', '.join(SCORES)}, got {score!r}.")
        if window not in WINDOWS:
            raise ValueError(f"window must be one of {', '.join(WINDOWS)}, got {window!r}.")
        require_size("half_width", half_width)
        if score == "location":
            require_size("memory_size", memory_size)
        elif memory_size is not None:
            raise ValueError(f"memory_size is for the score location alone, and score is {score}.")
        super().__init__(**kwargs)
        self.units = units
        self.score = score
        self.window = window
        self.half_width = half_width
        self.memory_size = memory_size

    def build(self, query_shape, memory_shape):
        self.check_shapes(query_shape, memory_shape)
        of_query, of_memory = query_shape[-1], memory_shape[-1]
        if self.score == "dot" and of_query != of_memory:
            raise ValueError(
                f"{self.name} compares query and memory by a dot product, which needs one size of "
                f"both: got {of_query} and {of_memory}. score='general' has a matrix between them."
            )
        if self.score == "general":
            self.kernel = self.add_kernel("kernel", (of_memory, of_query))
        elif self.score == "concat":
            self.query_kernel = self.add_kernel("query_kernel", (of_query, of_query))
            self.key_kernel = self.add_kernel("key_kernel", (of_memory, of_query))
            self.scale = self.add_kernel("scale", (of_query, 1))
        elif self.score == "location":
            self.kernel = self.add_kernel("kernel", (of_query, self.memory_size))
        if self.window == "local_p":
            self.position_kernel = self.add_kernel("position_kernel", (of_query, of_query))
            self.position_scale = self.add_kernel("position_scale", (of_query, 1))
        if self.units is not None:
            shape = (of_memory + of_query, self.units)
            self.attentional_kernel = self.add_kernel("attentional_kernel", shape)
        self.built = True

    def output_size(self, memory_size: int) -> int:
        return self.units or memory_size

    def project_keys(self, memory):
        if self.score == "general":
            return general_keys(memory, ops.cast(self.kernel, memory.dtype))  # [B, S, Q]
        if self.score == "concat":
            return ops.matmul(memory, ops.cast(self.key_kernel, memory.dtype))  # [B, S, Q]
        return memory

    def call(self, query, memory, keys=None, mask=None, position=None):
        keys = self.compute_keys(memory) if keys is None else keys
        if self.window == "local_m" and position is None and len(query.shape) == 2:
            raise ValueError(f"{self.name} has a local_m window, and needs the query's position.")
        length = memory.shape[1]
        if self.score == "location" and isinstance(length, int) and length > self.memory_size:
            raise ValueError(
                f"{self.name} scores {self.memory_size} places (memory_size), and the memory has "
                f"{length}."
            )

        def attend(queries):
            allowed, factors = self._window(queries, memory, mask, position)
            weights = masked_softmax(self._scores(queries, keys), allowed)  # [B, T, S]
            if factors is not None:
                weights = weights * factors
            context = ops.matmul(weights, memory)  # [B, T, D]
            if self.units is None:
                return context, weights
            both = ops.concatenate([context, queries], axis=-1)
            return ops.tanh(ops.matmul(both, self.attentional_kernel)), weights  # [B, T, U]

        return for_each_query(attend, query)

    def _scores(self, queries, keys):
        if self.score == "concat":
            return additive(ops.matmul(queries, self.query_kernel), keys, self.scale[:, 0])
        if self.score == "location":
            return ops.matmul(queries, self.kernel)[:, :, : ops.shape(keys)[1]]
        return dot(queries, keys)

    def _window(self, queries, memory, mask, position):
        """Which places each query may see, `[B, T, S]` or None, and factors of the weights."""
        allowed = None if mask is None else ops.cast(mask, "bool")[:, None]  # [B, 1, S]
        if self.window == "global":
            return allowed, None
        # Half precision cannot count beyond some hundreds.
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        places = ops.arange(ops.shape(memory)[1], dtype=dtype)  # [S]
        if self.window == "local_m":
            if position is None:
                position = ops.arange(ops.shape(queries)[1])[None]
            center = ops.cast(position, dtype)  # [], [B] or [B, T]
            if len(center.shape) < 2:
                center = ops.reshape(center, (-1, 1))
        else:
            length = ops.cast(ops.shape(memory)[1], dtype)
            if mask is not None:
                ends = ops.where(mask, places + 1, 0.0)  # [B, S]
                length = ops.max(ends, axis=1, keepdims=True)  # [B, 1]
            hidden = ops.tanh(ops.matmul(queries, self.position_kernel))  # [B, T, Q]
            share = ops.sigmoid(ops.matmul(hidden, self.position_scale))[..., 0]  # [B, T]
            center = length * ops.cast(share, dtype)
        distance = places - ops.expand_dims(center, -1)  # [B, T, S]
        near = ops.abs(distance) <= self.half_width
        allowed = near if allowed is None else ops.logical_and(near, allowed)
        if self.window == "local_m":
            return allowed, None
        factors = ops.exp(-2 * ops.square(distance / self.half_width))
        return allowed, ops.cast(factors, self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "score": self.score,
            "window": self.window,
            "half_width": self.half_width,
            "memory_size": self.memory_size,
        }
