"""The last value, the seasonal naive and Naive2, against loops over each window."""

import numpy as np
import pytest

from unroll.pipelines import forecasting
from unroll.pipelines.forecasting import Series, Table
from unroll.pipelines.naive_forecasts import fill_forward, mase_scale, seasonal_indices

NAN = np.nan


def seasonal(length: int, period: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pattern = rng.uniform(0.5, 1.5, period)
    trend = np.linspace(10, 20, length)
    return trend * np.resize(pattern, length) * rng.uniform(0.95, 1.05, length)


def naive2(values: np.ndarray, period: int, horizon: int, indices: np.ndarray) -> np.ndarray:
    """The forecast after the last of `[T]` values, from the factors of a season."""
    steps = np.arange(len(values) + horizon)
    plain = values / indices[steps[: len(values)] % period]
    return plain[~np.isnan(plain)][-1] * indices[steps[len(values) :] % period]


@pytest.mark.parametrize("seasonality", [1, 4, 7])
def test_every_window_has_the_forecasts_of_what_is_before_it(seasonality):
    horizon, context = 6, 3
    rng = np.random.default_rng(0)
    made, starts = [], [25, 0, 40]
    for k, length in enumerate((45, 30, 52)):
        values = np.stack([seasonal(length, 4, k), rng.normal(size=length)], axis=-1)
        values[rng.random(values.shape) < 0.2] = NAN
        values[0] = 1.0
        times = np.arange(length, dtype="int64")
        known = np.zeros((length, 0), "float32")
        made.append(Series(str(k), times, values.astype("float32"), known))
    table = Table(["x", "y"], [], "", seasonality, made, starts)
    dataset = forecasting.windows(
        table, ["0", "1", "2"], context=context, horizon=horizon, batch_size=5, references=True
    )
    count = 0
    for features, labels in dataset.unbatch().as_numpy_iterator():
        k = features["series"] - 1
        values, start = made[k].values.astype("float64"), starts[k] or len(made[k].values)
        origin = int(features["times"][context])
        for c in range(2):
            past = values[:origin, c]
            last = past[~np.isnan(past)][-1]
            assert labels["last"][c] == np.float32(last)
            for h in range(horizon):
                step = origin + h
                while step >= 0 and (step >= origin or np.isnan(past[step])):
                    step -= seasonality
                expected = past[step] if step >= 0 else labels["seasonal"][h, c]
                if step >= 0:
                    np.testing.assert_allclose(labels["seasonal"][h, c], expected, rtol=1e-6)
            indices = seasonal_indices(
                fill_forward(values[:start], seasonality)[:, c : c + 1], seasonality
            )[:, 0]
            np.testing.assert_allclose(
                labels["naive2"][:, c], naive2(past, seasonality, horizon, indices), rtol=1e-5
            )
            differences = [
                abs(values[t, c] - values[t - seasonality, c]) for t in range(seasonality, start)
            ]
            np.testing.assert_allclose(labels["scale"][c], np.nanmean(differences), rtol=1e-5)
        count += 1
    assert count == sum(45 - 25 - 5 for _ in (0,)) + (30 - 9 + 1) + (52 - 40 - 5)


def test_a_season_that_is_longer_than_the_past_is_the_last_value():
    series = Series("a", np.arange(9), np.arange(9.0, dtype="float32")[:, None], np.zeros((9, 0)))
    table = Table(["x"], [], "", 20, [series], [4])
    dataset = forecasting.windows(table, [], context=2, horizon=5, batch_size=2, references=True)
    [(_, labels)] = dataset.as_numpy_iterator()
    assert labels["seasonal"][0, :, 0].tolist() == [3, 3, 3, 3, 3]
    assert labels["scale"][0, 0] == 1  # of steps


@pytest.mark.parametrize("period", [4, 7])
def test_factors_of_a_season_are_those_of_a_moving_average(period):
    values = seasonal(60, period, seed=2)
    ratios = [[] for _ in range(period)]
    half = period // 2
    for t in range(half, 60 - half):
        around = values[t - half : t + half + 1].copy()
        if period % 2 == 0:
            around[[0, -1]] /= 2
        ratios[t % period].append(values[t] / (around.sum() / period))
    expected = np.array([np.mean(each) for each in ratios])
    found = seasonal_indices(values[:, None], period)[:, 0]
    np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-12)
    assert np.ptp(found) > 0.3


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(1).uniform(1, 2, 60),  # without a season
        seasonal(11, 4, seed=2),  # fewer than three seasons
        seasonal(60, 4, seed=2) - 15,  # negative
        np.ones(60),
        np.where(np.arange(60) == 30, NAN, seasonal(60, 4, seed=2)),
    ],
)
def test_without_a_season_all_factors_are_one(values):
    assert seasonal_indices(values[:, None], 4).tolist() == [[1.0]] * 4


def test_a_constant_series_has_no_scale():
    assert np.isnan(mase_scale(np.ones((9, 1)), 2))
    assert np.isnan(mase_scale(np.full((9, 1), NAN), 2))
    assert mase_scale(np.array([[1.0], [4.0], [NAN], [5.0]]), 2) == 1


def test_missing_values_are_filled_from_the_period_before():
    values = np.array([[1, NAN], [NAN, 2], [NAN, NAN], [4, NAN], [NAN, 5.0]])
    np.testing.assert_array_equal(fill_forward(values), [[1, NAN], [1, 2], [1, 2], [4, 2], [4, 5]])
    np.testing.assert_array_equal(
        fill_forward(values, 2), [[1, NAN], [NAN, 2], [1, NAN], [4, 2], [1, 5]]
    )
