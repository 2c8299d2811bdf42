"""Input encodings that Keras has no layer for."""

from unroll.layers.embedding.character_embedding import CharacterEmbedding
from unroll.layers.embedding.word_dropout import WordDropout
from unroll.layers.embedding.word_hashing import WordHashing

__all__ = ["CharacterEmbedding", "WordDropout", "WordHashing"]
