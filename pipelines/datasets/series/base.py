"""What the datasets of time series share."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Builder
from unroll.pipelines.forecasting import Series, Table


class SeriesBuilder(Builder, skip_registration=True):
    """Time series, one per example, whose splits are by time.

    An example has a series from its beginning to the end of its split; `start` is the first step of
    this split. The values are `[T, C]` and `[T, K]`, as vectors. A subclass generates examples with
    `examples_of`.
    """

    FEATURES: ClassVar[dict] = {
        "name": tf.string,
        "times": tfds.features.Tensor(shape=(None,), dtype=np.int64, encoding="bytes"),
        "values": tfds.features.Tensor(shape=(None,), dtype=np.float32, encoding="bytes"),
        "known": tfds.features.Tensor(shape=(None,), dtype=np.float32, encoding="bytes"),
        "start": np.int64,
        "columns": tfds.features.Sequence(tf.string),
        "known_columns": tfds.features.Sequence(tf.string),
        "frequency": tf.string,
        "seasonality": np.int64,
    }
    ORDERED = True

    def _generate_examples(self, *_):
        raise NotImplementedError("`_split_generators` returns the examples of all splits.")


def cut(table: Table, ends: Iterable[dict[str, int]]) -> dict[str, Table]:
    """The splits of series.

    Args:
        table: all series.
        ends: for each series, the ends of the splits, from the first to the last.

    Returns:
        By split, a table in which each series ends where the split does. Series without a step in
        a split are not in its table.
    """
    splits: dict[str, Table] = {}
    for series, own in zip(table.series, ends, strict=True):
        start = 0
        for split, end in own.items():
            if split not in splits:
                splits[split] = Table(
                    table.columns, table.known, table.frequency, table.seasonality, [], []
                )
            if end > start:
                part = Series(
                    series.name, series.times[:end], series.values[:end], series.known[:end]
                )
                splits[split].series.append(part)
                splits[split].starts.append(start)
            start = max(start, end)
    return splits


def examples_of(table: Table) -> Iterator[tuple[int, dict]]:
    """The keys and examples of a split."""
    for number, (series, start) in enumerate(zip(table.series, table.starts, strict=True)):
        yield (
            number,
            {
                "name": series.name,
                "times": series.times,
                "values": series.values.ravel(),
                "known": series.known.ravel(),
                "start": start,
                "columns": table.columns,
                "known_columns": table.known,
                "frequency": table.frequency,
                "seasonality": table.seasonality,
            },
        )
