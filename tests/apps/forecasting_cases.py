"""Small forecasting models with random weights, and windows for them."""

import keras
import numpy as np

from unroll.apps.core.protocol import Trained
from unroll.apps.forecasting import app

COLUMNS, KNOWN, SERIES = ["load", "oil", "wind"], ["holiday", "price"], ["north", "south"]
CONTEXT, HORIZON, SEGMENT = 20, 7, 6
BEGIN = 1_700_000_000 // 3600 * 3600
_MEANS, _STDS = [[0.5, 1.0, 1.5]] * 3, [[1.0, 2.0, 3.0], [1.5, 2.5, 3.5], [0.5, 0.6, 0.7]]
ASSETS = {
    "columns": COLUMNS,
    "known": KNOWN,
    "series": SERIES,
    "calendar": {
        "frequency": "h",
        "seasonality": 24,
        "time_features": ["hour", "day of month"],
        "mean": _MEANS,
        "std": _STDS,
    },
}
VARIANTS = {
    "direct": {},
    "autoregressive": {"model": "autoregressive", "output": "normal", "cell": "LSTM"},
    "direct, student_t": {"output": "student_t", "scaling": "last", "depth": 1},
    "autoregressive, counts": {
        "model": "autoregressive",
        "output": "negative_binomial",
        "scaling": "mean",
    },
    "autoregressive, point": {
        "model": "autoregressive",
        "output": "point",
        "series_embedding_dim": 0,
        "time_features": False,
    },
}


def make(assets: dict = ASSETS, **options) -> Trained:
    """A model with random weights."""
    small = {
        "context": CONTEXT, "horizon": HORIZON, "segment": SEGMENT, "lags": "1,5", "units": 5,
        "depth": 2, "series_embedding_dim": 3, "samples": 11, "dropout": 0.2,
    }  # fmt: skip
    keras.utils.set_random_seed(1)
    config = app.Config(**(small | options))
    model = app.build(config, assets)
    # Random weights, since initial biases of zero would hide a mistake.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.4, size=weight.shape))
    return Trained(config, assets, model)


def windows(count: int = 3, seed: int = 0, context: int = CONTEXT) -> tuple[dict, np.ndarray]:
    """Features with gaps, and the values that follow, `[B, H, C]`."""
    rng = np.random.default_rng(seed)
    length = context + HORIZON
    values = rng.gamma(2.0, 3.0, (count, length, len(COLUMNS))).astype("float32")
    values[0, : context // 3] = np.nan  # before the first value
    values[-1, 5:9, 1] = np.nan
    features = {
        "history": values[:, :context],
        "times": (BEGIN + 3600 * np.arange(length))[None].repeat(count, axis=0),
        "known": rng.normal(size=(count, length, len(KNOWN))).astype("float32"),
        "series": np.arange(count, dtype="int32") % 3,
    }
    return features, values[:, context:]


def of_network(trained: Trained, features: dict, future: np.ndarray) -> dict:
    """The inputs of the model."""
    every = {**features, "future": future}
    return {name: every[name] for name in trained.model.input}
