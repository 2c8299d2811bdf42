"""Exchange rates of eight currencies."""

from pathlib import Path

import numpy as np

from unroll.pipelines import calendars
from unroll.pipelines.datasets.series.darts_files import DartsFile
from unroll.pipelines.datasets.series.series_files import read_series
from unroll.pipelines.datasets.series.tables import Roles
from unroll.pipelines.forecasting import Series, Table

CURRENCIES = ("AUD", "GBP", "CAD", "CHF", "CNY", "JPY", "NZD", "SGD")
_BEGIN = 631_152_000  # 1990-01-01


class ExchangeRate(DartsFile, skip_registration=True):
    """Exchange rates of eight currencies to the US dollar, 7,588 days: 5,311 / 760 / 1,517.

    The file has no dates. As in the papers on long horizons, they are consecutive days from
    1990-01-01, so that days of the week have no meaning.
    """

    HOMEPAGE = "https://github.com/laiguokun/multivariate-time-series-data"
    CITATION = "Lai et al. 2018, Modeling long- and short-term temporal patterns, arXiv:1703.07015"
    FOLDER = "exchange_rate"
    NAME = "exchange_rate.csv"
    SHA256 = "f790284d51ac8c3918d4c9754a4779744c5de287b492e9267ed6a2aa60fb70c5"

    def table(self, path: Path) -> Table:
        [read] = read_series(path, Roles(target=tuple("01234567")), "").series
        times = calendars.shift(_BEGIN, np.arange(len(read.times)), "D")
        series = Series(read.name, times, read.values, read.known)
        return Table(list(CURRENCIES), [], "D", calendars.season("D"), [series], [0])
