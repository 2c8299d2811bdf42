"""Histories from files and forecasts as CSV, images and reports of the forecasting app."""

import csv
import io
import json
import math

import numpy as np
import pytest
import tensorflow as tf

from tests.apps import forecasting_cases as cases
from tests.apps.forecasting_cases import CONTEXT, HORIZON, make
from tests.apps.test_forecasting_serving import history_csv
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Trained
from unroll.apps.forecasting import app, report, tables
from unroll.apps.forecasting.forecaster import Forecaster
from unroll.pipelines.errors import DataError


@pytest.fixture(scope="module")
def trained() -> Trained:
    return make()


def rows_of(result: dict) -> list[list[str]]:
    return list(csv.reader(io.StringIO(app.show(result))))


def test_a_file_is_forecast_from_its_last_value(trained, tmp_path):
    path = tmp_path / "history.csv"
    path.write_text(history_csv())
    [result] = app.predict(trained, [str(path)])
    assert json.loads(json.dumps(result)) == result
    assert [each["column"] for each in result["forecasts"]] == cases.COLUMNS
    first = result["forecasts"][0]
    assert first["past_dates"][-1] == "2026-06-02 05:00:00"
    assert first["dates"][0] == "2026-06-02 06:00:00"
    assert first["past"] == [None if k == 12 else 10.0 + k % 7 for k in range(10, 30)]
    # The same as from the features themselves.
    table = tables.read(trained, str(path))
    found = Forecaster(trained)(tables.features(trained, table))
    for k, each in enumerate(result["forecasts"]):
        np.testing.assert_allclose(each["mean"], found["mean"][0, :, k])
        np.testing.assert_allclose(each["quantiles"], found["quantiles"][0, :, k].T)


def test_the_csv_of_a_forecast(trained, tmp_path):
    path = tmp_path / "history.csv"
    path.write_text(history_csv())
    [result] = app.predict(trained, [str(path)])
    header, *rows = rows_of(result)
    assert header == ["date", "column", "mean", "q10", "q50", "q90"]
    assert len(rows) == 3 * HORIZON
    assert rows[0][:2] == ["2026-06-02 06:00:00", "load"]
    assert float(rows[0][2]) == pytest.approx(result["forecasts"][0]["mean"][0], rel=1e-6)
    assert rows[HORIZON][:2] == ["2026-06-02 06:00:00", "oil"]


def one_column(**options) -> Trained:
    calendar = {"frequency": "MS", "seasonality": 12, "time_features": ["month"]}
    calendar |= {"mean": [[0.0]] * 3, "std": [[1.0]] * 3}
    assets = {"columns": ["sales"], "known": [], "series": ["a", "b"], "calendar": calendar}
    return make(assets, **({"context": 12, "horizon": 3, "lags": "1"} | options))


def test_several_series_of_months(tmp_path):
    path = tmp_path / "sales.csv"
    rows = [f"{name},2025-{m:02}-01,{m}" for name in ("b", '"new, one"') for m in range(1, 9)]
    path.write_text("shop,month,sales\n" + "\n".join(rows) + "\n")
    trained = one_column(series="shop")
    [result] = app.predict(trained, [str(path)])
    header, *rows = rows_of(result)
    assert header == ["date", "series", "mean", "q10", "q50", "q90"]
    assert [row[:2] for row in rows] == [
        [f"2025-{month:02}-01", name] for name in ("b", "new, one") for month in (9, 10, 11)
    ]


def test_a_point_forecast_has_no_quantiles():
    [result] = app.predict(one_column(output="point"), app.examples()[:1])
    assert result["levels"] == []
    assert rows_of(result)[0] == ["date", "mean"]
    assert rows_of(result)[1][0] == "2031-06-01"


@pytest.mark.parametrize("level", [0.001, 0.025, 0.1, 0.5, 0.975, 0.995])
def test_the_names_of_quantiles_tell_them_apart(level):
    assert float(tables.level_name(level)[1:]) == pytest.approx(100 * level)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"start": "2026-06-01"}, "needs values of the columns load, oil, wind"),
        ({"start": "yesterday", "values": [1.0], "known": 0}, "ISO 8601, got 'yesterday'"),
        ({"values": [1.0], "known": 0.0}, "first time as ISO 8601, got None"),
        ({"start": "2026-06-01", "values": {"load": [1.0]}}, "needs values of the columns"),
        ({"start": "2026-06-01", "values": [1.0]}, "needs known of the columns holiday, price"),
        (
            {"start": "2026-06-01", "values": [1.0], "known": {"holiday": [0], "price": [0]}},
            "covariates have 1 steps; they need 8",
        ),
        (
            {"start": "2026-06-01", "values": {"load": [1.0], "oil": [1.0], "wind": []}},
            "values of the columns load, oil, wind differ in length",
        ),
    ],
)
def test_what_a_history_lacks_is_named(trained, source, message):
    with pytest.raises(UsageError, match=message):
        app.predict(trained, [source])


