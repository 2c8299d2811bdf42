"""Layers whose output has a structure of its own."""

from layers.structured.crf import CRF, bio_moves

__all__ = ["CRF", "bio_moves"]
