"""Layers that encode words."""

from unroll.layers.embedding.character_embedding import CharacterEmbedding
from unroll.layers.embedding.word_dropout import WordDropout
from unroll.layers.embedding.word_hashing import WordHashing

__all__ = ["CharacterEmbedding", "WordDropout", "WordHashing"]
