"""Histories from files to the features of windows, and forecasts as CSV."""

import csv
import datetime
import io
import math

import numpy as np

from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Trained
from unroll.apps.forecasting.forecaster import Forecaster, forecaster_of
from unroll.pipelines import calendars, forecasting
from unroll.pipelines.datasets.series.series_files import read_series
from unroll.pipelines.datasets.series.tables import Roles

_SHOWN = 200  # steps of the history that a result has at most
_DATES = ("D", "B", "W", "MS", "ME", "QS", "QE", "YS", "YE")  # units that need no time of the day


def predict(trained: Trained, inputs: list[str | dict]) -> list[dict]:
    """The forecasts of what follows each series of each input.

    Args:
        trained: the model.
        inputs: as `read`.

    Returns:
        For each input `frequency`, `levels` and `forecasts`: for each series and column, `series`,
        `column`, the `dates` of the forecast, `mean`, `quantiles` (a list for each level), and the
        end of the history, `past_dates` and `past`, with None for a missing value.
    """
    forecaster = forecaster_of(trained)
    return [_predict(trained, forecaster, read(trained, each)) for each in inputs]


def read(trained: Trained, source: str | dict) -> forecasting.Table:
    """A history as a table.

    Args:
        trained: the model, whose columns are read.
        source: the path of a CSV or Parquet file like those of training; or a dict with `start`,
            the first time, as ISO 8601; `values`, a list of numbers for all columns, or a dict of
            lists by column, with None for a missing value; for a model with covariates `known`, a
            number for all of them, or a dict of lists by name, each with the H values of the future
            too; and optionally `series`, a name.

    Raises:
        DataError: if the file is broken, in one line.
        UsageError: if the dict lacks something.
    """
    config, assets = trained.config, trained.assets
    frequency, columns, known = (
        assets["calendar"]["frequency"],
        *(assets[name] for name in ("columns", "known")),
    )
    if not isinstance(source, dict):
        roles = Roles(config.time, tuple(columns), config.series, tuple(known))
        return read_series(source, roles, frequency)
    values = _columns(source, "values", columns)
    steps = len(values) + config.horizon
    values = np.concatenate([values, np.full((config.horizon, len(columns)), np.nan)])
    covariates = np.zeros((steps, 0))
    if known:
        given = source.get("known")
        if isinstance(given, (int, float)):
            given = [float(given)] * steps
        covariates = _columns({"known": given}, "known", known)
        if len(covariates) != steps:
            raise UsageError(
                f"The covariates have {len(covariates)} steps; they need {steps}, those of the "
                f"values and {config.horizon} of the forecast."
            )
    start = 0
    if frequency:
        try:
            moment = datetime.datetime.fromisoformat(source["start"])
        except (KeyError, TypeError, ValueError):
            raise UsageError(
                f"A history needs its first time as ISO 8601, got {source.get('start')!r}."
            ) from None
        start = int(moment.replace(tzinfo=datetime.UTC).timestamp())
    times = calendars.shift(start, np.arange(steps), frequency)
    series = forecasting.Series(
        source.get("series", ""), times, values.astype("float32"), covariates.astype("float32")
    )
    season = assets["calendar"]["seasonality"]
    return forecasting.Table(columns, known, frequency, season, [series], [0])


def _columns(source: dict, key: str, names: list[str]) -> np.ndarray:
    """`[T, columns]`: one list for all columns, or a list for each."""
    given = source.get(key)
    found = dict.fromkeys(names, given) if isinstance(given, list) else given
    if not isinstance(found, dict) or any(name not in found for name in names):
        raise UsageError(f"A history needs {key} of the columns {', '.join(names)}.")
    lists = [[math.nan if x is None else x for x in found[name]] for name in names]
    if len({len(each) for each in lists}) > 1:
        raise UsageError(f"The {key} of the columns {', '.join(names)} differ in length.")
    return np.array(lists, "float64").T


def example_file(trained: Trained, source: dict) -> bytes:
    """One of `examples` as a CSV file, which `read` accepts."""
    [series] = read(trained, source).series
    assets, horizon = trained.assets, trained.config.horizon
    steps = len(series.times) - (0 if assets["known"] else horizon)
    columns = [[None if math.isnan(x) else x for x in row] for row in series.values.T.tolist()]
    heads = [*assets["columns"], *assets["known"]]
    columns += series.known.T.tolist()
    if trained.config.series:
        heads, columns = [trained.config.series, *heads], [[assets["series"][0]] * steps, *columns]
    if frequency := assets["calendar"]["frequency"]:
        heads = [trained.config.time or "date", *heads]
        columns = [to_text(series.times, frequency), *columns]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(list(zip(*columns, strict=False))[:steps])
    return text.getvalue().encode()


