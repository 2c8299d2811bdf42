"""Input encodings that Keras has no layer for."""

from layers.embedding.word_dropout import WordDropout
from layers.embedding.word_hashing import WordHashing

__all__ = ["WordDropout", "WordHashing"]
