"""Recurrent, attention and embedding layers for any Keras 3 model.

Shape letters: B batch, T time, S memory length, D features, U units, K classes, V vocabulary,
L letter trigrams of a word, G columns of all gates.
"""

from layers.attention import AttentionPool
from layers.embedding import WordDropout, WordHashing
from layers.recurrent import (
    LSTM,
    LSTMCell,
    Segmented,
    Stack,
)

__all__ = [
    "LSTM",
    "AttentionPool",
    "LSTMCell",
    "Segmented",
    "Stack",
    "WordDropout",
    "WordHashing",
]
