"""Attention."""

from layers.attention.bahdanau import BahdanauAttention
from layers.attention.luong import LuongAttention
from layers.attention.memory_hops import MemoryHops
from layers.attention.pool import AttentionPool
from layers.attention.question_guided import QuestionGuidedAttention

__all__ = [
    "AttentionPool",
    "BahdanauAttention",
    "LuongAttention",
    "MemoryHops",
    "QuestionGuidedAttention",
]