def test_what_a_file_lacks_is_named(trained, tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("date,load,oil\n2026-06-01,1,2\n")
    with pytest.raises(DataError, match=r"history\.csv has no column 'wind'"):
        app.predict(trained, [str(path)])
    path.write_text("\n".join(history_csv().splitlines()[:31]) + "\n")
    with pytest.raises(DataError, match="needs holiday, price for 7 steps"):
        app.predict(trained, [str(path)])


def test_values_that_are_not_given_are_missing(trained):
    one = {"start": "2026-06-01", "values": [1.0, 2.0, None, 4.0], "known": 0.0}
    [result] = app.predict(trained, [one])
    assert result["forecasts"][1]["past"] == [1.0, 2.0, None, 4.0]
    assert result["forecasts"][0]["dates"][0] == "2026-06-01 04:00:00"
    assert all(math.isfinite(x) for each in result["forecasts"] for x in each["mean"])


def test_forecasts_are_drawn(trained, tmp_path):
    one = {"start": "2026-06-01", "values": [1.0, None, 3.0], "known": 0.0, "series": "a_$x$"}
    [result] = app.predict(trained, [one])
    many = {**result, "forecasts": 5 * result["forecasts"]}
    for k, each in enumerate((result, many)):
        app.plot(each, tmp_path / f"{k}.png")
        assert min(tf.io.decode_image((tmp_path / f"{k}.png").read_bytes()).shape[:2]) > 40


# The report


def labels_of(future: np.ndarray) -> dict:
    """Labels with references, as `pipelines.forecasting.windows` makes them."""
    count, horizon, columns = future.shape
    return {
        "values": future,
        "last": np.full((count, columns), 2.0, "float32"),
        "seasonal": np.full((count, horizon, columns), 4.0, "float32"),
        "naive2": np.full((count, horizon, columns), 4.0, "float32"),
        "scale": np.ones((count, columns), "float32"),
    }


def test_the_report_counts_errors_by_step_and_series(trained):
    features, future = cases.windows(30)
    future[3, 2, 1] = np.nan
    batches = tf.data.Dataset.from_tensor_slices((features, labels_of(future))).batch(8)
    made = app.report(trained, batches)
    assert set(made.figures) == {"steps", "backtest", "residuals", "worst", "calibration"}
    forecast = Forecaster(trained)(features)
    std = np.array(cases.ASSETS["calendar"]["std"])[features["series"]][:, None]
    error = (forecast["mean"] - future) / std
    for step in range(HORIZON):
        own = np.nanmean(np.abs(error[:, step]))
        naive = np.nanmean(np.abs(4.0 - future[:, step]) / std[:, 0])
        assert f"| {step + 1} | {own:.3f} | {naive:.3f} |" in made.text
    for number, name in enumerate(["unknown series", *cases.SERIES]):
        rows = features["series"] == number
        for c, column in enumerate(cases.COLUMNS):
            squares = error[rows, :, c] ** 2
            count = np.sum(~np.isnan(squares))
            assert f"| {name}, {column} | {np.nanmean(squares):.3f} | {count:,} |" in made.text
    worst = np.nanmax(np.nanmean(error**2, axis=1))
    assert f"| {worst:.3f} |" in made.text.partition("## Worst windows")[2]
    below = np.mean((future[..., None] <= forecast["quantiles"])[~np.isnan(future)], axis=0)
    for level, share in zip((0.1, 0.5, 0.9), below, strict=True):
        assert f"| {tables.level_name(level)} | {level:.3f} | {share:.3f} |" in made.text
    for figure in made.figures.values():
        figure.savefig(io.BytesIO(), dpi=40)


@pytest.mark.exhaustive
def test_a_report_of_point_forecasts_has_no_calibration():
    trained = one_column(output="point")
    future = np.ones((2, 3, 1), "float32")
    features = {
        "history": np.full((2, 12, 1), np.nan, "float32"),
        "times": np.arange(15)[None].repeat(2, axis=0),
        "known": np.zeros((2, 15, 0), "float32"),
        "series": np.array([1, 2], "int32"),
    }
    batches = tf.data.Dataset.from_tensor_slices((features, labels_of(future))).batch(2)
    made = report.report(trained, batches)
    assert "calibration" not in made.figures
    assert "Calibration" not in made.text
    for figure in made.figures.values():
        figure.savefig(io.BytesIO(), dpi=40)
    assert CONTEXT > 12
