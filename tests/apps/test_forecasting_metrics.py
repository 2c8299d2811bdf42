"""The figures of forecasts against plain loops, published figures, and the paired test."""

import numpy as np
import pytest
from scipy import stats

from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Data
from unroll.apps.forecasting.baselines import baseline, naive_scores
from unroll.apps.forecasting.metrics import Scores, paired_test, scores
from unroll.pipelines import datasets, forecasting
from unroll.pipelines.datasets.series import seasons
from unroll.pipelines.forecasting import Series, Table

LEVELS = (0.1, 0.5, 0.9)
B, L, H, C, SERIES = 5, 4, 3, 2, 2
NAN = np.nan


def assets(mean=None, std=None) -> dict:
    shape = (SERIES + 1, C)
    mean = np.zeros(shape) if mean is None else mean
    std = np.ones(shape) if std is None else std
    calendar = {"mean": np.asarray(mean).tolist(), "std": np.asarray(std).tolist()}
    return {"series": ["a", "b"], "calendar": calendar | {"seasonality": 2, "frequency": "h"}}


def batch(seed: int = 0) -> tuple[dict, dict, dict]:
    rng = np.random.default_rng(seed)
    values = rng.normal(5, 3, (B, H, C))
    values[rng.random(values.shape) < 0.2] = NAN
    mean = rng.normal(5, 3, (B, H, C))
    quantiles = np.sort(rng.normal(5, 3, (B, H, C, len(LEVELS))), axis=-1)
    features = {
        "history": np.zeros((B, L, C)),
        "times": 10 * seed + np.arange(B)[:, None] + np.arange(-L, H),
        "series": np.arange(B) % (SERIES + 1),
    }
    labels = {
        "values": values,
        "last": rng.normal(5, 3, (B, C)),
        "seasonal": rng.normal(5, 3, (B, H, C)),
        "naive2": rng.normal(5, 3, (B, H, C)),
        "scale": rng.uniform(1, 2, (B, C)),
    }
    return {"mean": mean, "quantiles": quantiles}, features, labels


