"""Decoders, and the search for sequences."""

from unroll.layers.decoding.attention_decoder import AttentionDecoder
from unroll.layers.decoding.bayes_risk import minimum_bayes_risk
from unroll.layers.decoding.recurrent_decoder import RecurrentDecoder
from unroll.layers.decoding.search import SearchResult, beam_search, greedy, sample

__all__ = [
    "AttentionDecoder",
    "RecurrentDecoder",
    "SearchResult",
    "beam_search",
    "greedy",
    "minimum_bayes_risk",
    "sample",
]
