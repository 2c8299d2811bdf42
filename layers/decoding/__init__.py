"""Decoders and sequence search."""

from unroll.layers.decoding.attention_decoder import AttentionDecoder
from unroll.layers.decoding.beam_search import beam_search
from unroll.layers.decoding.greedy import greedy
from unroll.layers.decoding.logits_processors import (
    ForbiddenTokens,
    MinLength,
    NoRepeatNgrams,
    RepetitionPenalty,
    Temperature,
)
from unroll.layers.decoding.minimum_bayes_risk import minimum_bayes_risk
from unroll.layers.decoding.recurrent_decoder import RecurrentDecoder
from unroll.layers.decoding.sample import sample
from unroll.layers.decoding.search import SearchResult

__all__ = [
    "AttentionDecoder",
    "ForbiddenTokens",
    "MinLength",
    "NoRepeatNgrams",
    "RecurrentDecoder",
    "RepetitionPenalty",
    "SearchResult",
    "Temperature",
    "beam_search",
    "greedy",
    "minimum_bayes_risk",
    "sample",
]
