"""Attention of a question to the regions of an image."""

import keras
from keras import ops

from unroll.layers.attention.scores import masked_softmax
from unroll.layers.initializers import clone_initializer
from unroll.layers.operations import require_size


@keras.saving.register_keras_serializable(package="unroll")
class QuestionGuidedAttention(keras.layers.Layer):
    """A question attends to the regions of an image: detected objects, or the cells of a grid.

    Kim et al. 2017, "Hadamard product for low-rank bilinear pooling", equations 8 and 9, with the
    normalized product of Fukui et al. 2016, "Multimodal compact bilinear pooling for visual
    question answering and visual grounding". With regions v_1, ..., v_S, a question q and the
    glimpse g:

        p_i = tanh(V v_i + b) * tanh(W q + d), then p_i / |p_i|
        e_gi = w_g . p_i
        a_gi = softmax_i(e_gi)
        attended_g = sum_i a_gi v_i

    Weights that add up to one describe what the regions are like, but not their number. With
    `count_features` the result also contains gated sums, which do (Zhang et al. 2018, "Learning to
    count objects in natural images for visual question answering", section 3):

        t_g = sum_i sigmoid(e_gi + b_g) v_i / sqrt(S)

    Args:
        units: U, the size of p.
        glimpses: the number of attention distributions.
        normalize: whether to normalize p to length one.
        activation: the activation of both factors of p.
        kernel_initializer: the initializer of V and W.
        scale_initializer: the initializer of w. With `normalize` the scores are small, so that all
            regions have almost the same weight at the start; a standard deviation of one makes the
            weights differ.
        count_features: whether to append t_g to each attended_g.

    Call arguments:
        question: `[B, Q]`, or N questions about each image, `[B, N, Q]`.
        regions: `[B, S, D]`, or a grid `[B, H, W, D]`.
        mask: `[B, S]` or `[B, H, W]`, boolean. A region where it is False gets the weight zero.

    Returns:
        A tuple of the attended vectors of all glimpses, concatenated, `[B, glimpses * D]` (with
        `count_features` `[B, glimpses * 2 * D]`), and the attention weights a, `[B, glimpses, S]`
        or `[B, glimpses, H, W]`. For N questions both have N as the second axis.

    Raises:
        ValueError: if a size is below one, or the question or the regions have another rank.

    >>> import numpy as np
    >>> from unroll.layers import QuestionGuidedAttention
    >>> question, grid = np.ones((2, 6), "float32"), np.ones((2, 4, 5, 3), "float32")
    >>> attended, weights = QuestionGuidedAttention(8, glimpses=2)(question, grid)
    >>> attended.shape, weights.shape
    (TensorShape([2, 6]), TensorShape([2, 2, 4, 5]))

    Differs from the papers: there is no shortcut connection around the attention.
    """

    def __init__(
        self,
        units: int,
        glimpses: int = 1,
        normalize: bool = True,
        activation="tanh",
        kernel_initializer="glorot_uniform",
        scale_initializer="glorot_uniform",
        count_features: bool = False,
        **kwargs,
    ):
        require_size("units", units)
        require_size("glimpses", glimpses)
        super().__init__(**kwargs)
        self.units = units
        self.glimpses = glimpses
        self.normalize = normalize
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.scale_initializer = keras.initializers.get(scale_initializer)
        self.count_features = count_features

    def build(self, question_shape, regions_shape):
        if len(question_shape) not in (2, 3) or len(regions_shape) not in (3, 4):
            raise ValueError(
                f"{type(self).__name__} expects a question [B, Q] or [B, N, Q] and regions "
                f"[B, S, D] or [B, H, W, D], got {tuple(question_shape)} and "
                f"{tuple(regions_shape)}."
            )
        self.region_kernel, self.question_kernel = (
            self.add_weight(
                name=f"{name}_kernel",
                shape=(shape[-1], self.units),
                initializer=clone_initializer(self.kernel_initializer),
            )
            for name, shape in (("region", regions_shape), ("question", question_shape))
        )
        self.scale = self.add_weight(
            name="scale", shape=(self.units, self.glimpses), initializer=self.scale_initializer
        )
        self.region_bias, self.question_bias = (
            self.add_weight(name=f"{name}_bias", shape=(self.units,), initializer="zeros")
            for name in ("region", "question")
        )
        if self.count_features:
            # The gates start almost closed, so that t is about as large as the attended vector.
            self.gate_bias = self.add_weight(
                name="gate_bias",
                shape=(self.glimpses, 1),
                initializer=keras.initializers.Constant(-2.0),
            )

    def call(self, question, regions, mask=None):
        if len(question.shape) == 2:
            attended, weights = self.call(ops.expand_dims(question, 1), regions, mask)
            return ops.squeeze(attended, 1), ops.squeeze(weights, 1)
        (batch, *grid), count = ops.shape(regions)[:-1], ops.shape(question)[1]
        regions = ops.reshape(regions, (batch, -1, regions.shape[-1]))  # [B, S, D]
        scores = self._scores(question, regions)  # [B, N, glimpses, S]
        if mask is not None:
            mask = ops.reshape(mask, (batch, 1, 1, -1))
        weights = masked_softmax(scores, mask)  # [B, N, glimpses, S]
        flat = ops.reshape(weights, (batch, -1, ops.shape(regions)[1]))
        attended = ops.matmul(flat, regions)  # [B, N * glimpses, D]
        if self.count_features:
            sums = self._gated_sums(scores, regions, mask)
            attended = ops.concatenate([attended, sums], axis=-1)
        attended = ops.reshape(attended, (batch, count, self.glimpses * attended.shape[-1]))
        return attended, ops.reshape(weights, (batch, count, self.glimpses, *grid))

    def _scores(self, question, regions):
        """e of questions `[B, N, Q]` and regions `[B, S, D]`, `[B, N, glimpses, S]`."""
        batch, count = ops.shape(question)[:2]
        v = self.activation(ops.matmul(regions, self.region_kernel) + self.region_bias)
        q = self.activation(ops.matmul(question, self.question_kernel) + self.question_bias)
        v = ops.transpose(v, (0, 2, 1))  # [B, U, S]
        # w . (v * q) is v . (q * w): the products p of all regions and questions are not needed.
        scaled = ops.expand_dims(q, 2) * ops.transpose(self.scale)  # [B, N, glimpses, U]
        scores = ops.matmul(ops.reshape(scaled, (batch, -1, self.units)), v)
        scores = ops.reshape(scores, (batch, count, self.glimpses, ops.shape(v)[-1]))
        if not self.normalize:
            return scores
        squares = ops.expand_dims(ops.matmul(q * q, v * v), 2)  # [B, N, 1, S]
        # The constant keeps the gradient finite where a product is zero.
        return scores * ops.rsqrt(squares + 1e-6)

    def _gated_sums(self, scores, regions, mask):
        """t from scores `[B, N, glimpses, S]` and regions `[B, S, D]`, `[B, N * glimpses, D]`."""
        gates = ops.sigmoid(scores + self.gate_bias)
        exists = ops.ones_like(scores[:, :1, :1])
        if mask is not None:
            exists = ops.cast(mask, scores.dtype)  # [B, 1, 1, S]
        number = ops.maximum(ops.sum(exists, axis=-1, keepdims=True), 1)
        gates = gates * exists * ops.rsqrt(number)
        shape = (ops.shape(regions)[0], -1, ops.shape(regions)[1])
        return ops.matmul(ops.reshape(gates, shape), regions)

    def compute_mask(self, *args, **kwargs):
        return [None, None]

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "glimpses": self.glimpses,
            "normalize": self.normalize,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "scale_initializer": keras.initializers.serialize(self.scale_initializer),
            "count_features": self.count_features,
        }
