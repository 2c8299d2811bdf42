"""What needs no training: the last value, and the value of a season before."""

import tensorflow as tf

from unroll.apps.core.protocol import Assets, Data
from unroll.apps.forecasting.metrics import Scores

# The label that is the forecast, by the name of the baseline.
FORECASTS = {"last_value": "last", "seasonal_naive": "seasonal"}
_OF_BOTH = ("mse", "mae", "smape", "mase", "owa")  # figures that are given of both


def naive_scores(
    dataset: tf.data.Dataset,
    assets: Assets,
    levels: tuple[float, ...] = (),
    movement: tuple[float, float] | None = None,
) -> dict[str, dict]:
    """The figures of both naive forecasts on a split, in one pass.

    Args:
        dataset: of `forecasting.windows` with `references`.
        assets, levels, movement: as in `metrics.scores`.
    """
    found = {name: Scores(assets, levels, movement) for name in FORECASTS}
    for features, labels in dataset.as_numpy_iterator():
        for name, label in FORECASTS.items():
            forecast = labels[label]
            if forecast.ndim == 2:
                forecast = forecast[:, None].repeat(labels["values"].shape[1], axis=1)
            found[name].add({"mean": forecast}, features, labels)
    return {name: sums.figures() for name, sums in found.items()}


def baseline(
    data: Data,
    split: str,
    levels: tuple[float, ...] = (),
    movement: tuple[float, float] | None = None,
) -> dict:
    """The figures of the naive forecast with the smaller `mse` on "valid", and those of the other.

    Args:
        data: with the splits "valid" and `split`.
        split: the split to measure.
        levels, movement: as in `metrics.scores`.

    Returns:
        "what" it is, its figures, and those of the other with its name before theirs. The last
        value has no direction: it counts as down.
    """
    arguments = data.assets, levels, movement
    valid = naive_scores(data["valid"], *arguments)
    best, other = sorted(FORECASTS, key=lambda name: valid[name]["mse"])
    found = valid if split == "valid" else naive_scores(data[split], *arguments)
    season = data.assets["calendar"]["seasonality"]
    what = {
        "seasonal_naive": f"seasonal naive, {season} steps",
        "last_value": "last value",
    }[best]
    own = {k: v for k, v in found[best].items() if k not in ("examples", f"p_{best}")}
    others = {f"{other}_{name}": found[other][name] for name in _OF_BOTH if name in found[other]}
    return {"what": what, **own, **others}
