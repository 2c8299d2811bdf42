"""Attention without a query: a sequence to one vector."""

import keras
from keras import ops

from unroll.layers.attention.scores import masked_softmax


@keras.saving.register_keras_serializable(package="unroll")
class AttentionPool(keras.layers.Layer):
    """The weighted mean of a sequence, with weights that it learns to give.

    Yang et al. 2016, "Hierarchical attention networks for document classification", equations 5
    to 7. With h_t the t-th vector:

        u_t = tanh(W h_t + b)
        a_t = exp(u_t . v) / sum over t of exp(u_t . v)
        s = sum over t of a_t h_t

    Args:
        units: U, the size of u.
        kernel_initializer, bias_initializer, context_initializer: of W, b and v.
        kernel_regularizer: of W.

    Call arguments:
        sequences: `[B, T, D]`.
        mask: `[B, T]`, boolean. A step where it is False has the weight zero; a sequence with no
            step left has the zero vector.

    Returns:
        A tuple of s, `[B, D]`, and the weights a, `[B, T]`.

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
        units,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        context_initializer="glorot_uniform",
        kernel_regularizer=None,
        **kwargs,
    ):
        if not isinstance(units, int) or units < 1:
            raise ValueError(f"units must be an integer of at least 1, got {units!r}.")
        super().__init__(**kwargs)
        self.units = units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.context_initializer = keras.initializers.get(context_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.supports_masking = True

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units),
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
        u = ops.tanh(ops.matmul(sequences, self.kernel) + self.bias)  # [B, T, U]
        scores = ops.squeeze(ops.matmul(u, self.context), -1)  # [B, T]
        weights = masked_softmax(scores, mask)  # [B, T]
        pooled = ops.squeeze(ops.matmul(ops.expand_dims(weights, 1), sequences), 1)  # [B, D]
        return pooled, weights

    def compute_output_shape(self, sequences_shape):
        batch, time, width = sequences_shape
        return (batch, width), (batch, time)

    def compute_mask(self, inputs, mask=None):
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
