"""Recurrent, attention, decoding, structured and embedding layers for any Keras 3 model.

Shape letters: B batch, T time, S memory length, D features, U units, K classes, V vocabulary,
C context features, L letter trigrams of a word, G columns of all gates.
"""

if __name__ != "unroll.layers":
    raise ImportError("Import this package as `unroll.layers`: `from unroll import layers`.")


import os

import keras

from unroll.layers.attention import (
    AttentionPool,
    BahdanauAttention,
    LuongAttention,
    MemoryNetwork,
    QuestionGuidedAttention,
)
from unroll.layers.decoding import (
    AttentionDecoder,
    RecurrentDecoder,
    beam_search,
    greedy,
    minimum_bayes_risk,
    sample,
)
from unroll.layers.embedding import CharacterEmbedding, WordDropout, WordHashing
from unroll.layers.recurrent import (
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
from unroll.layers.structured import (
    CRF,
    CTCLoss,
    NGramLanguageModel,
    bio_transitions,
    ctc_beam_search,
    ctc_beam_search_with_language_model,
    ctc_greedy,
    ctc_infeasible,
    ctc_loss,
    pad_with_blanks,
)

__all__ = [
    "CRF",
    "GRU",
    "IRNN",
    "LSTM",
    "SCRN",
    "AttentionDecoder",
    "AttentionPool",
    "BahdanauAttention",
    "CTCLoss",
    "CharacterEmbedding",
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
    "LuongAttention",
    "MemoryNetwork",
    "NGramLanguageModel",
    "PeepholeLSTM",
    "PeepholeLSTMCell",
    "QuestionGuidedAttention",
    "RecurrentDecoder",
    "SCRNCell",
    "Segmented",
    "Stack",
    "WordDropout",
    "WordHashing",
    "beam_search",
    "bio_transitions",
    "ctc_beam_search",
    "ctc_beam_search_with_language_model",
    "ctc_greedy",
    "ctc_infeasible",
    "ctc_loss",
    "greedy",
    "minimum_bayes_risk",
    "pad_with_blanks",
    "sample",
]

if keras.backend.backend() == "tensorflow":
    # On a CPU, batched products that run at once and share a primitive of oneDNN's cache write into
    # freed memory (TensorFlow 2.21, oneDNN 3.7). TensorFlow has a cache of its own, a thread each.
    # oneDNN reads this with the first product.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "0")
