"""Additive attention."""

import keras
from keras import ops

from unroll.layers.attention.base import Attention
from unroll.layers.attention.scores import additive
from unroll.layers.backend import product
from unroll.layers.operations import add_bias, cast_to, full_precision, require_size


@keras.saving.register_keras_serializable(package="unroll")
class BahdanauAttention(Attention):
    """Additive attention: the score is a small network with one hidden layer.

    Bahdanau, Cho and Bengio 2015, "Neural machine translation by jointly learning to align and
    translate", equations 5 and 6 and section A.1.2. With the query q and the memory m_1, ..., m_S:

        e_s = v . tanh(W_q q + W_k m_s)
        a_s = exp(e_s) / sum_s exp(e_s)
        c = sum_s a_s m_s

    With `normalize`, v has a length of its own and the hidden layer a bias (Salimans and Kingma
    2016, "Weight normalization", equation 2, as Raffel et al. 2017 use it):

        e_s = g v / |v| . tanh(W_q q + W_k m_s + b)

    Args:
        units: U, the size of the hidden layer.
        kernel_initializer: the initializer of W_q, W_k and v.
        normalize: whether to normalize v. g starts at 1 / sqrt(U), and b at zero.

    Call arguments:
        query: `[B, Q]`, or `[B, T, Q]` for T queries.
        memory: `[B, S, D]`.
        keys: `[B, S, U]`, the keys from `prepare(memory, memory_mask)`, if `memory` comes from
            there too; computed by default.
        query_mask: `[B, T]`, boolean, for T queries. The context of a query where it is False is
            zero. By default the mask that the query carries.
        memory_mask: `[B, S]`, boolean. A position where it is False gets the weight zero, and its
            values have no effect. If it is False at all positions, the context is zero. By default
            the mask that the memory carries.

    Returns:
        A tuple of the context c, `[B, D]`, and the attention weights a, `[B, S]`; for T queries
        `[B, T, D]` and `[B, T, S]`. The context carries the mask that the query carries.

    Raises:
        ValueError: if `units` is below one, or the query or the memory has another rank.

    >>> import numpy as np
    >>> from unroll.layers import BahdanauAttention
    >>> query, memory = np.ones((2, 6), "float32"), np.ones((2, 5, 3), "float32")
    >>> context, weights = BahdanauAttention(8)(query, memory)
    >>> context.shape, weights.shape
    (TensorShape([2, 3]), TensorShape([2, 5]))

    Differs from the paper: nothing.
    """

    def __init__(
        self,
        units: int,
        kernel_initializer="glorot_uniform",
        normalize: bool = False,
        **kwargs,
    ):
        super().__init__(kernel_initializer, **kwargs)
        self.units = require_size("units", units)
        self.normalize = normalize

    def build(self, query_shape, memory_shape):
        self.check_shapes(query_shape, memory_shape)
        self.query_kernel = self.add_kernel("query_kernel", (query_shape[-1], self.units))
        self.key_kernel = self.add_kernel("key_kernel", (memory_shape[-1], self.units))
        self.scale = self.add_kernel("scale", (self.units, 1))
        if self.normalize:
            self.gain = self.add_weight(
                name="gain",
                shape=(),
                initializer=keras.initializers.Constant(self.units**-0.5),
            )
            self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")

    def project_keys(self, memory):
        return ops.matmul(memory, ops.cast(self.key_kernel, memory.dtype))  # [B, S, U]

    def scores(self, queries, keys):
        queries, scale = product(queries, self.query_kernel), self.scale[:, 0]  # [B, T, U], [U]
        if self.normalize:
            queries, v = add_bias(queries, self.bias), full_precision(scale)
            gain = full_precision(ops.convert_to_tensor(self.gain))
            v = gain * v * ops.rsqrt(ops.sum(ops.square(v)))
            scale = cast_to(v, scale.dtype)
        return additive(queries, keys, scale)  # [B, T, S]

    def get_config(self):
        return {**super().get_config(), "units": self.units, "normalize": self.normalize}
