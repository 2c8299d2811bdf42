"""Modelling blocks that several apps use."""
