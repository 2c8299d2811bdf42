"""Training of the forecasting app on generated series."""

import dataclasses

import pytest

from unroll.apps.core import training
from unroll.apps.core.evaluation import load_trained
from unroll.apps.core.runs import Run
from unroll.apps.forecasting import app

MODELS = {
    "direct": {"context": 168, "units": 32, "dropout": 0.1},
    "autoregressive": {
        "model": "autoregressive",
        "output": "normal",
        "context": 48,
        "horizon": 6,
        "lags": "1,24",
        "units": 24,
        "samples": 20,
        "dropout": 0.0,
        "epoch_windows": 1500,
    },
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", MODELS)
def test_seasons_are_learned(kind, tmp_path):
    """The forecasts are better than both naive ones, and their intervals are about right."""
    small = {"generated_size": 0.2, "epochs": 5, "epoch_windows": 3000, "batch_size": 16}
    config = dataclasses.replace(app.PRESETS["seasons"], **(small | MODELS[kind]))
    run = Run(tmp_path)
    training.train(app, config, run)
    trained = load_trained(app, run)
    data = app.load(config, ("valid",), trained.assets)
    figures, baseline = app.score(trained, data["valid"]), app.baseline(config, data, "valid")
    others = [baseline["mse"], *(v for k, v in baseline.items() if k.endswith("_mse"))]
    assert len(others) == 2
    assert figures["mse"] < 0.6 * min(others)
    assert 0.6 < figures["coverage_80"] < 0.95
