"""Pairs of sentences in two languages, and dialogues."""
