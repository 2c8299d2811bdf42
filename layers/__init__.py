"""Recurrent, attention and embedding layers for any Keras 3 model.

Shape letters: B batch, T time, S memory length, D features, U units, K classes, V vocabulary,
C context features, L letter trigrams of a word, G columns of all gates.
"""

from layers.attention import AttentionPool
from layers.embedding import WordDropout, WordHashing
from layers.recurrent import (
    GRU,
    IRNN,
    LSTM,
    SCRN,
    ClockworkRNN,
    ClockworkRNNCell,
    ContextLSTM,
    ContextLSTMCell,
    CoupledLSTM,
    CoupledLSTMCell,
    ElmanRNN,
    ElmanRNNCell,
    GRUCell,
    IRNNCell,
    JordanRNN,
    JordanRNNCell,
    LayerNormLSTM,
    LayerNormLSTMCell,
    LSTMCell,
    PeepholeLSTM,
    PeepholeLSTMCell,
    SCRNCell,
    Segmented,
    Stack,
)

__all__ = [
    "GRU",
    "IRNN",
    "LSTM",
    "SCRN",
    "AttentionPool",
    "ClockworkRNN",
    "ClockworkRNNCell",
    "ContextLSTM",
    "ContextLSTMCell",
    "CoupledLSTM",
    "CoupledLSTMCell",
    "ElmanRNN",
    "ElmanRNNCell",
    "GRUCell",
    "IRNNCell",
    "JordanRNN",
    "JordanRNNCell",
    "LSTMCell",
    "LayerNormLSTM",
    "LayerNormLSTMCell",
    "PeepholeLSTM",
    "PeepholeLSTMCell",
    "SCRNCell",
    "Segmented",
    "Stack",
    "WordDropout",
    "WordHashing",
]
