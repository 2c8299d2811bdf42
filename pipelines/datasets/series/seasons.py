"""Generated series with a trend, two seasons, events, noise and gaps."""

from dataclasses import dataclass

import numpy as np
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Generated
from unroll.pipelines.datasets.series.base import SeriesBuilder, cut, examples_of
from unroll.pipelines.forecasting import Series, Table

SERIES = 24
STEPS = {"train": 42 * 24, "valid": 7 * 24, "test": 14 * 24}  # hours
FREQUENCY, DAY, WEEK = "h", 24, 168
NOISE = 0.4  # the standard deviation, of one of about 1.3 without noise
BEGIN = 1_704_067_200  # 2024-01-01, a Monday
_EVENTS = 1 / 60  # of the hours
_EVENT_HOURS = 6
_GAPS = 1 / 300  # of the hours
_GAP_HOURS = 24


@dataclass(frozen=True)
class Truth:
    """What a series is without its noise.

    Attributes:
        series: what is seen.
        mean: `[T]`, the mean of the distribution that a value is sampled from.
        std: the standard deviation of that distribution, which is normal.
    """

    series: Series
    mean: np.ndarray
    std: float


def generate(count: int = SERIES, seed: int = 1) -> list[Truth]:
    """Series with what they are without noise. The first ones do not depend on their number."""
    return [_series(k, np.random.default_rng((seed, k))) for k in range(count)]


def _series(number: int, rng: np.random.Generator) -> Truth:
    length = sum(STEPS.values())
    hours = np.arange(length)
    size = np.exp(rng.normal(1, 1))
    level, slope = rng.normal(0, 3), rng.normal(0, 0.5)
    daily, weekly, effect = rng.uniform(0.5, 1.5), rng.uniform(0.5, 1.5), rng.uniform(1, 2)
    angle = 2 * np.pi * (hours % DAY) / DAY
    of_day = np.sin(angle - 2) + 0.5 * np.sin(2 * angle)
    is_weekend = hours % WEEK >= 5 * DAY
    events = _blocks(rng, length, _EVENTS, _EVENT_HOURS)
    mean = level + slope * hours / length + daily * of_day - weekly * is_weekend + effect * events
    values = mean + rng.normal(0, NOISE, length)
    values[_blocks(rng, length, _GAPS, rng.integers(2, _GAP_HOURS)) > 0] = np.nan
    series = Series(
        f"series {number + 1}",
        BEGIN + 3600 * hours,
        (size * values[:, None]).astype("float32"),
        events[:, None].astype("float32"),
    )
    return Truth(series, size * mean, size * NOISE)


def _blocks(rng: np.random.Generator, length: int, share: float, width: int) -> np.ndarray:
    """Ones in blocks of `width` steps that begin at random, else zeros."""
    begins = (rng.random(length) < share).astype("float64")
    return np.minimum(np.convolve(begins, np.ones(width))[:length], 1)


class Seasons(Generated, SeriesBuilder, skip_registration=True):
    """Generated hourly series, 24 in each split, of 42, 7 and 14 days.

    A series is the sum of a level, a linear trend, a pattern of the hour of the day, one of the
    weekend, events, and normal noise, times its size. The patterns are the same in all series, with
    amplitudes of their own. The events last six hours and are known ahead of time: the covariate
    `event` is 1. Some hours are missing.

    Who knows all this but the noise has the error of the noise: see `best_possible`.
    """

    VERSION = tfds.core.Version("1.0.0")
    SIZES = dict.fromkeys(STEPS, SERIES)

    def _split_generators(self, dl_manager):
        tables = splits(max(self.sizes.values()))
        return {split: examples_of(table) for split, table in tables.items()}


def best_possible(horizon: int, split: str = "test", count: int = SERIES) -> dict[str, float]:
    """The errors of a forecast that is everything but the noise, on all windows of a split.

    Args:
        horizon: of the windows.
        split: "valid" or "test".
        count: the number of series.

    Returns:
        `mse` and `mae` of values that are standardized by the training split of their series.
    """
    names = list(STEPS)
    start = sum(STEPS[name] for name in names[: names.index(split)])
    steps = STEPS[split]
    windows = np.convolve(np.ones(steps - horizon + 1), np.ones(horizon))  # that have a step
    total = {"mse": 0.0, "mae": 0.0}
    weight = 0.0
    for truth in generate(count):
        values = truth.series.values[:, 0].astype("float64")
        errors = (values - truth.mean)[start : start + steps] / np.nanstd(values[: STEPS["train"]])
        total["mse"] += np.nansum(windows * errors**2)
        total["mae"] += np.nansum(windows * np.abs(errors))
        weight += windows[~np.isnan(errors)].sum()
    return {name: float(value / weight) for name, value in total.items()}


def splits(count: int = SERIES) -> dict[str, Table]:
    """The table of each split, of a number of series."""
    every = [truth.series for truth in generate(count)]
    table = Table(["value"], ["event"], FREQUENCY, DAY, every, [0] * count)
    ends = dict(zip(STEPS, np.cumsum(list(STEPS.values())).tolist(), strict=True))
    return cut(table, [ends] * count)