class TestFigures:
    def loops(self, batches: list, std: np.ndarray, movement: tuple) -> dict:
        """The figures, value by value."""
        sums: dict[str, list] = {}
        size, directions = 0.0, []
        for forecast, features, labels in batches:
            for b, h, c in np.ndindex(B, H, C):
                y, f = labels["values"][b, h, c], forecast["mean"][b, h, c]
                if np.isnan(y):
                    continue
                error = (f - y) / std[features["series"][b], c]
                found = {"mse": error**2, "mae": abs(error)}
                for name, g in (("", f), ("naive2_", labels["naive2"][b, h, c])):
                    found[f"{name}smape"] = 200 * abs(g - y) / (abs(g) + abs(y))
                    found[f"{name}mase"] = abs(g - y) / labels["scale"][b, c]
                low, _, high = q = forecast["quantiles"][b, h, c]
                found["coverage_80"] = low <= y <= high
                found["loss"] = np.mean(
                    [
                        2 * ((y < each) - level) * (each - y)
                        for level, each in zip(LEVELS, q, strict=True)
                    ]
                )
                size += abs(y)
                for name, value in found.items():
                    sums.setdefault(name, []).append(value)
                if h == 0:
                    last = labels["last"][b, c]
                    change = (y - last) / abs(last)
                    if change <= movement[0] or change > movement[1]:
                        directions.append((change > 0, f > last))
        means = {name: np.mean(values) for name, values in sums.items()}
        means["owa"] = (
            means["smape"] / means.pop("naive2_smape") + means["mase"] / means.pop("naive2_mase")
        ) / 2
        means["weighted_quantile_loss"] = np.sum(sums["loss"]) / size
        del means["loss"]
        directions = np.array(directions)
        means["direction_accuracy"] = np.mean(directions[:, 0] == directions[:, 1])
        means["direction_mcc"] = np.corrcoef(directions.T)[0, 1]
        return means

    def test_they_are_those_of_a_loop_over_all_values(self):
        std, movement = np.random.default_rng(9).uniform(0.5, 2, (SERIES + 1, C)), (-0.1, 0.2)
        batches = [batch(seed) for seed in range(3)]
        found = scores(batches, assets(std=std), LEVELS, movement)
        expected = self.loops(batches, std, movement)
        assert found["examples"] == 3 * B
        assert set(expected) < set(found)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-9), name
        assert all(isinstance(value, float | int) for value in found.values())

    def test_batches_may_have_any_size(self):
        whole = [batch(seed) for seed in range(4)]
        joined = tuple(
            {name: np.concatenate([part[k][name] for part in whole]) for name in whole[0][k]}
            for k in range(3)
        )
        one = scores([joined], assets(), LEVELS, (0, 0))
        several = scores(whole, assets(), LEVELS, (0, 0))
        assert one == pytest.approx(several, rel=1e-9)

    def test_what_cannot_be_computed_is_absent(self):
        forecast, features, labels = batch()
        labels["scale"][:] = NAN
        del forecast["quantiles"]
        found = scores([(forecast, features, labels)], assets())
        assert set(found) == {"examples", "mse", "mae", "smape"}
        # Without quantiles, the mean is taken for all levels: their mean loss is half the error.
        found = scores([(forecast, features, labels)], assets(), LEVELS)
        values = labels["values"]
        error = np.nansum(np.abs(forecast["mean"] - values)) / np.nansum(np.abs(values))
        assert found["weighted_quantile_loss"] == pytest.approx(error)
        assert "coverage_80" not in found

    def test_a_perfect_forecast(self):
        _, features, labels = batch()
        values = np.nan_to_num(labels["values"])
        quantiles = np.repeat(values[..., None], 3, axis=-1)
        made = {"mean": values, "quantiles": quantiles}, features, labels
        found = scores([made], assets(), LEVELS, (0, 0))
        assert [found[k] for k in ("mse", "mae", "smape", "mase", "owa")] == [0] * 5
        assert found["weighted_quantile_loss"] == 0
        assert found["coverage_80"] == found["direction_accuracy"] == found["direction_mcc"] == 1

    @pytest.mark.parametrize("name", ["mean", "quantiles"])
    def test_a_forecast_that_is_not_a_number_is_refused(self, name):
        forecast, features, labels = batch()
        forecast[name][1, 2, 0] = NAN
        with pytest.raises(UsageError, match="forecasts values that are not numbers"):
            scores([(forecast, features, labels)], assets(), LEVELS)

    def test_zeros_have_no_relative_error(self):
        forecast, features, labels = batch()
        labels["values"][:], forecast["mean"][:] = 0, 0
        assert scores([(forecast, features, labels)], assets())["smape"] == 0


