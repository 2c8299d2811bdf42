"""Attention."""

from unroll.layers.attention.bahdanau import BahdanauAttention
from unroll.layers.attention.luong import LuongAttention
from unroll.layers.attention.memory_network import MemoryNetwork
from unroll.layers.attention.pool import AttentionPool
from unroll.layers.attention.question_guided import QuestionGuidedAttention

__all__ = [
    "AttentionPool",
    "BahdanauAttention",
    "LuongAttention",
    "MemoryNetwork",
    "QuestionGuidedAttention",
]
