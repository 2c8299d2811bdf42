"""Published and generated datasets of series."""

import hashlib
import io
import tarfile

import numpy as np
import pytest

from tests.pipelines.datasets.helpers import read_all
from unroll.pipelines import forecasting
from unroll.pipelines.datasets.series import m4_hourly, seasons, stocknet
from unroll.pipelines.datasets.series.ett import Etth1, Etth2
from unroll.pipelines.datasets.series.exchange_rate import ExchangeRate
from unroll.pipelines.datasets.series.m4_hourly import M4Hourly
from unroll.pipelines.datasets.series.seasons import Seasons
from unroll.pipelines.datasets.series.small_series import AirPassengers, Sunspots
from unroll.pipelines.datasets.series.stocknet import Stocknet
from unroll.pipelines.errors import DataError


@pytest.mark.parametrize(
    ("dataset", "ends", "frequency", "first", "last"),
    [
        (Etth1, (8640, 11_520, 14_400), "h", "2016-07-01T00", "2018-02-20T23"),
        (Etth2, (8640, 11_520, 14_400), "h", "2016-07-01T00", "2018-02-20T23"),
        (ExchangeRate, (5311, 6071, 7588), "D", "1990-01-01", "2010-10-10"),
        (AirPassengers, (100, 116, 144), "MS", "1949-01", "1960-12"),
        (Sunspots, (1973, 2256, 2820), "MS", "1749-01", "1983-12"),
    ],
)
def test_datasets_of_one_series(dataset, ends, frequency, first, last, manual_dir, tmp_path):
    splits = read_all(dataset, tmp_path)
    start = 0
    for (split, [example]), end in zip(splits.items(), ends, strict=True):
        assert (len(example["times"]), example["start"]) == (end, start), split
        assert example["frequency"] == frequency
        assert len(example["values"]) == end * len(example["columns"])
        assert not np.isnan(example["values"]).any()
        start = end
    times = example["times"].astype("M8[s]")
    assert times[[0, -1]].tolist() == np.array([first, last], "M8[s]").tolist()


def test_stocks(manual_dir, tmp_path):
    splits = read_all(Stocknet, tmp_path)
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 87, "valid": 87, "test": 87,
    }  # fmt: skip
    for split, limit in stocknet.LIMITS.items():
        for example in splits[split]:
            times = example["times"].astype("M8[s]")
            assert times[-1] < np.datetime64(limit) <= times[-1] + np.timedelta64(3, "D")
            assert np.all(np.diff(times) > np.timedelta64(0))
            assert np.nanmin(example["values"]) > 0
    # Apple on 2012-09-04.
    assert splits["train"][0]["name"] == "AAPL"
    assert splits["train"][0]["values"][0] == np.float32(87.121140)


