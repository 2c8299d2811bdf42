"""Recurrent, attention, decoding, structured and embedding layers for any Keras 3 model.

Shape letters in all files: B batch, T time, S memory length, D features, U units, K classes,
V vocabulary, C context features, L letter trigrams of a word, G columns of all gates.
"""

if __name__ != "unroll.layers":
    raise ImportError("Import this package as `unroll.layers`: `from unroll import layers`.")

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
    ForbiddenTokens,
    MinLength,
    NoRepeatNgrams,
    RecurrentDecoder,
    RepetitionPenalty,
    Temperature,
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
    AdaptiveSoftmax,
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
    "AdaptiveSoftmax",
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
    "ForbiddenTokens",
    "GRUCell",
    "IRNNCell",
    "JordanRNN",
    "JordanRNNCell",
    "LSTMCell",
    "LayerNormLSTM",
    "LayerNormLSTMCell",
    "LuongAttention",
    "MemoryNetwork",
    "MinLength",
    "NGramLanguageModel",
    "NoRepeatNgrams",
    "PeepholeLSTM",
    "PeepholeLSTMCell",
    "QuestionGuidedAttention",
    "RecurrentDecoder",
    "RepetitionPenalty",
    "SCRNCell",
    "Segmented",
    "Stack",
    "Temperature",
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
    from unroll.layers.onednn_tensorflow import turn_off_primitive_cache

    turn_off_primitive_cache()
