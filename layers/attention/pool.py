"""Attention pooling: a sequence to one vector."""

import keras
from keras import ops

from unroll.layers.attention.scores import masked_softmax
from unroll.layers.masks import zero_masked
from unroll.layers.operations import add_bias, require_size


@keras.saving.register_keras_serializable(package="unroll")
class AttentionPool(keras.layers.Layer):
    """The weighted mean of a sequence, with learned weights.

    Yang et al. 2016, "Hierarchical attention networks for document classification", equations 5
    to 7. With the sequence h_1, ..., h_T:

        u_t = tanh(W h_t + b)
        a_t = exp(u_t . v) / sum_t exp(u_t . v)
        s = sum_t a_t h_t

    Args:
        units: U, the size of u.
        kernel_initializer: the initializer of W.
        bias_initializer: the initializer of b.
        context_initializer: the initializer of v.
        kernel_regularizer: the regularizer of W.

    Call arguments:
        sequences: `[B, T, D]`.
        mask: `[B, T]`, boolean. A step where it is False gets the weight zero, and its values have
            no effect. If it is False at all steps, s is zero.

    Returns:
        A tuple of s, `[B, D]`, and the attention weights a, `[B, T]`.

    Raises:
        ValueError: if `units` is below one.

    >>> import numpy as np
    >>> from unroll.layers import AttentionPool
    >>> vector, weights = AttentionPool(8)(np.ones((2, 5, 3), "float32"))
    >>> vector.shape, weights.shape
    (TensorShape([2, 3]), TensorShape([2, 5]))

    Differs from the paper: nothing.
    """

    def __init__(
        self,
        units: int,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        context_initializer="glorot_uniform",
        kernel_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = require_size("units", units)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.context_initializer = keras.initializers.get(context_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.supports_masking = True

    def build(self, sequences_shape):
        self.kernel = self.add_weight(
            shape=(sequences_shape[-1], self.units),
            name="kernel",
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        self.bias = self.add_weight(
            shape=(self.units,), name="bias", initializer=self.bias_initializer
        )
        self.context = self.add_weight(
            shape=(self.units, 1), name="context", initializer=self.context_initializer
        )

    def call(self, sequences, mask=None):
        sequences = zero_masked(sequences, mask)
        u = ops.tanh(add_bias(ops.matmul(sequences, self.kernel), self.bias))  # [B, T, U]
        scores = ops.squeeze(ops.matmul(u, self.context), -1)  # [B, T]
        weights = masked_softmax(scores, mask)  # [B, T]
        pooled = ops.squeeze(ops.matmul(ops.expand_dims(weights, 1), sequences), 1)  # [B, D]
        return pooled, weights

    def compute_output_shape(self, sequences_shape):
        batch, time, width = sequences_shape
        return (batch, width), (batch, time)

    def compute_mask(self, sequences, mask=None):
        return [None, None]

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "context_initializer": keras.initializers.serialize(self.context_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
