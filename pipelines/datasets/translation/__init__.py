"""Pairs of sentences in two languages, and dialogs."""
