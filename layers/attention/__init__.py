"""Attention.

`Attention` is the base class of `BahdanauAttention` and `LuongAttention`; subclass it to use your
own attention in an `AttentionDecoder`. `scores` has the score functions and `masked_softmax`.
"""

from unroll.layers.attention import scores
from unroll.layers.attention.bahdanau import BahdanauAttention
from unroll.layers.attention.base import Attention
from unroll.layers.attention.luong import LuongAttention
from unroll.layers.attention.memory_network import MemoryNetwork
from unroll.layers.attention.monotonic import MonotonicAttention
from unroll.layers.attention.pool import AttentionPool
from unroll.layers.attention.question_guided import QuestionGuidedAttention

__all__ = [
    "Attention",
    "AttentionPool",
    "BahdanauAttention",
    "LuongAttention",
    "MemoryNetwork",
    "MonotonicAttention",
    "QuestionGuidedAttention",
    "scores",
]
