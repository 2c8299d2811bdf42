"""Time series to windows of a past and a future.

A `Table` has the series of a split up to its end, and where its targets begin. Windows are slices
of one array that has all series; they are never copied in advance.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from unroll.pipelines import calendars
from unroll.pipelines.batching import prefetched
from unroll.pipelines.errors import DataError, report_once
from unroll.pipelines.naive_forecasts import NaiveForecasts

SERIES_UNKNOWN = 0  # the index of series that the training split does not have


@dataclass(frozen=True)
class Series:
    """A series of regular steps.

    Attributes:
        name: of the series.
        times: `[T]` int64, as in `calendars`.
        values: `[T, C]` float32, NaN where a value is missing.
        known: `[T, K]` float32, covariates that are known ahead of time. K may be 0.
    """

    name: str
    times: np.ndarray
    values: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class Table:
    """The series of a split.

    Attributes:
        columns: the C names of the values.
        known: the K names of the covariates that are known ahead of time.
        frequency: of the steps, as in `calendars`.
        seasonality: the number of steps of a season, of the seasonal naive forecast.
        series: from their beginning to the end of this split, and no further.
        starts: for each series, the first step that is a target of this split. Those before it are
            targets of earlier splits.
    """

    columns: list[str]
    known: list[str]
    frequency: str
    seasonality: int
    series: list[Series]
    starts: list[int]


def read_table(examples: tf.data.Dataset) -> Table:
    """The table of a split, from the examples of a dataset of series."""
    series, starts, example = [], [], None
    for example in examples.as_numpy_iterator():
        columns, known = ([n.decode() for n in example[k]] for k in ("columns", "known_columns"))
        length = len(example["times"])
        series.append(
            Series(
                example["name"].decode(),
                example["times"],
                example["values"].reshape(length, len(columns)),
                example["known"].reshape(length, len(known)),
            )
        )
        starts.append(int(example["start"]))
    if example is None:
        raise DataError("The split has no series.")
    frequency, seasonality = example["frequency"].decode(), int(example["seasonality"])
    return Table(columns, known, frequency, seasonality, series, starts)


def build_assets(train: Table) -> dict:
    """What a model has to know about the series, from the training split alone.

    Returns:
        `columns`, `known`, `series`: lines, the names. `calendar`: a JSON object of `frequency`,
        `seasonality`, `mean` and `std`. The latter have a list of C numbers for each series, after
        that of all series together, so that the index is that of the feature `series`. A
        `std` of zero is 1.
    """
    scaled = [_scale([s.values for s in train.series]), *(_scale([s.values]) for s in train.series)]
    means, stds = (np.array(part, "float64").tolist() for part in zip(*scaled, strict=True))
    calendar = {"frequency": train.frequency, "seasonality": train.seasonality}
    return {
        "columns": train.columns,
        "known": train.known,
        "series": [series.name for series in train.series],
        "calendar": {**calendar, "mean": means, "std": stds},
    }


def _scale(values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of each column, `[C]`; 0 and 1 if it has no values."""
    count = sum(np.sum(~np.isnan(each), axis=0) for each in values)
    total = sum(np.nansum(each, axis=0, dtype="float64") for each in values)
    mean = total / np.maximum(count, 1)
    square = sum(np.nansum((each - mean) ** 2, axis=0, dtype="float64") for each in values)
    std = np.sqrt(square / np.maximum(count, 1))
    # A constant column has a deviation that is only a rounding error.
    return mean, np.where(std > 1e-7 * np.abs(mean), std, 1.0)


