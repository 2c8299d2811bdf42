"""Input encodings that Keras has no layer for."""

from layers.embedding.character_embedding import CharacterEmbedding
from layers.embedding.word_dropout import WordDropout
from layers.embedding.word_hashing import WordHashing

__all__ = ["CharacterEmbedding", "WordDropout", "WordHashing"]
