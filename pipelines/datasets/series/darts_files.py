"""Datasets that are one file in the repository of darts."""

from pathlib import Path

from unroll.pipelines.datasets.series.base import SeriesBuilder, cut, examples_of
from unroll.pipelines.datasets.series.series_files import read_series
from unroll.pipelines.datasets.series.tables import Roles
from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.forecasting import Table

_ADDRESS = (
    "https://raw.githubusercontent.com/unit8co/darts/"
    "2be8e43fbdc1265209f33bbe8bae81f3e4d9146f/datasets/"
)


class DartsFile(SeriesBuilder, skip_registration=True):
    """One file, of which 70 / 10 / 20 % of the steps are the splits unless `ENDS` says otherwise.

    A subclass sets the folder, the name and the checksum of the file, and the frequency.
    """

    FOLDER = ""  # in the manual folder
    NAME = ""
    SHA256 = ""
    FREQUENCY = ""
    ENDS: dict[str, int] | None = None  # of the splits, in steps

    def table(self, path: Path) -> Table:
        """The series of the file."""
        return read_series(path, Roles(), self.FREQUENCY)

    def _split_generators(self, dl_manager):
        source = Source(self.FOLDER, self.NAME, _ADDRESS + self.NAME, self.SHA256)
        table = self.table(find(source, dl_manager, self.manual_dir))
        ends = [self.ENDS or published_ends(len(series.times)) for series in table.series]
        return {split: examples_of(part) for split, part in cut(table, ends).items()}


def published_ends(length: int) -> dict[str, int]:
    """The ends of splits of 70, 10 and 20 %, as the papers on long horizons round them.

    >>> published_ends(7588)
    {'train': 5311, 'valid': 6071, 'test': 7588}
    """
    return {"train": int(0.7 * length), "valid": length - int(0.2 * length), "test": length}
