"""An end-to-end memory network."""

import keras
from keras import ops

from unroll.layers.attention.scores import masked_softmax
from unroll.layers.initializers import clone_initializer
from unroll.layers.operations import require_size

TYINGS = ("adjacent", "layer_wise")


@keras.saving.register_keras_serializable(package="unroll")
class MemoryNetwork(keras.layers.Layer):
    """Attention to facts in several hops, each asking with what the ones before it found.

    Sukhbaatar et al. 2015, "End-to-end memory networks", equations 1 to 3 and section 4.1. With
    facts x_1, ..., x_S and a question q, both bags of words or vectors:

        u_1 = B q
        m_i = A_k x_i + T^A_k(i),  c_i = C_k x_i + T^C_k(i)
        p_i = softmax over i of (u_k . m_i)
        o = sum over i of p_i c_i
        u_{k+1} = u_k + o, for k = 1, ..., K
        the scores of the answers are W u_{K+1}

    The memory has `memory_size` places; in those that no fact takes, m and c are zero, and they
    count in the softmax, so that a hop may find nothing.

    Tied "adjacent": A_{k+1} = C_k, B = A_1 and W^T = C_K. "layer_wise": all A_k are one and all C_k
    are one, and u_{k+1} = H u_k + o. T, the temporal encoding, is tied as A and C are; i counts
    back from the last fact.

    A fact of words j_1, ..., j_J is the sum of l_j * A(j): with position encoding l_j is
    2 (1 - j/J) - 2 (d/U)(1 - 2 j/J) in the d-th unit, counted from one; else 1.

    Args:
        units: U.
        hops: K.
        vocabulary_size: V. Facts and question are then ids of words, of which 0 is padding; by
            default they are vectors.
        tying: `"adjacent"` or `"layer_wise"`.
        position_encoding: whether the order of the words in a fact counts.
        memory_size: the places of the memory, the most facts, whose order counts (temporal
            encoding); by default there are as many as facts, and their order does not count.
        noise: the probability, in training, that a fact is followed by an empty one (the paper's
            random noise), which makes all before it older.
        linear_start: whether the hops begin without their softmax. `linear.assign(0.0)` puts it
            back, as the paper does when the validation loss no longer falls.
        return_logits: whether to return the scores of all words instead of u_{K+1}.
        kernel_initializer: of all weights.
        seed: of the noise.

    Call arguments:
        facts: `[B, S, J]`, integers, or `[B, S, D]`.
        question: `[B, J']`, integers, or `[B, D]`.
        mask: `[B, S]`, boolean. A fact where it is False has the weight zero and takes no place;
            without any fact o is zero.
        training: whether there is noise.

    Returns:
        A tuple of u_{K+1}, `[B, U]` (or the scores, `[B, V]`), and the weights p, `[B, K, S]`,
        which with a `memory_size` may add up to less than 1: the rest is that of empty places.

    Raises:
        ValueError: if an argument is none of the above, or the facts are more than `memory_size`.

    >>> import numpy as np
    >>> from unroll.layers import MemoryNetwork
    >>> story, question = np.array([[[3, 7, 4], [5, 7, 6]]]), np.array([[8, 3]])
    >>> hops = MemoryNetwork(20, vocabulary_size=50, memory_size=10, return_logits=True)
    >>> answers, weights = hops(story, question)
    >>> answers.shape, weights.shape
    (TensorShape([1, 50]), TensorShape([1, 3, 2]))

    Differs from the paper: l is twice as large, so that with and without it words count alike on
    average, beside the ages of the facts. This and the empty places are as in the authors' program.
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
        require_size("units", units)
        require_size("hops", hops)
        for name, size in (("vocabulary_size", vocabulary_size), ("memory_size", memory_size)):
            if size is not None:
                require_size(name, size)
        if tying not in TYINGS:
            raise ValueError(f"tying must be adjacent or layer_wise, got {tying!r}.")
        if not 0 <= noise < 1:
            raise ValueError(f"noise must lie in [0, 1), got {noise!r}.")
        if noise and memory_size is None:
            raise ValueError("noise makes facts older, and needs a memory_size.")
        if return_logits and vocabulary_size is None:
            raise ValueError("return_logits=True scores words, and needs a vocabulary_size.")
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
        if noise:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def build(self, facts_shape, question_shape):
        if len(facts_shape) != 3 or len(question_shape) != 2:
            raise ValueError(
                f"{self.name} takes facts of the rank 3 and a question of the rank 2, got "
                f"{tuple(facts_shape)} and {tuple(question_shape)}."
            )
        if (
            self.memory_size
            and isinstance(facts_shape[1], int)
            and facts_shape[1] > self.memory_size
        ):
            raise ValueError(
                f"{self.name} tells the age of {self.memory_size} facts (memory_size), got "
                f"{facts_shape[1]}."
            )
        rows = self.vocabulary_size or facts_shape[-1]

        def add(name, *shape):
            return self.add_weight(
                name=name, shape=shape, initializer=clone_initializer(self.kernel_initializer)
            )

        def add_all(name, *shape):
            """The K + 1 weights A_1, C_1, C_2, ... of adjacent tying, or A and C."""
            count = self.hops + 1 if self.tying == "adjacent" else 2
            return [add(f"{name}_{k}", *shape) for k in range(count)]

        self.kernels = add_all("kernel", rows, self.units)
        self.temporal_encodings = (
            add_all("temporal_encoding", self.memory_size, self.units) if self.memory_size else []
        )
        if self.tying == "layer_wise":
            self.question_kernel = add("question_kernel", rows, self.units)
            self.state_kernel = add("state_kernel", self.units, self.units)
            if self.return_logits:
                self.output_kernel = add("output_kernel", self.units, rows)
        self.linear = None
        if self.linear_start:
            self.linear = self.add_weight(
                name="linear", shape=(), initializer="ones", trainable=False
            )
        self.built = True

    def call(self, facts, question, mask=None, training=False):
        mask = None if mask is None else ops.cast(mask, "bool")
        ages = empty = None
        if self.memory_size:
            if mask is None:
                mask = ops.ones(ops.shape(facts)[:2], "bool")
            ages = self._ages(mask, training)
            taken = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True)
            empty = self.memory_size - taken  # [B, 1]
        layer_wise = self.tying == "layer_wise"
        u = self._encode(question, self.question_kernel if layer_wise else self.kernels[0])
        read, collected = {}, []

        def memory(k):
            if k not in read:
                read[k] = self._encode(facts, self.kernels[k])  # [B, S, U]
                if ages is not None:
                    read[k] = read[k] + ops.take(
                        ops.convert_to_tensor(self.temporal_encodings[k]), ages, axis=0
                    )
            return read[k]

        for hop in range(self.hops):
            m, c = memory(0 if layer_wise else hop), memory(1 if layer_wise else hop + 1)
            scores = ops.squeeze(ops.matmul(m, ops.expand_dims(u, -1)), -1)  # [B, S]
            weights = self._normalized(scores, mask, empty)
            if self.linear is not None:
                raw = scores if mask is None else ops.where(mask, scores, 0.0)
                weights = ops.where(self.linear > 0.5, raw, weights)
            collected.append(weights)
            found = ops.squeeze(ops.matmul(ops.expand_dims(weights, 1), c), 1)  # [B, U]
            u = (ops.matmul(u, self.state_kernel) if layer_wise else u) + found
        if self.return_logits and layer_wise:
            u = ops.matmul(u, self.output_kernel)
        elif self.return_logits:
            u = ops.matmul(u, ops.transpose(self.kernels[-1]))  # [B, V]
        return u, ops.stack(collected, axis=1)

    def _encode(self, given, kernel):
        """Vectors `[..., D]` or words `[..., J]` to `[..., U]`."""
        if self.vocabulary_size is None:
            return ops.matmul(given, kernel)
        given = ops.cast(given, "int32")
        words = ops.take(ops.convert_to_tensor(kernel), given, axis=0)  # [..., J, U]
        counts = ops.cast(ops.expand_dims(given, -1) > 0, words.dtype)  # [..., J, 1]
        if not self.position_encoding:
            return ops.sum(words * counts, axis=-2)
        length = ops.maximum(ops.sum(counts, axis=-2, keepdims=True), 1)
        place = ops.cumsum(counts, axis=-2) / length
        unit = ops.arange(1, self.units + 1, dtype=words.dtype) / self.units  # [U]
        factors = 2 * ((1 - place) - unit * (1 - 2 * place))
        return ops.sum(words * factors * counts, axis=-2)

    def _ages(self, mask, training):
        """How many facts stand after each, `[B, S]`."""
        present = ops.cast(mask, "int32")
        if training and self.noise:
            draws = keras.random.uniform(ops.shape(mask), seed=self.seed_generator)
            present = present * (1 + ops.cast(draws < self.noise, "int32"))
        after = ops.sum(present, axis=1, keepdims=True) - ops.cumsum(present, axis=1)
        return ops.minimum(after, self.memory_size - 1)

    def _normalized(self, scores, mask, empty):
        """The softmax of the scores `[B, S]` and, for each empty place, of 0."""
        if empty is None:
            return masked_softmax(scores, mask)
        # As one place with the logarithm of their number.
        together = ops.log(ops.cast(ops.maximum(empty, 1), scores.dtype))
        weights = masked_softmax(
            ops.concatenate([scores, together], axis=1),
            ops.concatenate([mask, empty > 0], axis=1),
        )
        return weights[:, :-1]

    def compute_mask(self, *arguments, **options):
        return [None, None]

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
