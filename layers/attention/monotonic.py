"""Monotonic attention."""

import keras
from keras import ops

from unroll.layers.attention.base import Attention, Exact
from unroll.layers.checkpoints import serialize_unbuilt
from unroll.layers.dtype_policies import with_policy
from unroll.layers.operations import LOG_ZERO, cast_to, full_precision, log_sigmoid
from unroll.layers.recurrent.linear_recurrence import linear_recurrence
from unroll.layers.recurrent.recurrence import scan

MODES = ("parallel", "recursive", "hard")
# What the products of 1 - p are divided by is at least this, in the mode "parallel".
LEAST_DIVISOR = 1e-10


@keras.saving.register_keras_serializable(package="unroll")
class MonotonicAttention(Attention):
    """Attention that never moves back, with the scores of another attention.

    Raffel, Luong, Liu, Weiss and Eck 2017, "Online and linear-time attention by enforcing monotonic
    alignments", section 2. A query starts at the position that the query before it chose, and moves
    on until it chooses a position, each with the probability p. The weights a are the probabilities
    that it chooses each position. With the scores e of the other attention:

        p_j = sigmoid(e_j + r + noise), where the noise is in training only
        q_j = (1 - p_{j-1}) q_{j-1} + a_j of the query before
        a_j = p_j q_j

    The first query starts at the first position. If no position is chosen, the weights are zero,
    and so are those of all later queries. With the mode "hard", p is 1 where the score is above
    zero, and 0 elsewhere: the memory can then be read while it arrives.

    Train with "parallel" or "recursive", and decode with "hard" if you need it: the modes have the
    same weights, so that `set_weights` copies them to a model with another mode.

    Args:
        attention: an attention with the method `scores`, such as `BahdanauAttention(64,
            normalize=True)` (as in the paper) or a `LuongAttention` with the window "global". It
            also makes the vectors from the weights. Created without a `dtype`, it gets the dtype
            policy of this layer.
        mode: `"parallel"` computes q by cumulative sums and products: fast, but not exact where the
            product of 1 - p along the memory is below 1e-10. `"recursive"` computes it step by
            step; it has no second derivatives under XLA on TensorFlow. `"hard"` has no gradient of
            the scores.
        sigmoid_noise: the standard deviation of the noise in training, which teaches the model to
            have p near 0 and 1.
        kernel_initializer: the initializer of r, the only weight of this layer. A negative number,
            such as `keras.initializers.Constant(-4.0)`, suits long memories.
        seed: the random seed of the noise.

    Call arguments:
        query: `[B, Q]`, or `[B, T, Q]` for T queries.
        memory: `[B, S, D]`.
        keys: the keys from `prepare(memory, memory_mask)`, if `memory` comes from there too;
            computed by default.
        query_mask: `[B, T]`, boolean, for T queries. The vector of a query where it is False is
            zero. By default the mask that the query carries.
        memory_mask: `[B, S]`, boolean. A position where it is False is never chosen, and its values
            have no effect. By default the mask that the memory carries.
        previous: the weights of the query before, `[B, S]`; for T queries `[B, T, S]`, those before
            each of them. By default the queries are the first T of a sequence, in order.
        training: whether there is noise.
        noise: `[B, T, S]`, standard normal numbers in place of random ones.

    Returns:
        A tuple of the vectors, `[B, output_size(D)]`, and the attention weights, `[B, S]`; for T
        queries with T as the second axis. The vectors carry the mask that the query carries.

    Raises:
        ValueError: if `attention` has no scores, or a local window; if `mode` is not one of these
            values, or `sigmoid_noise` is below 0.

    >>> import numpy as np
    >>> from unroll import layers
    >>> attention = layers.MonotonicAttention(layers.BahdanauAttention(8, normalize=True))
    >>> queries, memory = np.ones((2, 4, 6), "float32"), np.ones((2, 5, 3), "float32")
    >>> context, weights = attention(queries, memory)
    >>> context.shape, weights.shape
    (TensorShape([2, 4, 3]), TensorShape([2, 4, 5]))

    Differs from the paper: nothing.
    """

    uses_previous = True

    def __init__(
        self,
        attention: Attention,
        mode: str = "parallel",
        sigmoid_noise: float = 0.0,
        kernel_initializer="zeros",
        seed: int | None = None,
        **kwargs,
    ):
        label = type(self).__name__
        if not isinstance(attention, Attention) or type(attention).scores is Attention.scores:
            raise ValueError(
                f"{label}: attention must be an Attention with scores, such as a "
                f"BahdanauAttention, got {attention!r}."
            )
        if getattr(attention, "window", "global") != "global":
            raise ValueError(
                f"{label}: attention must have the window 'global', got {attention.window!r}."
            )
        if mode not in MODES:
            raise ValueError(f"{label}: mode must be one of {', '.join(MODES)}, got {mode!r}.")
        if not sigmoid_noise >= 0:
            raise ValueError(f"{label}: sigmoid_noise must be 0 or more, got {sigmoid_noise!r}.")
        super().__init__(kernel_initializer, **kwargs)
        self.attention = with_policy(attention, self.dtype_policy)
        self.mode = mode
        self.sigmoid_noise = sigmoid_noise
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, query_shape, memory_shape):
        self.check_shapes(query_shape, memory_shape)
        if not self.attention.built:
            self.attention.build(query_shape, memory_shape)
        self.score_bias = self.add_kernel("score_bias", ())

    def project_keys(self, memory):
        return self.attention.project_keys(memory)

    def output_size(self, memory_size):
        return self.attention.output_size(memory_size)

    def noise(self, shape):
        """Random numbers for scores of a shape, or None if there is no noise."""
        if not self.sigmoid_noise:
            return None
        return keras.random.normal(shape, seed=self.seed_generator, dtype="float32")

    def initial_weights(self, rows, length):
        """The weights before the first query, all on the first position: `[rows, length]`.

        They have float32 where the compute dtype is a half precision, as those that follow.
        """
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        first = ops.cast(ops.arange(length) == 0, dtype)
        return ops.zeros((rows, length), dtype) + first

    def call(
        self,
        query,
        memory,
        keys=None,
        query_mask=None,
        memory_mask=None,
        previous=None,
        training=False,
        noise=None,
    ) -> tuple:
        options = {"previous": previous, "noise": noise}
        rows = (ops.shape(query)[0], ops.shape(query)[1] if len(query.shape) == 3 else 1)
        if noise is None and training:
            options["noise"] = self.noise((*rows, ops.shape(memory)[1]))
        return self.attend_to(query, memory, keys, query_mask, memory_mask, **options)

    def attend(self, queries, memory, keys, mask, previous=None, noise=None):
        scores = full_precision(self.attention.scores(queries, keys))  # [B, T, S]
        scores = scores + full_precision(ops.convert_to_tensor(self.score_bias))
        if noise is not None:
            scores = scores + self.sigmoid_noise * cast_to(noise, scores.dtype)
        if mask is not None:
            scores = ops.where(mask[:, None], scores, LOG_ZERO)
        dtype = self.compute_dtype
        if isinstance(previous, Exact):
            previous, dtype = previous.tensor, scores.dtype
        if previous is None:
            weights = self._of_a_sequence(scores)
        else:
            previous = ops.reshape(cast_to(previous, scores.dtype), ops.shape(scores))
            weights = monotonic_weights(scores, previous, self.mode)
        weights_of_vectors = cast_to(weights, self.compute_dtype)
        vectors = self.attention.vectors(weights_of_vectors, queries, memory)
        return vectors, cast_to(weights, dtype)

    def _of_a_sequence(self, scores):
        """The weights `[B, T, S]` of queries that follow each other."""
        batch, length = ops.shape(scores)[0], ops.shape(scores)[2]
        first = self.initial_weights(batch, length)[:, None]  # [B, 1, S]
        if scores.shape[1] == 1:
            return monotonic_weights(scores, first, self.mode)

        def step(carry, xs, constants):
            weights = monotonic_weights(xs[0], carry[0], self.mode)
            return (weights,), (weights,)

        scores = ops.transpose(scores, (1, 0, 2))[:, :, None]  # [T, B, 1, S]
        _, (weights,) = scan(step, (cast_to(first, scores.dtype),), (scores,), (), ())
        return ops.transpose(weights[:, :, 0], (1, 0, 2))

    def get_config(self):
        return {
            **super().get_config(),
            "attention": serialize_unbuilt(self.attention),
            "mode": self.mode,
            "sigmoid_noise": self.sigmoid_noise,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        attention = keras.saving.deserialize_keras_object(config["attention"])
        return cls(**{**config, "attention": attention})


def monotonic_weights(scores, previous, mode: str):
    """The weights of a query from its scores and the weights of the query before.

    Args:
        scores: `[B, T, S]`, float32 or float64, very low at positions that are never chosen.
        previous: `[B, T, S]`.
        mode: as in `MonotonicAttention`.
    """
    if mode == "hard":
        chosen = ops.logical_and(scores > 0, ops.cumsum(previous, axis=-1) > 0)
        chosen = ops.cast(chosen, scores.dtype)
        return ops.where(ops.cumsum(_shifted(chosen), axis=-1) == 0, chosen, 0.0)
    p, passed = ops.sigmoid(scores), ops.sigmoid(-scores)
    if mode == "recursive":
        # Not transposed, whose second derivative does not compile under XLA in a loop.
        factors, terms = (ops.einsum("bts->sbt", x) for x in (_shifted(passed), previous))
        q, _ = linear_recurrence(factors, terms)  # [S, B, T]
        return p * ops.einsum("sbt->bts", q)
    products = ops.exp(ops.cumsum(_shifted(log_sigmoid(-scores)), axis=-1))
    return p * products * ops.cumsum(previous / ops.maximum(products, LEAST_DIVISOR), axis=-1)


def _shifted(x):
    """`x` `[..., S]` one position later, with zero at the first one."""
    return ops.concatenate([ops.zeros_like(x[..., :1]), x[..., :-1]], axis=-1)
