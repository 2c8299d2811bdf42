"""Attention of a question to the regions of an image."""

import math

import keras
from keras import ops

from unroll.layers.attention.scores import masked_softmax
from unroll.layers.initializers import clone_initializer
from unroll.layers.masks import zero_masked
from unroll.layers.operations import add_bias, full_precision, require_size


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
        question_mask: `[B, N]`, boolean, for N questions. The attended vector of a question where
            it is False is zero. By default the mask that the question carries.
        regions_mask: `[B, S]` or `[B, H, W]`, boolean. A region where it is False gets the weight
            zero, and its values have no effect. By default the mask that the regions carry.

    Returns:
        A tuple of the attended vectors of all glimpses, concatenated, `[B, glimpses * D]` (with
        `count_features` `[B, glimpses * 2 * D]`), and the attention weights a, `[B, glimpses, S]`
        or `[B, glimpses, H, W]`. For N questions both have N as the second axis, and the attended
        vectors carry the mask that the question carries.

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
        super().__init__(**kwargs)
        self.units = require_size("units", units)
        self.glimpses = require_size("glimpses", glimpses)
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

    def call(self, question, regions, question_mask=None, regions_mask=None):
        is_single = len(question.shape) == 2
        questions = ops.expand_dims(question, 1) if is_single else question  # [B, N, Q]
        (batch, *grid), count = ops.shape(regions)[:-1], ops.shape(questions)[1]
        size = math.prod(grid)  # S
        regions = ops.reshape(regions, (batch, size, regions.shape[-1]))  # [B, S, D]
        mask = None
        if regions_mask is not None:
            mask = ops.reshape(ops.cast(regions_mask, "bool"), (batch, size))
            regions = zero_masked(regions, mask)
            mask = ops.reshape(mask, (batch, 1, 1, size))
        scores = self._scores(questions, regions)  # [B, N, glimpses, S], float32
        weights = ops.cast(masked_softmax(scores, mask), regions.dtype)
        shape = (batch, count * self.glimpses, size)
        attended = ops.matmul(ops.reshape(weights, shape), regions)  # [B, N * glimpses, D]
        if self.count_features:
            gates = ops.cast(self._gates(scores, mask), regions.dtype)
            sums = ops.matmul(ops.reshape(gates, shape), regions)
            attended = ops.concatenate([attended, sums], axis=-1)
        attended = ops.reshape(attended, (batch, count, self.glimpses * attended.shape[-1]))
        weights = ops.reshape(weights, (batch, count, self.glimpses, *grid))
        if is_single:
            attended, weights = ops.squeeze(attended, 1), ops.squeeze(weights, 1)
        return zero_masked(attended, question_mask), weights

    def _scores(self, questions, regions):
        """e of questions `[B, N, Q]` and regions `[B, S, D]`, `[B, N, glimpses, S]`, float32."""
        (batch, size), count = ops.shape(regions)[:2], ops.shape(questions)[1]
        v, q = ops.matmul(regions, self.region_kernel), ops.matmul(questions, self.question_kernel)
        v = self.activation(add_bias(v, self.region_bias))  # [B, S, U]
        q = self.activation(add_bias(q, self.question_bias))  # [B, N, U]
        v = ops.transpose(v, (0, 2, 1))  # [B, U, S]
        # w . (v * q) is v . (q * w): the products p of all regions and questions are not needed.
        scaled = ops.expand_dims(q, 2) * ops.transpose(self.scale)  # [B, N, glimpses, U]
        scaled = ops.reshape(scaled, (batch, count * self.glimpses, self.units))
        scores = ops.reshape(ops.matmul(scaled, v), (batch, count, self.glimpses, size))
        scores = full_precision(scores)
        if not self.normalize:
            return scores
        q, v = (ops.square(x) for x in full_precision((q, v)))
        squares = ops.expand_dims(ops.matmul(q, v), 2)  # [B, N, 1, S]
        # The constant keeps the gradient finite where a product is zero.
        return scores * ops.rsqrt(squares + 1e-6)

    def _gates(self, scores, mask):
        """sigmoid(e_gi + b_g) / sqrt(S), `[B, N, glimpses, S]`, zero where the mask is False."""
        gates = ops.sigmoid(scores + ops.cast(self.gate_bias, scores.dtype))
        exists = ops.ones_like(scores[:, :1, :1])  # [B, 1, 1, S]
        if mask is not None:
            exists = ops.cast(mask, scores.dtype)
        number = ops.maximum(ops.sum(exists, axis=-1, keepdims=True), 1)
        return gates * exists * ops.rsqrt(number)

    def compute_output_shape(self, question_shape, regions_shape):
        rows, (_, *grid, size) = tuple(question_shape[:-1]), regions_shape
        features = self.glimpses * size * (2 if self.count_features else 1)
        return (*rows, features), (*rows, self.glimpses, *grid)

    def compute_mask(self, question, mask=None):
        return [mask, None]

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
