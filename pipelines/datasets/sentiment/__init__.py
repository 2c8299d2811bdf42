"""Texts with a label."""
