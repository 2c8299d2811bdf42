"""Prices of stocks, from the dataset of StockNet."""

import io
import re
import tarfile
import zlib
from pathlib import Path

import numpy as np

from unroll.pipelines import calendars
from unroll.pipelines.datasets.series.base import SeriesBuilder, cut, examples_of
from unroll.pipelines.datasets.series.cells import CellError, Numbers, read_times
from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.errors import DataError
from unroll.pipelines.forecasting import Series, Table
from unroll.pipelines.lines import decode_text, split_lines

ARCHIVE = Source(
    "stocknet",
    "price_raw.tar.gz",
    # The whole repository; the file of the manual folder needs the folder price/raw alone.
    "https://github.com/yumoxu/stocknet-dataset/archive/"
    "330708b5ddc359961078bef469f43f48992fd6e4.tar.gz",
)
LIMITS = {"train": "2015-08-01", "valid": "2015-10-01", "test": "2016-01-01"}
COLUMN = "Adj Close"


class Stocknet(SeriesBuilder, skip_registration=True):
    """Daily prices of 87 US stocks from 2012-09, adjusted for splits and dividends.

    Training ends before 2015-08-01, validation before 2015-10-01, and the test before 2016-01-01,
    as published; later prices are not used. A step is a trading day.
    """

    HOMEPAGE = "https://github.com/yumoxu/stocknet-dataset"
    CITATION = "Xu, Cohen 2018, Stock movement prediction from tweets and historical prices"

    def _split_generators(self, dl_manager):
        path = find(ARCHIVE, dl_manager, self.manual_dir)
        series, ends = [], []
        limits = np.array(list(LIMITS.values()), "M8[s]").astype("int64")
        for name, times, values in _stocks(path):
            own = np.searchsorted(times, limits)
            if not own[-1]:
                continue  # listed later
            known = np.zeros((len(times), 0), "float32")
            series.append(Series(name, times, values[:, None].astype("float32"), known))
            ends.append(dict(zip(LIMITS, own.tolist(), strict=True)))
        table = Table(["adj_close"], [], "B", calendars.season("B"), series, [0] * len(series))
        return {split: examples_of(part) for split, part in cut(table, ends).items()}


def _stocks(path: Path):
    """The symbol, the times and the prices of each stock, by symbol."""
    try:
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as archive:
            for member in sorted(archive.getmembers(), key=lambda each: each.name):
                if member.isfile() and re.search(r"price/raw/[^/]+\.csv$", member.name):
                    name = f"{path}, {member.name}"
                    text = decode_text(archive.extractfile(member).read(), name)
                    yield Path(member.name).stem, *_prices(text, name)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a complete archive: {error}.") from None


def _prices(text: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    header, *rows = (line.split(",") for line in split_lines(text) if line)
    try:
        column = header.index(COLUMN)
        times, _ = read_times([row[0] for row in rows])
        prices = Numbers().read([row[column] for row in rows])
    except (CellError, ValueError, IndexError) as error:
        raise DataError(f"{name}: {error}.") from None
    order = np.argsort(times)
    return times[order], prices[order]
