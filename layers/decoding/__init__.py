"""Decoders, and the search for sequences."""

from layers.decoding.attention_decoder import AttentionDecoder
from layers.decoding.bayes_risk import minimum_bayes_risk
from layers.decoding.recurrent_decoder import RecurrentDecoder
from layers.decoding.search import Found, beam_search, greedy, sample

__all__ = [
    "AttentionDecoder",
    "Found",
    "RecurrentDecoder",
    "beam_search",
    "greedy",
    "minimum_bayes_risk",
    "sample",
]
