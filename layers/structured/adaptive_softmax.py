"""A softmax over a large vocabulary, in clusters."""

from collections.abc import Sequence

import keras
from keras import ops

from unroll.layers import backend
from unroll.layers.initializers import clone_initializer
from unroll.layers.masks import zero_masked
from unroll.layers.operations import cast_to, full_precision, require_size


@keras.saving.register_keras_serializable(package="unroll")
class AdaptiveSoftmax(keras.layers.Layer):
    """The log-probabilities of a large vocabulary, in clusters of frequent and of rare tokens.

    Grave et al. 2017, "Efficient softmax approximation for GPUs", section 4.3. The tokens are
    numbered from the most frequent one. The cutoffs c_1 < ... < c_n are the first tokens of n tail
    clusters; those before c_1 are the head. The head also predicts the cluster:

        y = log softmax([x E_0^T; x C] + b)
        log P(w) = y_w                                                      if w < c_1
        log P(w) = y_{c_1 + i - 1} + log softmax(x P_i E_i^T)_{w - c_i}     if w is in cluster i

    Given targets, only the rows of their own clusters go through a tail cluster. The products of
    training thus take a fraction of the time that those of a full softmax take: most targets are in
    the head, and P_i reduces x to D / div_value^i features.

    The layer is also an embedding: with `embed=True` the vector of a token is its row of E_0, or of
    E_i times P_i^T. Baevski and Auli 2019, "Adaptive input representations for neural language
    modeling", section 3. The output layer and the embedding then share their weights.

    Args:
        vocabulary_size: V, the number of tokens.
        cutoffs: the first token of each tail cluster, ascending.
        div_value: the factor by which each cluster has fewer features than the one before it.
        use_bias: whether the head has a bias b.
        input_size: D. Only needed if the first call of the layer has `embed=True`.
        kernel_initializer: of E_i, C and P_i.
        bias_initializer: of b.
        kernel_regularizer: of E_i, C and P_i.

    Call arguments:
        inputs: `[..., D]`; with `embed=True` tokens `[...]`, integers.
        targets: `[...]`, integers. A target below zero is padding.
        mask: `[...]`, boolean. Inputs where it is False count as zeros.
        embed: whether to return the embeddings of tokens.
        inputs_mask: set by Keras; pass `mask` instead.

    Returns:
        The log-probabilities of all tokens, `[..., V]`; those of the targets alone, `[...]`, zero
        for padding and where the mask is False; or the embeddings, `[..., D]`.

    Raises:
        ValueError: if a size is not an integer of at least 1, `cutoffs` are not ascending integers
            from 1 to V - 1, `div_value` is below 1, or `embed` is used without `input_size`.

    >>> import numpy as np
    >>> from unroll.layers import AdaptiveSoftmax
    >>> softmax = AdaptiveSoftmax(1000, cutoffs=[100, 400])
    >>> x, targets = np.ones((2, 5, 16), "float32"), np.ones((2, 5), "int32")
    >>> softmax(x).shape, softmax(x, targets).shape
    (TensorShape([2, 5, 1000]), TensorShape([2, 5]))

    On JAX and under XLA, where shapes are static, all rows go through each cluster.

    Differs from the paper: nothing.
    """

    def __init__(
        self,
        vocabulary_size: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        use_bias: bool = True,
        input_size: int | None = None,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        **kwargs,
    ):
        label = type(self).__name__
        vocabulary_size = require_size(f"{label}: vocabulary_size", vocabulary_size)
        cutoffs = [require_size(f"{label}: a cutoff", cutoff) for cutoff in cutoffs]
        if not cutoffs or cutoffs != sorted({*cutoffs}) or cutoffs[-1] >= vocabulary_size:
            raise ValueError(
                f"{label}: cutoffs must be ascending integers below vocabulary_size, "
                f"{vocabulary_size}, and at least one, got {cutoffs}."
            )
        if not div_value >= 1:
            raise ValueError(f"{label}: div_value must be at least 1, got {div_value!r}.")
        if input_size is not None:
            input_size = require_size(f"{label}: input_size", input_size)
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.cutoffs = tuple(cutoffs)
        self.div_value = div_value
        self.use_bias = use_bias
        self.input_size = input_size
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.supports_masking = True

    def build(self, inputs_shape, targets_shape=None):
        size = self.input_size or inputs_shape[-1]
        first, ends = self.cutoffs[0], (*self.cutoffs[1:], self.vocabulary_size)
        self.head = self._kernel("embeddings_0", (first, size))
        self.clusters = self._kernel("clusters", (size, len(self.cutoffs)))
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(first + len(self.cutoffs),), name="bias", initializer=self.bias_initializer
            )
        self.tails = []
        for k, (start, end) in enumerate(zip(self.cutoffs, ends, strict=True), 1):
            features = max(1, int(size // self.div_value**k))
            projection = self._kernel(f"projection_{k}", (size, features))
            self.tails.append(
                (projection, self._kernel(f"embeddings_{k}", (end - start, features)))
            )

    def _kernel(self, name: str, shape: tuple[int, int]):
        return self.add_weight(
            shape=shape,
            name=name,
            initializer=clone_initializer(self.kernel_initializer),
            regularizer=self.kernel_regularizer,
        )

    def call(self, inputs, targets=None, mask=None, embed=False, inputs_mask=None):
        # Keras fills `mask` if the inputs are the only tensor argument, else `inputs_mask`.
        mask = inputs_mask if mask is None else mask
        if embed:
            return self._embed(inputs)
        x = zero_masked(inputs, mask)
        if targets is None:
            return cast_to(self._log_probabilities(x), self.compute_dtype)
        counts = ops.cast(targets, "int32") >= 0
        if mask is not None:
            counts = ops.logical_and(counts, ops.cast(mask, "bool"))
        shape = ops.shape(targets)
        flat = ops.reshape(x, (-1, self.clusters.shape[0]))  # [N, D]
        found = self._of_targets(flat, ops.reshape(targets, (-1,)), ops.reshape(counts, (-1,)))
        return cast_to(ops.reshape(found, shape), self.compute_dtype)

    def _head_logits(self, x):
        """`[..., D]` to `[..., c_1 + n]`, in float32."""
        words = ops.matmul(x, ops.transpose(self.head))
        logits = full_precision(ops.concatenate([words, ops.matmul(x, self.clusters)], axis=-1))
        if self.bias is None:
            return logits
        return logits + full_precision(ops.convert_to_tensor(self.bias))

    @staticmethod
    def _tail_logits(x, tail):
        """`[..., D]` to `[..., tokens of the cluster]`, in float32."""
        projection, embeddings = tail
        x = ops.matmul(x, projection)
        return full_precision(ops.matmul(x, ops.transpose(embeddings)))

    def _log_probabilities(self, x):
        """`[..., D]` to `[..., V]`, in float32."""
        first = self.cutoffs[0]
        y = ops.log_softmax(self._head_logits(x), axis=-1)
        parts = [y[..., :first]]
        for k, tail in enumerate(self.tails):
            own = ops.log_softmax(self._tail_logits(x, tail), axis=-1)
            parts.append(y[..., first + k : first + k + 1] + own)
        return ops.concatenate(parts, axis=-1)

    def _of_targets(self, x, targets, counts):
        """log P of targets `[N]` for inputs `[N, D]`, zero where `counts` `[N]` is False."""
        first, rows_of_x = self.cutoffs[0], ops.shape(x)[0]
        targets = ops.where(counts, ops.cast(targets, "int32"), 0)
        cluster = self._cluster(targets)  # [N], 0 for the head
        slots = ops.where(cluster == 0, targets, first - 1 + cluster)
        found = _log_probability(self._head_logits(x), slots)  # [N]
        for k, (start, tail) in enumerate(zip(self.cutoffs, self.tails, strict=True), 1):
            inside = ops.logical_and(counts, cluster == k)  # [N]
            rows = backend.true_rows(inside)  # [rows]
            own = ops.take(inside, rows, axis=0)
            slots = ops.where(own, ops.take(targets, rows, axis=0) - start, 0)
            logits = self._tail_logits(ops.take(x, rows, axis=0), tail)
            values = ops.where(own, _log_probability(logits, slots), 0.0)
            found = found + ops.scatter(rows[:, None], values, (rows_of_x,))
        found = ops.where(targets < self.vocabulary_size, found, float("nan"))
        return ops.where(counts, found, 0.0)

    def _cluster(self, tokens):
        """The number of the cluster of each token; 0 for the head."""
        return sum(ops.cast(tokens >= cutoff, "int32") for cutoff in self.cutoffs)

    def _embed(self, tokens):
        """`[...]` to `[..., D]`."""
        if self.input_size is None:
            raise ValueError(f"{self.name}: embed=True needs input_size, the size of a vector.")
        tokens = ops.cast(tokens, "int32")
        cluster = self._cluster(tokens)
        x = ops.take(ops.convert_to_tensor(self.head), ops.where(cluster == 0, tokens, 0), axis=0)
        for k, (start, tail) in enumerate(zip(self.cutoffs, self.tails, strict=True), 1):
            projection, embeddings = (ops.convert_to_tensor(weight) for weight in tail)
            own = ops.take(embeddings, ops.where(cluster == k, tokens - start, 0), axis=0)
            own = ops.matmul(own, ops.transpose(projection))
            x = ops.where(ops.expand_dims(cluster == k, -1), own, x)
        return x

    def compute_output_shape(self, inputs_shape, targets_shape=None, embed=False):
        if embed:
            return (*inputs_shape, self.input_size)
        sizes = () if targets_shape is not None else (self.vocabulary_size,)
        return (*inputs_shape[:-1], *sizes)

    # By default, Keras would trace the call, whose number of rows depends on values.
    def compute_output_spec(self, inputs, targets=None, mask=None, embed=False, inputs_mask=None):
        targets_shape = None if targets is None else targets.shape
        shape = self.compute_output_shape(inputs.shape, targets_shape, embed)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "cutoffs": list(self.cutoffs),
            "div_value": self.div_value,
            "use_bias": self.use_bias,
            "input_size": self.input_size,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


def _log_probability(logits, targets):
    """log softmax(logits) of one target each: `[N, K]` and `[N]` to `[N]`."""
    return -ops.sparse_categorical_crossentropy(targets, logits, from_logits=True)
