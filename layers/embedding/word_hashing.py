"""Words as bags of letter trigrams."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="unroll")
class WordHashing(keras.layers.Layer):
    """A word's multi-hot vector of letter trigrams, times a matrix.

    Huang et al. 2013, "Learning deep structured semantic models for web search using clickthrough
    data", section 3.2: "good" is #go, goo, ood, od#. A word never seen in training still has
    trigrams that were. The multi-hot vector has a bit for each trigram over # and a to z, and one
    for a word without any (a number, another script); it is never built: the rows of the matrix
    are summed instead.

    Args:
        units: U, the size of a word's vector.
        trigrams: how many different trigrams there are, with the bit for none.
        embeddings_initializer, embeddings_regularizer: of the matrix.

    Call arguments:
        trigrams: integers `[..., L]`, the trigrams of each word, from 1; 0 is padding.

    Returns:
        `[..., U]`; the zero vector for a word of padding alone.

    Raises:
        ValueError: if `units` or `trigrams` is below one.

    >>> import numpy as np
    >>> from unroll.layers import WordHashing
    >>> WordHashing(8)(np.array([[[17, 4, 9], [5, 0, 0]]])).shape
    TensorShape([1, 2, 8])

    Differs from the paper: a bit instead of a count for a trigram that a word has twice.
    """

    def __init__(
        self,
        units,
        trigrams=27**3 + 1,
        embeddings_initializer="uniform",
        embeddings_regularizer=None,
        **kwargs,
    ):
        for name, value in (("units", units), ("trigrams", trigrams)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
        super().__init__(**kwargs)
        self.units = units
        self.trigrams = trigrams
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
        place = ops.arange(length)
        earlier = ops.less(ops.expand_dims(place, 0), ops.expand_dims(place, 1))  # [L, L]
        again = ops.any(ops.logical_and(same, earlier), axis=-1)  # [..., L]
        bits = ops.logical_and(ops.not_equal(trigrams, 0), ops.logical_not(again))  # [..., L]
        vectors = ops.take(self.embeddings, trigrams, axis=0)  # [..., L, U]
        bits = ops.expand_dims(ops.cast(bits, vectors.dtype), -1)  # [..., L, 1]
        return ops.sum(vectors * bits, axis=-2)  # [..., U]

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
