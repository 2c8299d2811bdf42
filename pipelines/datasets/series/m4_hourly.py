"""The hourly series of the M4 competition."""

from pathlib import Path

import numpy as np

from unroll.pipelines import calendars
from unroll.pipelines.datasets.series.base import SeriesBuilder, cut, examples_of
from unroll.pipelines.datasets.series.cells import CellError, Numbers
from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.errors import DataError
from unroll.pipelines.forecasting import Series, Table
from unroll.pipelines.lines import read_rows

HORIZON = 48
_ADDRESS = (
    "https://raw.githubusercontent.com/Mcompetitions/M4-methods/"
    "6c1067e5a57161249b17289a565178dc7a3fb3ca/Dataset/"
)
_FILES = {
    "train": ("Train/", "Hourly-train.csv"),
    "test": ("Test/", "Hourly-test.csv"),
}
_SHA256 = {
    "train": "ea59b7783573c49077a835ab6465c7d66f1474783360f310988a9a737fbca62f",
    "test": "71a57fccb15e534d973626ada4fb87febf789e9317715b7cc6dd3b5f90db6f42",
}


class M4Hourly(SeriesBuilder, skip_registration=True):
    """414 hourly series of the M4 competition, of 700 or 960 hours, and 48 to forecast.

    "test" is the published test file, "valid" are the last 48 hours of the training file. The files
    have no times: each series begins at hour 0, whatever its hour of the day.
    """

    HOMEPAGE = "https://github.com/Mcompetitions/M4-methods"
    CITATION = "Makridakis et al. 2018, The M4 competition"

    def _split_generators(self, dl_manager):
        paths = {
            split: find(
                Source("m4_hourly", name, _ADDRESS + folder + name, _SHA256[split]),
                dl_manager,
                self.manual_dir,
            )
            for split, (folder, name) in _FILES.items()
        }
        train, test = (read_file(paths[split]) for split in _FILES)
        if list(train) != list(test):
            raise DataError(f"{paths['test']} has other series than {paths['train']}.")
        series, ends = [], []
        for name, values in train.items():
            whole = np.concatenate([values, test[name]])[:, None].astype("float32")
            times = calendars.shift(0, np.arange(len(whole)), "h")
            series.append(Series(name, times, whole, np.zeros((len(whole), 0), "float32")))
            end = len(values)
            ends.append({"train": end - HORIZON, "valid": end, "test": len(whole)})
        table = Table(["value"], [], "h", calendars.season("h"), series, [0] * len(series))
        return {split: examples_of(part) for split, part in cut(table, ends).items()}


def read_file(path: Path) -> dict[str, np.ndarray]:
    """The values of each series of a file with one series in a row: its name, then its values.

    Raises:
        DataError: one line that names the file and the line.
    """
    found, numbers = {}, Numbers()
    for line, (name, *cells) in read_rows(path, ","):
        if name == "V1":  # the header
            continue
        filled = [cell for cell in cells if cell]
        try:
            found[name] = numbers.read(filled)
        except CellError as error:
            raise DataError(f"{path}, line {line}: {error}.") from None
        if any(cells[len(filled) :]) or np.isnan(found[name]).any():
            raise DataError(f"{path}, line {line}: a value is missing inside the series.")
    return found
