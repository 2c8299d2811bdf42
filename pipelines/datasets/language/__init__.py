"""Datasets of plain text, for language models."""
