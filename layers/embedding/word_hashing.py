"""Word vectors from letter trigrams."""

import keras
from keras import ops

from unroll.layers.operations import full_precision, require_size


@keras.saving.register_keras_serializable(package="unroll")
class WordHashing(keras.layers.Layer):
    """The multi-hot vector of the letter trigrams of a word, times a matrix.

    Huang et al. 2013, "Learning deep structured semantic models for web search using clickthrough
    data", section 3.2: "good" has the trigrams #go, goo, ood, od#. A word that training never had
    consists of trigrams that it had. The multi-hot vector has one element for each trigram of # and
    a to z, and one for a word without any (a number, another script). The layer does not create
    this vector: it adds the rows of the matrix instead.

    Args:
        units: U, the size of a word vector.
        trigrams: the number of different trigrams, including the one for none.
        embeddings_initializer, embeddings_regularizer: of the matrix.

    Call arguments:
        trigrams: integers `[..., L]`, the trigrams of each word, from 1; 0 is padding.

    Returns:
        `[..., U]`; zeros for a word of padding only.

    Raises:
        ValueError: if `units` or `trigrams` is not an integer of at least 1.

    >>> import numpy as np
    >>> from unroll.layers import WordHashing
    >>> WordHashing(8)(np.array([[[17, 4, 9], [5, 0, 0]]])).shape
    TensorShape([1, 2, 8])

    Differs from the paper: a trigram that a word has twice counts once.
    """

    def __init__(
        self,
        units: int,
        trigrams: int = 27**3 + 1,
        embeddings_initializer="uniform",
        embeddings_regularizer=None,
        **kwargs,
    ):
        label = type(self).__name__
        super().__init__(**kwargs)
        self.units = require_size(f"{label}: units", units)
        self.trigrams = require_size(f"{label}: trigrams", trigrams)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.embeddings_regularizer = keras.regularizers.get(embeddings_regularizer)

    def build(self, input_shape):
        self.embeddings = self.add_weight(
            shape=(self.trigrams + 1, self.units),
            name="embeddings",
            initializer=self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
        )

    def call(self, trigrams):
        trigrams = ops.cast(trigrams, "int32")
        length = trigrams.shape[-1] if trigrams.shape[-1] is not None else ops.shape(trigrams)[-1]
        same = ops.equal(ops.expand_dims(trigrams, -1), ops.expand_dims(trigrams, -2))
        index = ops.arange(length)
        earlier = ops.less(ops.expand_dims(index, 0), ops.expand_dims(index, 1))  # [L, L]
        repeated = ops.any(ops.logical_and(same, earlier), axis=-1)  # [..., L]
        counts = ops.logical_and(ops.not_equal(trigrams, 0), ops.logical_not(repeated))  # [..., L]
        vectors = full_precision(ops.take(self.embeddings, trigrams, axis=0))  # [..., L, U]
        counts = ops.expand_dims(ops.cast(counts, vectors.dtype), -1)  # [..., L, 1]
        total = ops.sum(vectors * counts, axis=-2)  # [..., U]
        return ops.cast(total, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "trigrams": self.trigrams,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "embeddings_regularizer": keras.regularizers.serialize(self.embeddings_regularizer),
        }