class TestPairedTest:
    def p(self, differences, horizon=1, series=None):
        count = len(differences)
        begin = np.arange(count)
        series = np.zeros(count) if series is None else series
        return paired_test(np.asarray(differences), series, begin, begin + horizon - 1)

    def test_windows_that_do_not_overlap_have_a_t_test(self):
        d = np.random.default_rng(0).normal(0.1, 1, 200)
        expected = stats.ttest_1samp(d, 0).pvalue
        assert self.p(d) == pytest.approx(expected, rel=0.02)

    @pytest.mark.parametrize("horizon", [1, 5, 20])
    def test_equal_forecasts_differ_as_often_as_the_level_says(self, horizon):
        """The losses of overlapping windows are sums of the same errors."""
        rng = np.random.default_rng(horizon)
        count, rejected = max(400, 60 * horizon), 0
        for _ in range(300):
            errors = rng.normal(size=count + horizon - 1)
            rejected += self.p(np.convolve(errors, np.ones(horizon), "valid"), horizon) < 0.05
        assert 0.02 < rejected / 300 < 0.1
        # As if they were independent, it would be three of four.
        naive = [
            stats.ttest_1samp(
                np.convolve(rng.normal(size=count + horizon - 1), np.ones(horizon), "valid"), 0
            ).pvalue
            < 0.05
            for _ in range(300)
        ]
        assert np.mean(naive) > (0.3 if horizon > 1 else 0.01)

    def test_a_difference_is_found_whatever_the_order_of_the_windows(self):
        rng = np.random.default_rng(0)
        d = np.convolve(rng.normal(size=604), np.ones(5) / 5, "valid") - 0.3
        begin, order = np.arange(600), rng.permutation(600)
        found = paired_test(d[order], np.zeros(600), begin[order], begin[order] + 4)
        assert found == pytest.approx(self.p(d, 5))
        assert found < 1e-6
        assert self.p(-d, 5) == pytest.approx(found)

    def test_windows_of_the_same_time_are_one_observation(self):
        d = np.random.default_rng(0).normal(0.1, 1, 100)
        begin = np.tile(np.arange(100), 10)
        found = paired_test(np.tile(d, 10), np.repeat(np.arange(10), 100), begin, begin)
        assert found == pytest.approx(self.p(d))

    def test_one_window_of_each_of_many_series(self):
        d = np.random.default_rng(0).normal(0.1, 1, 50)
        found = paired_test(d, np.arange(50), np.zeros(50), np.full(50, 9))
        assert found == pytest.approx(stats.ttest_1samp(d, 0).pvalue, rel=0.02)

    @pytest.mark.parametrize(
        ("differences", "horizon"),
        [(np.zeros(100), 1), (np.ones(100), 1), (np.arange(7.0), 1), (np.arange(39.0), 5),
         (np.full(100, NAN), 1)],
    )  # fmt: skip
    def test_without_enough_data_there_is_none(self, differences, horizon):
        assert np.isnan(self.p(differences, horizon))

    def test_missing_windows_do_not_count(self):
        d = np.random.default_rng(0).normal(0.1, 1, 100)
        with_missing = np.concatenate([d, [NAN, NAN]])
        assert self.p(with_missing) == pytest.approx(self.p(d))