def features(trained: Trained, table: forecasting.Table) -> dict[str, np.ndarray]:
    """The features of a window before the end of each series."""
    config = trained.config
    return forecasting.latest(
        table, trained.assets["series"], context=config.context, horizon=config.horizon
    )


def _predict(trained: Trained, forecaster: Forecaster, table: forecasting.Table) -> dict:
    config, size = trained.config, trained.config.batch_size
    window = features(trained, table)
    parts = [
        forecaster({name: value[k : k + size] for name, value in window.items()})
        for k in range(0, len(table.series), size)
    ]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    forecasts = []
    for k, series in enumerate(table.series):
        dates = to_text(window["times"][k], table.frequency)
        history = window["history"][k]  # [L, C]
        begin = max(int(np.argmax(~np.isnan(history).all(axis=1))), len(history) - _SHOWN)
        past = [[None if math.isnan(x) else x for x in row] for row in history[begin:].T.tolist()]
        for c, column in enumerate(table.columns):
            forecasts.append(
                {
                    "series": series.name,
                    "column": column,
                    "dates": dates[config.context :],
                    "mean": found["mean"][k, :, c].tolist(),
                    "quantiles": found["quantiles"][k, :, c].T.tolist()
                    if "quantiles" in found
                    else [],
                    "past_dates": dates[begin : config.context],
                    "past": past[c],
                }
            )
    levels = list(forecaster.levels) if "quantiles" in found else []
    return {"frequency": table.frequency, "levels": levels, "forecasts": forecasts}


def to_text(times: np.ndarray, frequency: str) -> list[str]:
    """Times as ISO 8601 with a space, without the time of the day if that is always midnight.

    Without a frequency they are the numbers of the steps.

    >>> to_text(np.array([0, 3600]), "h")
    ['1970-01-01 00:00:00', '1970-01-01 01:00:00']
    """
    if not frequency:
        return [str(time) for time in times.tolist()]
    is_date = calendars.parse(frequency)[1] in _DATES and not np.any(times % calendars.DAY)
    stamps = times.astype("datetime64[s]").astype("datetime64[D]" if is_date else "datetime64[s]")
    return [stamp.replace("T", " ") for stamp in stamps.astype(str).tolist()]


def level_name(level: float) -> str:
    """The name of the column of a quantile.

    >>> level_name(0.1), level_name(0.025)
    ('q10', 'q2.5')
    """
    return f"q{round(100 * level, 6):g}"


def to_csv(result: dict) -> str:
    """A result of `predict` as CSV; see `to_rows`."""
    text = io.StringIO()
    heads, rows = to_rows(result)
    csv.writer(text, lineterminator="\n").writerows([heads, *rows])
    return text.getvalue().rstrip("\n")


def to_rows(result: dict) -> tuple[list[str], list[list[str]]]:
    """A result of `predict` as the names of columns, and rows.

    The columns are `date` (`step` without times), `series` and `column` if there are several,
    `mean`, and one for each quantile, such as `q10`.
    """
    forecasts, levels = result["forecasts"], result["levels"]
    ids = [name for name in ("series", "column") if len({f[name] for f in forecasts}) > 1]
    date = "date" if result["frequency"] else "step"
    rows = []
    for each in forecasts:
        own = [each[name] for name in ids]
        for when, *numbers in zip(each["dates"], each["mean"], *each["quantiles"], strict=True):
            rows.append([when, *own, *(f"{number:.7g}" for number in numbers)])
    return [date, *ids, "mean", *map(level_name, levels)], rows


def examples() -> list[dict]:
    """Histories without names of columns, which a model with any columns reads."""
    days = [10 + 3 * math.sin(2 * math.pi * k / 24) + 0.5 * (k % 7) for k in range(60)]
    gaps = [None if k % 11 < 3 else value for k, value in enumerate(days[:45])]
    return [
        {"start": "2026-06-01", "values": days, "known": 0.0},
        {"start": "2026-06-01", "values": gaps, "known": 0.0},
        {"start": "2026-06-01", "values": [5.0] * 30, "known": 0.0},
    ]
