"""Attention."""

from layers.attention.bahdanau import BahdanauAttention
from layers.attention.luong import LuongAttention
from layers.attention.pool import AttentionPool

__all__ = ["AttentionPool", "BahdanauAttention", "LuongAttention"]