class TestBaseline:
    def data(self, seasonality: int = 4) -> Data:
        """A series with a season, whose training part it begins with."""
        values = np.resize([1.0, 5.0, 2.0, 9.0], 90) + np.random.default_rng(0).normal(0, 0.1, 90)
        series = Series(
            "a", np.arange(90), values[:, None].astype("float32"), np.zeros((90, 0), "float32")
        )

        def part(start: int, end: int) -> Table:
            own = Series("a", series.times[:end], series.values[:end], series.known[:end])
            return Table(["x"], [], "", seasonality, [own], [start])

        made = forecasting.build_assets(part(0, 30))
        splits = {
            name: forecasting.windows(
                part(*ends), ["a"], context=4, horizon=3, batch_size=8, references=True
            )
            for name, ends in {"valid": (30, 42), "test": (42, 90)}.items()
        }
        return Data(splits, made)

    def test_the_better_on_the_validation_split_and_the_other(self):
        data = self.data()
        both = naive_scores(data["test"], data.assets, LEVELS)
        found = baseline(data, "test", LEVELS)
        assert found["what"] == "seasonal naive, 4 steps"
        assert found["mse"] == both["seasonal_naive"]["mse"] < 0.01
        assert found["last_value_mse"] == both["last_value"]["mse"] > 1
        assert {"p_last_value", "owa", "weighted_quantile_loss"} < set(found)
        assert not {"examples", "p_seasonal_naive"} & set(found)

    def test_with_a_wrong_season_it_is_the_last_value(self):
        assert baseline(self.data(seasonality=1), "test")["what"] == "last value"

    def test_the_forecasts_are_those_of_the_windows(self):
        data = self.data()
        total = Scores(data.assets)
        for features, labels in data["test"].as_numpy_iterator():
            total.add({"mean": labels["seasonal"]}, features, labels)
        expected = total.figures()
        assert naive_scores(data["test"], data.assets)["seasonal_naive"] == expected


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("name", "horizon", "label", "expected"),
    [
        ("etth1", 96, "seasonal", {"mse": 0.512, "mae": 0.433, "examples": 2785}),
        ("etth2", 96, "seasonal", {"mse": 0.391, "mae": 0.380, "examples": 2785}),
        ("exchange_rate", 96, "last", {"mse": 0.081, "mae": 0.196, "examples": 1422}),
        # Makridakis et al. 2020, "The M4 Competition", of sNaive, Naive 1 and Naive 2.
        ("m4_hourly", 48, "seasonal", {"smape": 13.912, "mase": 1.193, "owa": 0.628}),
        ("m4_hourly", 48, "last", {"smape": 43.003, "mase": 11.608, "owa": 3.593}),
        ("m4_hourly", 48, "naive2", {"smape": 18.383, "mase": 2.395, "owa": 1}),
    ],
)
def test_published_figures_of_naive_forecasts(name, horizon, label, expected, manual_dir, tmp_path):
    made = datasets.builder(name, data_dir=tmp_path)
    train, test = (forecasting.read_table(datasets.read(made, s)) for s in ("train", "test"))
    made = forecasting.build_assets(train)
    total = Scores(made)
    windows = forecasting.windows(
        test, made["series"], context=24, horizon=horizon, batch_size=256, references=True
    )
    for features, labels in windows.as_numpy_iterator():
        forecast = labels[label]
        if label == "last":
            forecast = np.repeat(forecast[:, None], horizon, axis=1)
        total.add({"mean": forecast}, features, labels)
    found = total.figures()
    for figure, value in expected.items():
        assert found[figure] == pytest.approx(value, abs=6e-4)


@pytest.mark.exhaustive
def test_the_directions_of_stocks_are_the_published_ones(manual_dir, tmp_path):
    """Xu and Cohen 2018 have 3,720 in the test split, of which half are up."""
    test = forecasting.read_table(
        datasets.read(datasets.builder("stocknet", data_dir=tmp_path), "test")
    )
    windows = forecasting.windows(test, [], context=5, horizon=1, batch_size=256, references=True)
    changes = []
    for _, labels in windows.as_numpy_iterator():
        changes.append(labels["values"][:, 0, 0] / labels["last"][:, 0] - 1)
    changes = np.concatenate(changes)
    is_up, is_down = changes > 0.0055, changes <= -0.005
    assert is_up.sum() + is_down.sum() == 3720
    assert 0.49 < is_up.sum() / 3720 < 0.52


def test_who_knows_all_but_the_noise_has_the_best_possible_error():
    splits, truths = seasons.splits(4), seasons.generate(4)
    made = forecasting.build_assets(splits["train"])
    windows = forecasting.windows(
        splits["test"], made["series"], context=4, horizon=24, batch_size=64, references=True
    )
    total = Scores(made, LEVELS)
    spread = stats.norm.ppf(LEVELS)
    for features, labels in windows.as_numpy_iterator():
        steps = (features["times"][:, 4:] - seasons.BEGIN) // 3600
        own = [truths[k - 1] for k in features["series"]]
        mean = np.stack([truth.mean[at] for truth, at in zip(own, steps, strict=True)])[..., None]
        std = np.array([truth.std for truth in own])[:, None, None, None]
        total.add({"mean": mean, "quantiles": mean[..., None] + std * spread}, features, labels)
    found = total.figures()
    best = seasons.best_possible(24, "test", 4)
    assert found["mse"] == pytest.approx(best["mse"], rel=1e-5)
    assert found["mae"] == pytest.approx(best["mae"], rel=1e-5)
    assert found["coverage_80"] == pytest.approx(0.8, abs=0.03)
    assert found["p_seasonal_naive"] < 1e-6
