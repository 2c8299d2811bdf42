"""Structured outputs: a softmax in clusters, CRF, CTC, and an n-gram language model."""

from unroll.layers.structured.adaptive_softmax import AdaptiveSoftmax
from unroll.layers.structured.bio_transitions import bio_transitions
from unroll.layers.structured.crf import CRF
from unroll.layers.structured.ctc_decoding import CTCResult, ctc_beam_search, ctc_greedy
from unroll.layers.structured.ctc_language_model import ctc_beam_search_with_language_model
from unroll.layers.structured.ctc_loss import CTCLoss, ctc_infeasible, ctc_loss, pad_with_blanks
from unroll.layers.structured.ngram_language_model import NGramLanguageModel

__all__ = [
    "CRF",
    "AdaptiveSoftmax",
    "CTCLoss",
    "CTCResult",
    "NGramLanguageModel",
    "bio_transitions",
    "ctc_beam_search",
    "ctc_beam_search_with_language_model",
    "ctc_greedy",
    "ctc_infeasible",
    "ctc_loss",
    "pad_with_blanks",
]
