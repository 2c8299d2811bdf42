"""Outputs with a structure of their own: tags with neighbours, labels without times."""

from unroll.layers.structured.crf import CRF, bio_transitions
from unroll.layers.structured.ctc import (
    CTCLoss,
    CTCResult,
    ctc_beam_search,
    ctc_greedy,
    ctc_infeasible,
    ctc_loss,
    pad_with_blanks,
)
from unroll.layers.structured.language_model import (
    NGramLanguageModel,
    ctc_beam_search_with_language_model,
)

__all__ = [
    "CRF",
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