def test_hourly_series_of_m4(manual_dir, tmp_path):
    splits = read_all(M4Hourly, tmp_path)
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 414, "valid": 414, "test": 414,
    }  # fmt: skip
    test = {example["name"]: example for example in splits["test"]}
    assert {len(each["values"]) - each["start"] for each in test.values()} == {48}
    assert {each["start"] for each in test.values()} == {700, 960}
    assert test["H1"]["values"][[0, 700]].tolist() == [605, 619]
    assert splits["valid"][0]["start"] == 652


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('"V1","V2"\n"H1","1","a"\n', "line 2: 'a' is not a number."),
        ('"V1","V2"\n"H1","1","","2"\n', "line 2: a value is missing inside the series."),
        ('"V1","V2"\n"H1","1","NA"\n', "line 2: a value is missing inside the series."),
    ],
)
def test_broken_rows_of_m4(rows, message, tmp_path):
    (tmp_path / "a.csv").write_text(rows)
    with pytest.raises(DataError) as error:
        m4_hourly.read_file(tmp_path / "a.csv")
    assert str(error.value) == f"{tmp_path}/a.csv, {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Date,Close\n2024-01-01,1\n", "'Adj Close' is not in list."),
        ("Date,Adj Close\n2024-01-01,x\n", "'x' is not a number."),
        ("Date,Adj Close\n01/01/2024,1\n", "the order of day and month of '01/01/2024' is not"),
    ],
)
def test_broken_prices(text, message, tmp_path, monkeypatch):
    folder = tmp_path / "stocknet"
    folder.mkdir()
    monkeypatch.setenv("UNROLL_MANUAL_DIR", str(tmp_path))
    with tarfile.open(folder / "price_raw.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("price/raw/A.csv")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text.encode()))
    with pytest.raises(DataError) as error:
        read_all(Stocknet, tmp_path)
    assert str(error.value).startswith(f"{folder}/price_raw.tar.gz, price/raw/A.csv: {message}")
    (folder / "price_raw.tar.gz").write_bytes(b"x")
    with pytest.raises(DataError, match="is not a complete archive"):
        read_all(Stocknet, tmp_path)


class TestSeasons:
    def test_they_depend_on_the_seed_and_not_on_their_number(self):
        every, some = seasons.generate(), seasons.generate(3)
        for one, other in zip(every[:3], some, strict=True):
            np.testing.assert_array_equal(one.series.values, other.series.values)
        assert len(every) == seasons.SERIES
        assert seasons.generate(1, seed=2)[0].std != some[0].std

    def test_version_changes_with_the_series(self):
        """If this fails, they have changed: increase `VERSION`, or prepared ones are read."""
        digest = hashlib.sha256()
        for truth in seasons.generate():
            digest.update(np.round(truth.series.values / truth.std, 3).tobytes())
        assert (str(Seasons.VERSION), digest.hexdigest()[:12]) == ("1.0.0", "7c90ea868904")

    def test_the_noise_is_what_the_truth_leaves(self):
        for truth in seasons.generate(6):
            values = truth.series.values[:, 0]
            noise = (values - truth.mean) / truth.std
            noise = noise[~np.isnan(noise)]
            assert len(noise) > 0.85 * len(values)
            assert abs(noise.mean()) < 0.1
            assert 0.93 < noise.std() < 1.07
            # No step tells anything about the next one.
            assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.1
        missing = [np.isnan(truth.series.values).mean() for truth in seasons.generate()]
        assert 0.01 < np.mean(missing) < 0.1

    def test_events_are_known_and_matter(self):
        for truth in seasons.generate(4):
            is_event = truth.series.known[:, 0] == 1
            assert 0.03 < is_event.mean() < 0.2
            assert truth.mean[is_event].mean() > truth.mean[~is_event].mean()

    def test_the_splits_are_by_time(self, tmp_path):
        splits = read_all(Seasons, tmp_path, size=0.1)
        start = 0
        for split, steps in seasons.STEPS.items():
            assert len(splits[split]) == 8
            for example in splits[split]:
                assert (example["start"], len(example["times"])) == (start, start + steps)
                assert example["known_columns"] == ["event"]
            start += steps

    def test_the_best_possible_error_is_that_of_the_truth_on_all_windows(self):
        splits, truths = seasons.splits(3), {t.series.name: t for t in seasons.generate(3)}
        assets = forecasting.build_assets(splits["train"])
        for split in ("valid", "test"):
            errors = []
            dataset = forecasting.windows(
                splits[split], assets["series"], context=2, horizon=24, batch_size=64
            )
            for features, labels in dataset.unbatch().as_numpy_iterator():
                name = assets["series"][features["series"] - 1]
                steps = (features["times"][2:] - seasons.BEGIN) // 3600
                std = assets["calendar"]["std"][features["series"]][0]
                errors.append((labels[:, 0] - truths[name].mean[steps]) / std)
            found = seasons.best_possible(24, split, 3)
            assert found["mse"] == pytest.approx(np.nanmean(np.square(errors)), rel=1e-5)
            assert found["mae"] == pytest.approx(np.nanmean(np.abs(errors)), rel=1e-5)
