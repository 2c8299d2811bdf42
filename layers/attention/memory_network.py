"""An end-to-end memory network."""

import keras
from keras import ops

from unroll.layers.attention.scores import masked_softmax
from unroll.layers.checkpoints import load_own_variables
from unroll.layers.initializers import clone_initializer
from unroll.layers.masks import zero_masked
from unroll.layers.operations import full_precision, require_size


@keras.saving.register_keras_serializable(package="unroll")
class MemoryNetwork(keras.layers.Layer):
    """Attends to a memory of facts in several hops, each with the result of the previous hop.

    Sukhbaatar et al. 2015, "End-to-end memory networks", equations 1 to 3 and section 4.1. With
    facts x_1, ..., x_S and a question q, each a bag of words or a vector:

        u_1 = B q
        m_i = A_k x_i + T^A_k(i),  c_i = C_k x_i + T^C_k(i)
        p_i = softmax_i(u_k . m_i)
        o = sum_i p_i c_i
        u_{k+1} = u_k + o, for k = 1, ..., K
        logits = W u_{K+1}

    The memory has `memory_size` slots. In empty slots m and c are zero; they count in the softmax,
    so that a hop can attend to nothing.

    With tying "adjacent" A_{k+1} = C_k, B = A_1 and W^T = C_K. With tying "layer_wise" all A_k are
    equal, all C_k are equal, and u_{k+1} = H u_k + o. The temporal encoding T is tied as A and C;
    its index i counts backwards from the last fact.

    A fact of the words j_1, ..., j_J is the sum of l_j * A(j). With position encoding l_j is
    2 (1 - j/J) - 2 (d/U) (1 - 2 j/J) in the d-th unit, where j and d count from 1; otherwise 1.

    Args:
        units: U, the size of u.
        hops: K.
        vocabulary_size: V. Facts and question are then ids of words, with 0 for padding. By default
            they are vectors.
        tying: `"adjacent"` or `"layer_wise"`.
        position_encoding: whether the order of the words in a fact matters.
        memory_size: the number of slots, and the maximum number of facts, whose order then matters
            (temporal encoding). By default there are no empty slots and the order does not matter.
        noise: the probability, in training, that an empty fact follows a fact (the random noise of
            the paper), which increases the age of the facts before it. It needs a `memory_size`.
        linear_start: whether to start without the softmax of the hops. `linear.assign(0.0)` adds
            the softmax; the paper does so when the validation loss stops decreasing.
        return_logits: whether to return the logits of all words instead of u_{K+1}. It needs a
            `vocabulary_size`.
        kernel_initializer: the initializer of all weights.
        seed: the seed of the noise.

    Call arguments:
        facts: `[B, S, J]`, integers, or `[B, S, D]`.
        question: `[B, J']`, integers, or `[B, D]`.
        facts_mask: `[B, S]`, boolean. A fact where it is False gets the weight zero and no slot,
            and its values have no effect. If it is False for all facts, o is zero. By default the
            mask that vectors carry.
        training: whether to apply the noise.

    Returns:
        A tuple of u_{K+1}, `[B, U]` (or the logits, `[B, V]`), and the attention weights p,
        `[B, K, S]`. With a `memory_size` the weights may add up to less than one: the rest is the
        weight of the empty slots.

    Raises:
        ValueError: if an argument is out of its range or lacks another, or the facts or the
            question have another rank, or there are more facts than `memory_size`, masked ones
            included. In a graph with an unknown number of facts, all that do not fit get the age of
            the oldest.

    >>> import numpy as np
    >>> from unroll.layers import MemoryNetwork
    >>> facts, question = np.array([[[3, 7, 4], [5, 7, 6]]]), np.array([[8, 3]])
    >>> network = MemoryNetwork(20, vocabulary_size=50, memory_size=10, return_logits=True)
    >>> logits, weights = network(facts, question)
    >>> logits.shape, weights.shape
    (TensorShape([1, 50]), TensorShape([1, 3, 2]))

    Differs from the paper: l_j is twice as large, so that a word counts the same on average with
    and without position encoding. This and the empty slots follow the program of the authors.
    """

    def __init__(
        self,
        units: int,
        hops: int = 3,
        vocabulary_size: int | None = None,
        tying: str = "adjacent",
        position_encoding: bool = True,
        memory_size: int | None = None,
        noise: float = 0.0,
        linear_start: bool = False,
        return_logits: bool = False,
        kernel_initializer="glorot_uniform",
        seed: int | None = None,
        **kwargs,
    ):
        units, hops = require_size("units", units), require_size("hops", hops)
        if vocabulary_size is not None:
            vocabulary_size = require_size("vocabulary_size", vocabulary_size)
        if memory_size is not None:
            memory_size = require_size("memory_size", memory_size)
        if tying not in ("adjacent", "layer_wise"):
            raise ValueError(f"tying must be 'adjacent' or 'layer_wise', got {tying!r}.")
        if not 0 <= noise < 1:
            raise ValueError(f"noise must be at least 0 and below 1, got {noise!r}.")
        if noise and memory_size is None:
            raise ValueError(f"noise={noise!r} needs a memory_size, got None.")
        if return_logits and vocabulary_size is None:
            raise ValueError("return_logits=True needs a vocabulary_size, got None.")
        super().__init__(**kwargs)
        self.units = units
        self.hops = hops
        self.vocabulary_size = vocabulary_size
        self.tying = tying
        self.position_encoding = position_encoding
        self.memory_size = memory_size
        self.noise = noise
        self.linear_start = linear_start
        self.return_logits = return_logits
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.seed = seed
        self.linear = None
        if noise:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def build(self, facts_shape, question_shape):
        self._check_shapes(tuple(facts_shape), tuple(question_shape))
        rows = self.vocabulary_size or facts_shape[-1]

        def add(name, *shape):
            return self.add_weight(
                name=name, shape=shape, initializer=clone_initializer(self.kernel_initializer)
            )

        def add_all(name, *shape):
            """A_1, C_1, C_2, ..., C_K with adjacent tying; otherwise A and C."""
            count = self.hops + 1 if self.tying == "adjacent" else 2
            return [add(f"{name}_{k}", *shape) for k in range(count)]

        self.kernels = add_all("kernel", rows, self.units)
        self.temporal_encodings = []
        if self.memory_size:
            shape = (self.memory_size, self.units)
            self.temporal_encodings = add_all("temporal_encoding", *shape)
        if self.tying == "layer_wise":
            self.question_kernel = add("question_kernel", rows, self.units)
            self.state_kernel = add("state_kernel", self.units, self.units)
            if self.return_logits:
                self.output_kernel = add("output_kernel", self.units, rows)
        if self.linear_start:
            self.linear = self.add_weight(
                name="linear", shape=(), initializer="ones", trainable=False
            )

    def _check_shapes(self, facts_shape: tuple, question_shape: tuple):
        if len(facts_shape) != 3 or len(question_shape) != 2:
            raise ValueError(
                f"{type(self).__name__} expects facts of rank 3 and a question of rank 2, got "
                f"{facts_shape} and {question_shape}."
            )
        self._check_count(facts_shape[1])

    def _check_count(self, count: int | None):
        if self.memory_size and count is not None and count > self.memory_size:
            raise ValueError(
                f"{type(self).__name__} with memory_size={self.memory_size} accepts at most "
                f"{self.memory_size} facts, got {count}."
            )

    def call(self, facts, question, facts_mask=None, training=False):
        self._check_count(facts.shape[1])
        mask = None if facts_mask is None else ops.cast(facts_mask, "bool")
        facts = zero_masked(facts, mask)
        ages = num_empty = None
        if self.memory_size:
            if mask is None:
                mask = ops.ones(ops.shape(facts)[:2], "bool")
            ages = self._ages(mask, training)
            num_facts = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True)
            num_empty = self.memory_size - num_facts  # [B, 1]
        layer_wise = self.tying == "layer_wise"
        u = self._encode(question, self.question_kernel if layer_wise else self.kernels[0])
        encoded, all_weights = {}, []

        def encode_facts(k):
            """The facts by the k-th of the tied weights, which two hops may share."""
            if k not in encoded:
                encoded[k] = self._encode(facts, self.kernels[k])  # [B, S, U]
                if ages is not None:
                    encoding = ops.convert_to_tensor(self.temporal_encodings[k])
                    encoded[k] = encoded[k] + ops.take(encoding, ages, axis=0)
            return encoded[k]

        for hop in range(self.hops):
            m = encode_facts(0 if layer_wise else hop)
            c = encode_facts(1 if layer_wise else hop + 1)
            scores = ops.squeeze(ops.matmul(m, ops.expand_dims(u, -1)), -1)  # [B, S]
            weights = self._weights(scores, mask, num_empty)
            all_weights.append(weights)
            o = ops.squeeze(ops.matmul(ops.expand_dims(weights, 1), c), 1)  # [B, U]
            u = (ops.matmul(u, self.state_kernel) if layer_wise else u) + o
        if self.return_logits and layer_wise:
            u = ops.matmul(u, self.output_kernel)
        elif self.return_logits:
            u = ops.matmul(u, ops.transpose(self.kernels[-1]))  # [B, V]
        return u, ops.stack(all_weights, axis=1)

    def _encode(self, inputs, kernel):
        """Vectors `[..., D]` or words `[..., J]` to `[..., U]`."""
        if self.vocabulary_size is None:
            return ops.matmul(inputs, kernel)
        inputs = ops.cast(inputs, "int32")
        # Positions, counts and sums are not exact in half precision.
        words = full_precision(ops.take(ops.convert_to_tensor(kernel), inputs, axis=0))
        factors = ops.cast(ops.expand_dims(inputs, -1) > 0, words.dtype)  # [..., J, 1]
        if self.position_encoding:
            length = ops.maximum(ops.sum(factors, axis=-2, keepdims=True), 1)
            position = ops.cumsum(factors, axis=-2) / length
            unit = ops.arange(1, self.units + 1, dtype=words.dtype) / self.units  # [U]
            factors = factors * 2 * ((1 - position) - unit * (1 - 2 * position))  # [..., J, U]
        return ops.cast(ops.sum(words * factors, axis=-2), self.compute_dtype)

    def _ages(self, mask, training):
        """The number of facts after each fact, `[B, S]`."""
        counts = ops.cast(mask, "int32")
        if training and self.noise:
            numbers = keras.random.uniform(ops.shape(mask), seed=self.seed_generator)
            counts = counts * (1 + ops.cast(numbers < self.noise, "int32"))
        after = ops.sum(counts, axis=1, keepdims=True) - ops.cumsum(counts, axis=1)
        return ops.minimum(after, self.memory_size - 1)

    def _weights(self, scores, mask, num_empty):
        """The weights `[B, S]` of a hop: the softmax, or before `linear` is 0 the scores."""
        weights = self._softmax(scores, mask, num_empty)
        if self.linear is None:
            return weights
        scores = scores if mask is None else ops.where(mask, scores, 0.0)
        return ops.where(self.linear > 0.5, scores, weights)

    def _softmax(self, scores, mask, num_empty):
        """The softmax of the scores `[B, S]` and of a score 0 for each empty slot."""
        if num_empty is None:
            return masked_softmax(scores, mask)
        # n slots of score 0 are one slot of score log n.
        scores = full_precision(scores)
        empty = ops.log(ops.cast(ops.maximum(num_empty, 1), scores.dtype))
        weights = masked_softmax(
            ops.concatenate([scores, empty], axis=1),
            ops.concatenate([mask, num_empty > 0], axis=1),
        )
        return ops.cast(weights[:, :-1], self.compute_dtype)

    def compute_output_shape(self, facts_shape, question_shape):
        batch, count = facts_shape[0], facts_shape[1]
        size = self.vocabulary_size if self.return_logits else self.units
        return (batch, size), (batch, self.hops, count)

    def compute_mask(self, facts, mask=None):
        return [None, None]

    def load_own_variables(self, store):
        weights = [w for w in self.weights if w is not self.linear]
        load_own_variables(self, store, weights, self.linear)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "hops": self.hops,
            "vocabulary_size": self.vocabulary_size,
            "tying": self.tying,
            "position_encoding": self.position_encoding,
            "memory_size": self.memory_size,
            "noise": self.noise,
            "linear_start": self.linear_start,
            "return_logits": self.return_logits,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
        }
