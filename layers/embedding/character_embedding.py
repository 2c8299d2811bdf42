"""Word vectors from characters."""

import keras
from keras import ops

from unroll.layers.operations import add_bias, require_size
from unroll.layers.recurrent.lstm import LSTM
from unroll.layers.recurrent.pooling import max_over_time

READERS = ("convolution", "recurrent")


@keras.saving.register_keras_serializable(package="unroll")
class CharacterEmbedding(keras.layers.Layer):
    """The vector of a word from its characters, also for words that training never had.

    By convolution, dos Santos and Zadrozny 2014, "Learning character-level representations for
    part-of-speech tagging", equations 2 and 3, as in Ma and Hovy 2016. With the character vectors
    e_1, ..., e_L, and zeros before and after the word:

        r = max over j of (W [e_{j-1}; e_j; e_{j+1}] + b)

    By recurrence, Lample et al. 2016, "Neural architectures for named entity recognition",
    section 4.1: the last states of a forward and of a backward LSTM.

    Args:
        characters: the number of different characters, including 0 for padding.
        units: U, the size of a word vector; even for the recurrent reader.
        features: the size of a character vector.
        reader: `"convolution"` or `"recurrent"`.
        width: the width of the convolution, in characters; odd.

    Call arguments:
        characters: integers `[B, T, L]`, the characters of each word; 0 is padding.

    Returns:
        `[B, T, U]`; zeros for a word without characters.

    Raises:
        ValueError: if an argument does not have one of these values.

    >>> import numpy as np
    >>> from unroll.layers import CharacterEmbedding
    >>> CharacterEmbedding(60, 32)(np.array([[[17, 4, 9], [5, 0, 0]]])).shape
    TensorShape([1, 2, 32])

    Differs from the papers: nothing.
    """

    def __init__(
        self,
        characters: int,
        units: int,
        features: int = 25,
        reader: str = "convolution",
        width: int = 3,
        **kwargs,
    ):
        label = type(self).__name__
        characters = require_size(f"{label}: characters", characters)
        units = require_size(f"{label}: units", units)
        features = require_size(f"{label}: features", features)
        width = require_size(f"{label}: width", width)
        if reader not in READERS:
            raise ValueError(f"{label}: reader must be one of {READERS}, got {reader!r}.")
        if width % 2 == 0:
            raise ValueError(f"{label}: width must be odd, got {width}.")
        if reader == "recurrent" and units % 2:
            raise ValueError(f"{label}: units must be even for the recurrent reader, got {units}.")
        super().__init__(**kwargs)
        self.characters = characters
        self.units = units
        self.features = features
        self.reader = reader
        self.width = width
        if reader == "recurrent":
            policy = self.dtype_policy
            self.recurrent = keras.layers.Bidirectional(
                LSTM(units // 2, dtype=policy), dtype=policy, name="recurrent"
            )

    def build(self, characters_shape):
        self.embeddings = self.add_weight(
            name="embeddings", shape=(self.characters, self.features), initializer="uniform"
        )
        if self.reader == "recurrent":
            self.recurrent.build((None, None, self.features))
            return
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.width * self.features, self.units),
            initializer="glorot_uniform",
        )
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")

    def call(self, characters):
        characters = ops.cast(characters, "int32")
        batch, time, length = ops.shape(characters)
        flat = ops.reshape(characters, (batch * time, length))  # [B T, L]
        mask = ops.not_equal(flat, 0)
        x = ops.take(ops.convert_to_tensor(self.embeddings), flat, axis=0)
        x = x * ops.cast(ops.expand_dims(mask, -1), x.dtype)  # [B T, L, features]
        if self.reader == "recurrent":
            words = self.recurrent(x, mask=mask)
        else:
            margin = self.width // 2
            padded = ops.pad(x, ((0, 0), (margin, margin), (0, 0)))
            windows = [padded[:, k : k + length] for k in range(self.width)]
            x = ops.matmul(ops.concatenate(windows, axis=-1), self.kernel)
            words = max_over_time(add_bias(x, self.bias), mask)  # [B T, U]
        return ops.reshape(words, (batch, time, self.units))

    def compute_output_shape(self, characters_shape):
        return (*characters_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "characters": self.characters,
            "units": self.units,
            "features": self.features,
            "reader": self.reader,
            "width": self.width,
        }
