"""Attention."""

import numpy as np


def softmax(scores, mask) -> np.ndarray:
    """Over the allowed places of one row; all zeros where there are none."""
    weights = np.zeros(len(scores))
    if mask.any():
        e = np.exp(scores[mask] - scores[mask].max())
        weights[mask] = e / e.sum()
    return weights


def attention_pool(weights, sequences, states=(), mask=None) -> list:
    """Yang et al. 2016, equations 5 to 7."""
    kernel, bias, context = weights
    if mask is None:
        mask = np.ones(sequences.shape[:2], "bool")
    shares = np.stack(
        [
            softmax(np.array([np.tanh(h @ kernel + bias) @ context[:, 0] for h in hs]), allowed)
            for hs, allowed in zip(sequences, mask, strict=True)
        ]
    )
    pooled = [
        sum(a * h for a, h in zip(row, hs, strict=True))
        for row, hs in zip(shares, sequences, strict=True)
    ]
    return [np.stack(pooled), shares]