def windows(
    table: Table,
    names: list[str],
    *,
    context: int,
    horizon: int,
    batch_size: int,
    stride: int = 1,
    shuffle: int | None = None,
    most: int = 0,
    references: bool = False,
) -> tf.data.Dataset:
    """Batches of windows: L steps of the past, and H steps to forecast.

    All targets of a window are in the split; its past may reach back into earlier splits. A series
    that is shorter than a window is padded in front with missing values.

    Args:
        table: of a split.
        names: of the series of the training split: the asset `series`.
        context: L.
        horizon: H.
        batch_size: B.
        stride: the number of steps between two windows.
        shuffle: a seed. The order is different in each epoch, and reproducible. `None` keeps the
            order: series by series, from the past to the future.
        most: the maximum number of windows of an epoch, if they are shuffled; 0 for all.
        references: whether the labels have what metrics need.

    Returns:
        A dataset of known cardinality of `(features, labels)`. Features: `history`,
        `[B, L, C]` float32, NaN where missing; `times`, `[B, L + H]` int64; `series`, `[B]` int32,
        1 + the index in `names`, or 0; and, unless K is 0, `known`, `[B, L + H, K]` float32.
        Labels: `[B, H, C]` float32, NaN where missing. With `references` a dict: `values`, the
        labels, and the outputs of `NaiveForecasts`.

    Raises:
        DataError: if no series is long enough. Series that are too short are counted and printed.
    """
    with tf.device("CPU"):  # where datasets run
        index = _Index(table, context, horizon, stride)
        numbers = tf.constant(_numbers(table, names), tf.int32)
        values, times, known = map(tf.constant, index.flatten(table))
        past, whole = tf.range(-context, 0), tf.range(-context, horizon)
        future = tf.range(horizon)
        references_of = index.references(table, horizon) if references else None

    def batch(ids):
        of, origin = index.locate(ids)
        origin = origin[:, None]
        features = {
            "history": tf.gather(values, origin + past),  # [B, L, C]
            "times": tf.gather(times, origin + whole),  # [B, L + H]
            "series": tf.gather(numbers, of),  # [B]
        }
        if table.known:  # TensorFlow crashes when it takes batches without elements apart
            features["known"] = tf.gather(known, origin + whole)  # [B, L + H, K]
        labels = tf.gather(values, origin + future)  # [B, H, C]
        if references_of is None:
            return features, labels
        return features, {"values": labels, **references_of(of, origin[:, 0])}

    total = min(most, index.total) if most and shuffle is not None else index.total

    def epoch(seed):
        every = tf.range(index.total, dtype=tf.int32)
        order = tf.random.experimental.stateless_shuffle(every, tf.stack([seed, 0]))
        return tf.data.Dataset.from_tensor_slices(order[:total])

    if shuffle is None:
        order = tf.data.Dataset.range(total).map(lambda k: tf.cast(k, tf.int32))
    else:
        seeds = tf.data.Dataset.random(shuffle, rerandomize_each_iteration=True).take(1)
        order = seeds.flat_map(epoch)
    made = order.batch(batch_size).map(batch, tf.data.AUTOTUNE, deterministic=True)
    count = -(-total // batch_size)
    return prefetched(made.apply(tf.data.experimental.assert_cardinality(count)))


def _numbers(table: Table, names: list[str]) -> list[int]:
    """For each series 1 + its index in `names`, or 0."""
    known = {name: k for k, name in enumerate(names, start=1)}
    return [known.get(series.name, SERIES_UNKNOWN) for series in table.series]


def latest(table: Table, names: list[str], *, context: int, horizon: int) -> dict[str, np.ndarray]:
    """The features of the forecast that follows the last value of each series.

    Args:
        table: series to their last value, or further with covariates that are known ahead of time.
        names, context, horizon: as in `windows`.

    Returns:
        The features of `windows`, of one window for each series, in their order.

    Raises:
        DataError: if a series has no value, or if covariates of the horizon are missing.
    """
    rows = []
    for series, number in zip(table.series, _numbers(table, names), strict=True):
        found = np.flatnonzero(~np.isnan(series.values).all(axis=1))
        if not len(found):
            raise DataError(f"The series {series.name!r} has no value to forecast from.")
        origin = int(found[-1]) + 1
        steps = np.arange(origin - context, origin + horizon)
        given = np.clip(steps, 0, len(series.times) - 1)
        times = calendars.shift(series.times[origin - 1], steps - origin + 1, table.frequency)
        times = np.where(steps == given, series.times[given], times)
        known = np.where((steps >= 0)[:, None], series.known[given], 0)
        missing = np.isnan(known[context:]).any(axis=1) | (steps[context:] != given[context:])
        if table.known and missing.any():
            raise DataError(
                f"The series {series.name!r} needs {', '.join(table.known)} for {horizon} steps "
                f"after its last value: {int(missing.argmax())} are given."
            )
        past = slice(None, context)
        history = np.where((steps[past] >= 0)[:, None], series.values[given[past]], np.nan)
        row = {"history": history, "times": times, "series": number}
        rows.append(row | ({"known": known} if table.known else {}))
    types = {"history": "float32", "times": "int64", "known": "float32", "series": "int32"}
    return {name: np.array([row[name] for row in rows], types[name]) for name in rows[0]}


class _Index:
    """Numbers the windows of a table: those of the first series, of the second, ...

    Args:
        table, context, horizon, stride: as in `windows`.

    Attributes:
        total: the number of windows.
        padding: for each series, the number of steps that are missing before its first window.
    """

    def __init__(self, table: Table, context: int, horizon: int, stride: int):
        origins = np.array(
            [
                _first_origin(series.values, start, context, horizon)
                for series, start in zip(table.series, table.starts, strict=True)
            ]
        )
        lengths = np.array([len(series.times) for series in table.series])
        counts = np.maximum((lengths - horizon - origins) // stride + 1, 0)
        if short := int(np.sum(counts == 0)):
            longest = max(lengths - table.starts)
            message = (
                f"a forecast of {horizon} steps needs as many in a split, and a value before them"
            )
            if short == len(counts):
                raise DataError(
                    f"No series is long enough: {message}; the longest has {longest} steps. Use a "
                    "smaller horizon, or more data."
                )
            report_once(f"{short:,} of {len(counts):,} series are left out: {message}.")
        self.total = int(counts.sum())
        self.padding = np.where(counts > 0, np.maximum(context - origins, 0), 0)
        self.begins = np.cumsum(self.padding + lengths) - lengths  # of the series in the flat array
        self._ends = tf.constant(np.cumsum(counts), tf.int32)
        self._before = tf.constant(np.cumsum(counts) - counts, tf.int32)
        self._origins = tf.constant(self.begins + origins, tf.int32)
        self._stride = stride

    def locate(self, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The index of the series of windows, and the position of their first target, `[B]`."""
        of = tf.searchsorted(self._ends, ids, side="right")
        step = ids - tf.gather(self._before, of)
        return of, tf.gather(self._origins, of) + step * self._stride

    def references(self, table: Table, horizon: int) -> NaiveForecasts:
        """The naive forecasts of the windows."""
        values, _, _ = self.flatten(table)
        lengths = np.array([len(series.times) for series in table.series])
        return NaiveForecasts(
            values, self.begins, lengths, table.starts, table.seasonality, horizon
        )

    def flatten(self, table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The values, the times and the covariates of all series, one after the other, padded."""
        size = int((self.padding + [len(series.times) for series in table.series]).sum())
        values = np.full((size, len(table.columns)), np.nan, "float32")
        times = np.zeros(size, "int64")
        known = np.zeros((size, len(table.known)), "float32")
        for series, begin, padding in zip(table.series, self.begins, self.padding, strict=True):
            own = slice(begin, begin + len(series.times))
            values[own], times[own], known[own] = series.values, series.times, series.known
            before = np.arange(-padding, 0)
            times[begin - padding : begin] = calendars.shift(
                series.times[0], before, table.frequency
            )
        return values, times, known


def _first_origin(values: np.ndarray, start: int, context: int, horizon: int) -> int:
    """The first step at which the targets of a window may begin.

    Before it, each column that has values has one. A series without an earlier split needs a whole
    past, if it is long enough for that.
    """
    found = ~np.isnan(values)
    firsts = np.argmax(found, axis=0)[found.any(axis=0)]
    if not len(firsts):
        return len(values)
    if not start:
        is_long = len(values) >= context + horizon
        start = context if is_long else max(1, min(horizon, len(values) - horizon))
    return max(start, int(firsts.max()) + 1)
