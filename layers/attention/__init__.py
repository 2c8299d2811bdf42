"""Attention."""

from layers.attention.pool import AttentionPool

__all__ = ["AttentionPool"]
