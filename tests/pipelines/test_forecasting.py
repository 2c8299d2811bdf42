"""Windows of series: what they contain, their order, and that they do not see the future."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from unroll.pipelines import calendars, errors, forecasting
from unroll.pipelines.errors import DataError
from unroll.pipelines.forecasting import Series, Table

HOUR = 3600
SIZES = {"context": 5, "horizon": 3, "batch_size": 4}


@pytest.fixture(autouse=True)
def messages():
    """Every test prints its messages, although some are the same."""
    errors.report_once.cache_clear()


def series(name: str, length: int, first: float = 0.0, columns: int = 2) -> Series:
    """Values that count, those of the columns 1000 apart; the covariate is their negative."""
    steps = np.arange(length)
    values = first + steps[:, None] + 1000 * np.arange(columns)
    return Series(name, HOUR * steps, values.astype("float32"), -values[:, :1].astype("float32"))


def table(*every: Series, starts: list[int] | None = None, seasonality: int = 2) -> Table:
    columns = [f"x{k}" for k in range(every[0].values.shape[1])]
    return Table(columns, ["k"], "h", seasonality, list(every), starts or [0] * len(every))


def read(dataset) -> tuple[dict, np.ndarray]:
    """All windows of a dataset."""
    batches = list(dataset.as_numpy_iterator())
    assert len(batches) == len(dataset)
    features = {k: np.concatenate([b[0][k] for b in batches]) for k in batches[0][0]}
    return features, np.concatenate([b[1] for b in batches])


class TestContents:
    def test_a_window_is_a_slice_of_a_series(self):
        made = table(series("a", 12), series("b", 9, 100.0))
        dataset = forecasting.windows(made, ["z", "b"], **SIZES)
        features, labels = read(dataset)
        # 12 - 3 - 5 + 1 of the first, 2 of the second; from the past to the future.
        origins = [*range(5, 10), *range(5, 7)]
        bases = [0] * 5 + [100] * 2
        assert len(labels) == 7
        for k, (origin, base) in enumerate(zip(origins, bases, strict=True)):
            past, future = np.arange(origin - 5, origin), np.arange(origin, origin + 3)
            np.testing.assert_array_equal(features["history"][k, :, 0], base + past)
            np.testing.assert_array_equal(features["history"][k, :, 1], base + past + 1000)
            np.testing.assert_array_equal(labels[k, :, 0], base + future)
            both = np.concatenate([past, future])
            np.testing.assert_array_equal(features["times"][k], HOUR * both)
            np.testing.assert_array_equal(features["known"][k, :, 0], -(base + both))
        assert features["series"].tolist() == [0] * 5 + [2] * 2
        types = {name: value.dtype.name for name, value in features.items()}
        assert types == {
            "history": "float32", "times": "int64", "known": "float32", "series": "int32",
        }  # fmt: skip
        spec = dataset.element_spec[0]
        assert spec["history"].shape == (None, 5, 2)
        assert spec["known"].shape == (None, 8, 1)

    def test_all_targets_of_a_split_and_none_of_another(self):
        made = table(series("a", 12), series("b", 9), starts=[6, 0])
        _, labels = read(forecasting.windows(made, [], **SIZES))
        assert labels[:4, :, 0].tolist() == [[6, 7, 8], [7, 8, 9], [8, 9, 10], [9, 10, 11]]
        # A split that begins with a series has windows with a whole past.
        assert labels[4:, 0, 0].tolist() == [5, 6]

    def test_without_covariates_there_is_no_feature_of_them(self):
        made = dataclasses.replace(series("a", 12), known=np.zeros((12, 0), "float32"))
        dataset = forecasting.windows(dataclasses.replace(table(made), known=[]), [], **SIZES)
        assert set(dataset.element_spec[0]) == {"history", "times", "series"}
        assert len(list(dataset.unbatch())) == 5

    def test_a_stride_counts_from_the_start_of_the_split(self):
        made = table(series("a", 20), starts=[9])
        _, labels = read(forecasting.windows(made, [], stride=4, **SIZES))
        assert labels[:, 0, 0].tolist() == [9, 13, 17]

    def test_short_series_are_padded_in_front(self):
        features, labels = read(forecasting.windows(table(series("a", 7)), [], **SIZES))
        assert labels[:, 0, 0].tolist() == [3, 4]
        assert np.isnan(features["history"][:, :, 0]).sum(axis=1).tolist() == [2, 1]
        np.testing.assert_array_equal(features["history"][0, 2:, 0], [0, 1, 2])
        assert features["times"][0].tolist() == [HOUR * k for k in range(-2, 6)]
        assert features["known"][0, :, 0].tolist() == [0, 0, 0, -1, -2, -3, -4, -5]

    def test_a_window_begins_after_each_column_has_a_value(self):
        made = series("a", 12)
        made.values[:6, 1] = np.nan
        empty = dataclasses.replace(series("b", 12), name="b")
        empty.values[:] = np.nan
        _, labels = read(forecasting.windows(table(made, empty, starts=[4, 4]), [], **SIZES))
        assert labels[:, 0, 0].tolist() == [7, 8, 9]

    def test_series_that_are_too_short_are_counted(self, capsys):
        made = table(series("a", 12), series("b", 3), series("c", 20), starts=[5, 0, 18])
        _, labels = read(forecasting.windows(made, [], **SIZES))
        assert len(labels) == 5
        assert capsys.readouterr().err == (
            "unroll: 2 of 3 series are left out: a forecast of 3 steps needs as many in a split, "
            "and a value before them.\n"
        )
        with pytest.raises(DataError, match=r"the longest has 3 steps\. Use a smaller"):
            forecasting.windows(table(series("b", 3), series("c", 20), starts=[0, 18]), [], **SIZES)


class TestOrder:
    def windows(self, **options):
        made = table(series("a", 60, columns=1), series("b", 30, 100.0, columns=1))
        return forecasting.windows(made, ["a", "b"], **SIZES, **options)

    def firsts(self, dataset) -> list[float]:
        return read(dataset)[1][:, 0, 0].tolist()

    def test_each_epoch_has_all_windows_in_an_order_of_its_own(self):
        dataset = self.windows(shuffle=3)
        epochs = [self.firsts(dataset) for _ in range(2)]
        expected = self.firsts(self.windows())
        assert len(expected) == len(dataset) * 4 == 76
        assert epochs[0] != epochs[1] != expected
        assert [sorted(epoch) for epoch in epochs] == [sorted(expected)] * 2
        again = self.windows(shuffle=3)
        assert [self.firsts(again) for _ in range(2)] == epochs
        assert self.firsts(self.windows(shuffle=4)) != epochs[0]

    def test_an_epoch_may_have_some_windows(self):
        dataset = self.windows(shuffle=0, most=10)
        epochs = [self.firsts(dataset) for _ in range(2)]
        assert [len(epoch) for epoch in epochs] == [10, 10]
        assert set(epochs[0]) != set(epochs[1])
        assert len(self.firsts(self.windows(shuffle=0, most=1000))) == 76
        # What is evaluated is evaluated as a whole.
        assert len(self.firsts(self.windows(most=10))) == 76


def test_windows_are_not_copied_in_advance():
    """All windows of this series have 16 GB."""
    long = series("a", 1_000_000, columns=1)
    dataset = forecasting.windows(
        table(long), ["a"], context=4000, horizon=2, batch_size=3, shuffle=0
    )
    assert len(dataset) == (1_000_000 - 4001 + 2) // 3
    features, labels = next(iter(dataset))
    np.testing.assert_array_equal(features["history"][:, -1] + 1, labels[:, 0])


class TestLeaks:
    """A change of the future changes nothing that a model is given or scaled with."""

    def made(self, after: float, valid: bool = False) -> Table:
        made = series("a", 40)
        made.values[25:] *= after
        end = 40 if valid else 25
        part = Series("a", made.times[:end], made.values[:end], made.known[:end])
        return table(part, starts=[25 if valid else 0])

    def everything(self, after: float) -> list[np.ndarray]:
        train, valid = self.made(after), self.made(after, valid=True)
        assets = forecasting.build_assets(train)
        found = [np.array(assets["calendar"][name]) for name in ("mean", "std")]
        features, labels = read(forecasting.windows(train, ["a"], **SIZES))
        found += [*features.values(), labels]
        # The first window of the validation split.
        dataset = forecasting.windows(valid, ["a"], references=True, **SIZES)
        features, labels = next(iter(dataset.unbatch()))
        found += [np.array(each) for each in features.values()]
        return found + [np.array(v) for k, v in labels.items() if k != "values"]

    def test_nothing_depends_on_the_future(self):
        once, again = self.everything(1.0), self.everything(-7.0)
        assert len(once) == 15
        for first, second in zip(once, again, strict=True):
            np.testing.assert_array_equal(first, second)

    @pytest.mark.parametrize("leak", ["scales", "windows", "references"])
    def test_a_planted_leak_is_found(self, leak, monkeypatch):
        """Each way in which the future could reach a model fails the test above."""
        if leak == "scales":
            original = forecasting.build_assets
            whole = lambda train: original(self.made(self.after, valid=True))  # noqa: E731
            monkeypatch.setattr(forecasting, "build_assets", whole)
        elif leak == "windows":
            original = forecasting._Index.locate

            def late(self, ids):
                of, origin = original(self, ids)
                return of, origin + tf.cast(ids < self.total - 1, tf.int32)

            monkeypatch.setattr(forecasting._Index, "locate", late)
        else:
            original = forecasting.NaiveForecasts
            monkeypatch.setattr(
                forecasting,
                "NaiveForecasts",
                lambda values, begins, lengths, starts, *rest: original(
                    values, begins, lengths, [0], *rest
                ),
            )
        made = self.made

        def remember(after, valid=False):
            self.after = after
            return made(after, valid)

        monkeypatch.setattr(self, "made", remember)
        with pytest.raises(AssertionError):
            self.test_nothing_depends_on_the_future()


class TestAssets:
    def test_scales_are_those_of_each_series_and_of_all(self):
        first, second = series("a", 10), series("b", 6, 50.0)
        first.values[3] = np.nan
        second.values[:, 1] = 7.0  # constant
        assets = forecasting.build_assets(table(first, second))
        assert (assets["columns"], assets["known"], assets["series"]) == (
            ["x0", "x1"], ["k"], ["a", "b"],
        )  # fmt: skip
        calendar = assets["calendar"]
        assert (calendar["frequency"], calendar["seasonality"]) == ("h", 2)
        every = np.concatenate([first.values, second.values])
        expected = [every, first.values, second.values]
        mean = [np.nanmean(each, axis=0, dtype="float64") for each in expected]
        std = [np.nanstd(each, axis=0, dtype="float64") for each in expected]
        std[2][1] = 1.0
        np.testing.assert_allclose(calendar["mean"], mean)
        np.testing.assert_allclose(calendar["std"], std)

    def test_a_large_level_does_not_hide_a_small_deviation(self):
        made = series("a", 1000, 1e6, columns=1)
        calendar = forecasting.build_assets(table(made))["calendar"]
        np.testing.assert_allclose(calendar["std"][1], np.std(np.arange(1000)), rtol=1e-4)

    def test_a_column_without_values(self):
        made = series("a", 4)
        made.values[:, 0] = np.nan
        calendar = forecasting.build_assets(table(made))["calendar"]
        assert (calendar["mean"][1][0], calendar["std"][1][0]) == (0.0, 1.0)


class TestLatest:
    def latest(self, *every, **options):
        return forecasting.latest(table(*every), ["b"], **{"context": 4, "horizon": 3} | options)

    def test_it_follows_the_last_value_with_given_covariates(self):
        long, short = series("a", 10), series("b", 5)
        long.values[7:] = np.nan
        short.values[2:] = np.nan
        found = self.latest(long, short)
        np.testing.assert_array_equal(found["history"][0, :, 1], [1003, 1004, 1005, 1006])
        np.testing.assert_array_equal(found["history"][1, :, 0], [np.nan, np.nan, 0, 1])
        assert found["times"].tolist() == [
            [HOUR * k for k in range(3, 10)], [HOUR * k for k in range(-2, 5)],
        ]  # fmt: skip
        assert found["known"][1, :, 0].tolist() == [0, 0, 0, -1, -2, -3, -4]
        assert found["series"].tolist() == [0, 1]

    def test_times_go_on_where_there_are_no_covariates(self):
        made = dataclasses.replace(series("a", 6), known=np.zeros((6, 0), "float32"))
        without = dataclasses.replace(table(made), known=[], frequency="MS")
        found = forecasting.latest(without, [], context=2, horizon=2)
        last = made.times[-1]
        assert found["times"][0, 2:].tolist() == calendars.shift(last, [1, 2], "MS").tolist()
        assert set(found) == {"history", "times", "series"}

    def test_missing_covariates_are_named(self):
        made = series("a", 10)
        made.values[8:] = np.nan
        with pytest.raises(DataError, match="'a' needs k for 3 steps after its last value: 2 are"):
            self.latest(made)

    def test_a_series_without_a_value(self):
        made = series("a", 10)
        made.values[:] = np.nan
        with pytest.raises(DataError, match="The series 'a' has no value to forecast from"):
            self.latest(made)
