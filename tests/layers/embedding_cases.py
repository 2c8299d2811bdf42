"""The cases of the layers that encode words."""

import keras
import numpy as np

from tests import reference
from tests.layers.case import B, Case, D, T, U
from unroll import layers

# Words with different numbers of trigrams, some with a trigram twice, some of padding only.
TRIGRAMS = np.random.default_rng(4).integers(1, 12, size=(B, T, D)).astype("int32")
TRIGRAMS[:, 1, 2] = TRIGRAMS[:, 1, 0]
TRIGRAMS[:, 2, 1:] = 0
TRIGRAMS[3, 3] = 0


def character_embedding(name, oracle, **settings) -> Case:
    """A case of `CharacterEmbedding`. Every character except padding occurs in the inputs."""
    return Case(
        name=name,
        make=lambda **options: layers.CharacterEmbedding(
            **{"characters": 12, "units": U, "features": 2, **settings, **options}
        ),
        oracle=oracle,
        covers=("CharacterEmbedding",),
        options={"characters": 9, "units": 8, "features": 7, "reader": "recurrent", "width": 5},
        inputs=TRIGRAMS,
        mask=None,
        idle={"embeddings": 0},
        dynamic=3,
    )


CASES: tuple[Case, ...] = (
    Case(
        name="WordHashing",
        make=lambda **options: layers.WordHashing(**{"units": U, "trigrams": 11, **options}),
        oracle=reference.word_hashing,
        covers=("WordHashing",),
        options={
            "units": 7,
            "trigrams": 13,
            "embeddings_initializer": keras.initializers.RandomNormal(0.1, 0.2, seed=5),
            "embeddings_regularizer": keras.regularizers.L2(0.1),
        },
        inputs=TRIGRAMS,
        mask=None,
        idle={"embeddings": 0},  # the row of the padding
        dynamic=3,
    ),
    character_embedding("CharacterEmbedding", reference.characters_by_convolution),
    character_embedding(
        "CharacterEmbedding recurrent", reference.characters_by_lstm, reader="recurrent"
    ),
    Case(
        name="WordDropout",
        make=lambda **options: layers.WordDropout(**{"rate": 0.5, "unknown": 1, **options}),
        oracle=reference.unchanged,
        covers=("WordDropout",),
        options={"rate": 0.25, "unknown": 7, "seed": 11},
        inputs=np.random.default_rng(5).integers(2, 99, size=(B, T)).astype("int32"),
        random={"rate": 0.5},
    ),
)
