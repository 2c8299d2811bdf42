"""Word dropout."""

import keras
from keras import ops

from unroll.layers.operations import require_size


@keras.saving.register_keras_serializable(package="unroll")
class WordDropout(keras.layers.Layer):
    """Replaces random token ids by the id of the unknown word during training.

    Iyyer et al. 2015, "Deep unordered composition rivals syntactic methods for text
    classification", section 2.3. Tokens are replaced instead of removed, as in Bowman et al. 2016,
    "Generating sentences from a continuous space", section 3.1. This trains the embedding of the
    unknown word, and no prediction depends on a single word.

    Args:
        rate: the fraction of the tokens to replace.
        unknown: the id of the unknown word.
        seed: the random seed.

    Call arguments:
        tokens: integers `[B, T]`.
        mask: `[B, T]`, boolean. A token where it is False is not replaced.
        training: whether to replace tokens.

    Returns:
        Integers `[B, T]`.

    Raises:
        ValueError: if `rate` is not in [0, 1), or `unknown` is not an integer of at least 0.

    >>> import numpy as np
    >>> from unroll.layers import WordDropout
    >>> WordDropout(0.5, unknown=1)(np.array([[7, 8, 9]])).shape
    TensorShape([1, 3])

    Differs from the papers: nothing.
    """

    def __init__(self, rate: float, unknown: int, seed: int | None = None, **kwargs):
        if not 0 <= rate < 1:
            raise ValueError(f"{type(self).__name__}: rate must be in [0, 1), got {rate!r}.")
        super().__init__(**kwargs)
        self.rate = rate
        self.unknown = require_size(f"{type(self).__name__}: unknown", unknown, minimum=0)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True
        self.built = True

    def call(self, tokens, mask=None, training=False):
        if not training or not self.rate:
            return tokens
        replaced = keras.random.uniform(ops.shape(tokens), seed=self.seed_generator) < self.rate
        if mask is not None:
            replaced = ops.logical_and(replaced, mask)
        return ops.where(replaced, ops.cast(self.unknown, tokens.dtype), tokens)  # [B, T]

    def compute_mask(self, tokens, mask=None):
        return None

    def compute_output_shape(self, tokens_shape):
        return tokens_shape

    # By default, Keras would declare floating-point outputs.
    def compute_output_spec(self, tokens, mask=None, training=False):
        return keras.KerasTensor(tokens.shape, dtype=tokens.dtype)

    def get_config(self):
        config = {"rate": self.rate, "unknown": self.unknown, "seed": self.seed}
        return {**super().get_config(), **config}
