"""Your own series: a CSV or Parquet file, or a folder of train, valid and test files."""

import hashlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from unroll.pipelines import calendars
from unroll.pipelines.datasets.base import file_version
from unroll.pipelines.datasets.own_files import named, refuse_other_splits
from unroll.pipelines.datasets.series.base import SeriesBuilder, cut, examples_of
from unroll.pipelines.datasets.series.tables import SUFFIXES, Roles, Rows, read
from unroll.pipelines.errors import DataError, report_once
from unroll.pipelines.forecasting import Series, Table

SPLITS = ("train", "valid", "test")
NAME = "series"  # of the only series of files without a column that names them
SHARES = (0.7, 0.8)  # of the rows of a single file, at which "valid" and "test" begin
_HELD_OUT = 0.1  # of the training rows of a folder without "valid"
_MOST_MISSING = 20  # steps for each row


@dataclass
class _Files(tfds.core.BuilderConfig):
    files: dict[str, Path] = field(default_factory=dict, repr=False)
    roles: Roles = field(default_factory=Roles, repr=False)


class SeriesFiles(SeriesBuilder, skip_registration=True):
    """Series from a file, or from a folder with `train.csv` and, optionally, `valid` and `test`.

    A file ends in .csv, .tsv, .txt or .parquet. Splits are by time. The first 70 % of a single file
    are for training, and the next 10 % for validation; a folder without a validation file holds
    out the last tenth of the training rows. The series of several files are put together: the past
    of a window may be in the file before.

    Args:
        path: the file or the folder.
        time, series: names of columns.
        target, known: names of columns, with commas between them. For all four, see
            `tables.Roles`.

    Raises:
        DataError: one line that names the file, the line and the column.
    """

    SPLITS = ()

    def __init__(
        self,
        path: str | Path,
        time: str = "",
        target: str = "",
        series: str = "",
        known: str = "",
        **kwargs,
    ):
        self.path = Path(path)
        roles = Roles(time, split_names(target), series, split_names(known))
        files = _files(self.path)
        versions = [(split, str(p), file_version(p)) for split, p in files.items()]
        digest = hashlib.sha256(repr((versions, roles)).encode("utf-8", "surrogatepass"))
        config = _Files(name=digest.hexdigest()[:16], files=files, roles=roles)
        super().__init__(config=config, **kwargs)

    @property
    def split_names(self) -> tuple[str, ...]:
        files = self.builder_config.files
        if self.path.is_file():
            return SPLITS
        return tuple(split for split in SPLITS if split in {"valid", *files})

    def _split_generators(self, dl_manager):
        tables = self._tables()
        return {split: examples_of(tables[split]) for split in self.split_names}

    def _tables(self) -> dict[str, Table]:
        config = self.builder_config
        rows = {split: read(path, config.roles) for split, path in config.files.items()}
        table, ends = to_table(rows, self.path)
        table, ends = _without_empty_ends(table, ends, self.path)
        if self.path.is_file():
            ends = _cut_at(table, ends, "train", SPLITS, SHARES)
            first, second = (round(100 * share) for share in SHARES)
            report_once(
                f"{self.path}: the splits are by time, {first} % to train, {second - first} % to "
                f"validate, {100 - second} % to test."
            )
        elif "valid" not in config.files:
            ends = _cut_at(table, ends, "train", ("train", "valid"), (1 - _HELD_OUT,))
            report_once(
                f"{self.path} has no validation split: the last {_HELD_OUT:.0%} of the training "
                "rows are held out for it."
            )
        tables = cut(table, ends)
        for split in self.split_names:
            if not tables[split].series:
                raise DataError(f"{self.path} has no series with a step in the split {split!r}.")
        _report_series(tables["train"], self.path)
        return tables


def split_names(listed: str) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(name.strip() for name in listed.split(",") if name.strip())


def read_series(path: str | Path, roles: Roles, frequency: str | None = None) -> Table:
    """The series of a file, to forecast what follows.

    Args:
        path: of a file of `tables.SUFFIXES`.
        roles: of its columns.
        frequency: of the steps, as in `calendars`; `None` infers it.

    Raises:
        DataError: one line that names the file, the line and the column.
    """
    path = Path(path)
    return to_table({"train": read(path, roles)}, path, frequency)[0]


def _files(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {"train": path}
    files = {}
    for split in SPLITS:
        names = (split, "dev") if split == "valid" else (split,)
        own = [path / (name + suffix) for name in names for suffix in SUFFIXES]
        own = [each for each in own if each.is_file()]
        if len(own) > 1:
            raise DataError(f"{path} has {split} twice, {own[0]} and {own[1]}: remove one.")
        if own:
            files[split] = own[0]
    if "train" not in files:
        raise DataError(f"{path} has no train.csv. Name a single file itself.")
    refuse_other_splits(path, files.values(), SUFFIXES)
    return files


def to_table(
    rows: dict[str, Rows], source: Path, frequency: str | None = None
) -> tuple[Table, list[dict[str, int]]]:
    """Rows as series of regular steps, in which steps without a row are missing values.

    Args:
        rows: by split, from the first to the last.
        source: the file or the folder, for messages.
        frequency: as in `read_series`.

    Returns:
        All series, in the order in which they first occur, and for each the ends of the splits.
    """
    parts = list(rows.values())
    first = parts[0]
    for part in parts[1:]:
        if part.columns != first.columns:
            raise DataError(
                f"{part.path} has the columns {', '.join(part.columns)}, and {first.path} "
                f"{', '.join(first.columns)}."
            )
    sizes = [len(part.numbers) for part in parts]
    part_of = np.repeat(np.arange(len(parts)), sizes)
    index_of = np.concatenate([np.arange(size) for size in sizes])
    names, code = _codes(parts, len(part_of))
    has_times = first.times is not None
    times = np.concatenate([part.times for part in parts]) if has_times else _ranks(code)
    order = np.lexsort((times, code))

    def where(position: int) -> str:
        return parts[part_of[order[position]]].where(index_of[order[position]])

    same = code[order][1:] == code[order][:-1]
    _check_times(times, code, part_of, order, same, where, list(rows), names)
    values = np.concatenate([part.values for part in parts])[order]
    known = np.concatenate([part.covariates for part in parts])[order]
    times, part_of = times[order], part_of[order]
    edges = np.concatenate([[0], np.flatnonzero(~same) + 1, [len(times)]])
    slices = [slice(*pair) for pair in itertools.pairwise(edges)]
    own_times = [times[own] for own in slices]
    is_given = frequency is not None
    if not is_given:
        frequency = calendars.infer(own_times) if has_times else ""
        if has_times and not frequency:
            raise DataError(f"{source}: no series has two times to infer their frequency from.")
    filled = _Filled(source)
    series, ends = [], []
    for name, own in zip(names, slices, strict=True):
        steps, between = calendars.steps_of(times[own], frequency)
        if between is not None:
            raise DataError(
                f"{where(own.start + between)}: {_shown(times[own][between])} is not a whole "
                f"number of steps of {frequency!r} after {_shown(times[own.start])}, the first "
                "time. Resample the series to regular steps."
            )
        series.append(filled.series(name, times[own], steps, values[own], known[own], frequency))
        last = {split: steps[part_of[own] == k] for k, split in enumerate(rows)}
        ends.append({split: int(each[-1]) + 1 if len(each) else 0 for split, each in last.items()})
    filled.report()
    season = calendars.season(frequency)
    if not is_given:
        _report_frequency(source, frequency, season)
    starts = [0] * len(names)
    target, covariates = list(first.target), list(first.known)
    return Table(target, covariates, frequency, season, series, starts), ends


def _report_frequency(source: Path, frequency: str, season: int) -> None:
    if not frequency:
        report_once(f"{source} has no column of times: its rows are the steps.")
    else:
        steps = f"{season} steps" if season > 1 else "1 step"
        report_once(f"{source}: the frequency is {frequency!r}, and a season has {steps}.")


def _codes(parts: list[Rows], total: int) -> tuple[list[str], np.ndarray]:
    """The names of the series in the order in which they occur, and the number of each row."""
    if parts[0].series is None:
        return [NAME], np.zeros(total, "int64")
    number: dict[str, int] = {}
    every = (name for part in parts for name in part.series)
    code = np.fromiter((number.setdefault(name, len(number)) for name in every), "int64", total)
    return list(number), code


def _ranks(code: np.ndarray) -> np.ndarray:
    """The number of earlier rows of the same series."""
    order = np.argsort(code, kind="stable")
    first = np.searchsorted(code[order], code[order], side="left")
    ranks = np.empty(len(code), "int64")
    ranks[order] = np.arange(len(code)) - first
    return ranks


def _check_times(times, code, part_of, order, same, where, splits, names) -> None:
    """Reports rows that are not sorted, and refuses repeated times and splits that overlap."""
    as_read = np.lexsort((np.arange(len(code)), code))
    is_same = (code[as_read][1:] == code[as_read][:-1]) & (
        part_of[as_read][1:] == part_of[as_read][:-1]
    )
    if earlier := int(np.sum((np.diff(times[as_read]) < 0) & is_same)):
        report_once(
            f"{where(0).rpartition(', ')[0]}: {earlier:,} rows are earlier than the row before; "
            "the rows are sorted by time."
        )
    repeated = same & (np.diff(times[order]) == 0)
    if repeated.any():
        k = int(repeated.argmax())
        own = f" of the series {names[code[order[k]]]!r}" if len(names) > 1 else ""
        hint = "" if len(names) > 1 else ", or name the column of the series with --series"
        raise DataError(
            f"{where(k + 1)}: the time {_shown(times[order[k]])}{own} is also that of "
            f"{where(k).rpartition(', ')[2]}: remove one{hint}."
        )
    back = same & (np.diff(part_of[order]) < 0)
    if back.any():
        k = int(back.argmax())
        raise DataError(
            f"{where(k + 1)}: a time of {splits[part_of[order[k + 1]]]} is after "
            f"{_shown(times[order[k]])} of {splits[part_of[order[k]]]}: splits are by time."
        )


def _shown(time: int) -> str:
    text = str(np.datetime64(int(time), "s")).replace("T", " ")
    return text.removesuffix(" 00:00:00")


class _Filled:
    """Puts rows on the steps of a calendar, and counts the steps without a row.

    Args:
        source: the file or the folder, for messages.
    """

    def __init__(self, source: Path):
        self.source = source
        self.gaps = self.steps = self.holidays = self.covariates = 0

    def series(self, name, times, steps, values, known, frequency: str) -> Series:
        length = int(steps[-1]) + 1
        if length > _MOST_MISSING * len(steps) + 1000:
            k = int(np.diff(steps).argmax())
            raise DataError(
                f"{self.source}: the series {name!r} has {len(steps):,} rows and {length:,} steps "
                f"of {frequency!r}: there are none between {_shown(times[k])} and "
                f"{_shown(times[k + 1])}."
            )
        if calendars.parse(frequency)[1] == "B":
            days = times[[0, -1]] // calendars.DAY
            between = np.busday_count(*days.astype("M8[D]")) + 1
            self.holidays += max(0, int(between) - len(times))
        if length == len(steps):
            return Series(name, times, values, known)
        self.gaps += int(np.sum(np.diff(steps) > 1))
        self.steps += length - len(steps)
        self.covariates += known.shape[1] * (length - len(steps))
        filled = np.full((length, values.shape[1]), np.nan, "float32")
        filled[steps] = values
        before = np.searchsorted(steps, np.arange(length), side="right") - 1
        every = calendars.shift(times[0], np.arange(length), frequency)
        return Series(name, every, filled, known[before])

    def report(self) -> None:
        if self.steps:
            known = ", their covariates those of the step before" if self.covariates else ""
            report_once(
                f"{self.source}: {self.steps:,} steps have no row (gaps: {self.gaps:,}): their "
                f"values are missing{known}."
            )
        if self.holidays:
            report_once(
                f"{self.source}: {self.holidays:,} days from Monday to Friday have no row: they "
                "are read as holidays, and are no steps."
            )


def _without_empty_ends(table: Table, ends: list[dict[str, int]], source: Path):
    """Cuts steps before the first and after the last value; series without a value are left out."""
    series, kept, empty, cut_off = [], [], 0, 0
    for own, of_own in zip(table.series, ends, strict=True):
        found = np.flatnonzero(~np.isnan(own.values).all(axis=1))
        if not len(found):
            empty += 1
            continue
        low, high = int(found[0]), int(found[-1]) + 1
        cut_off += len(own.times) - (high - low)
        part = slice(low, high)
        series.append(Series(own.name, own.times[part], own.values[part], own.known[part]))
        kept.append({s: min(max(end - low, 0), high - low) for s, end in of_own.items()})
    if not series:
        raise DataError(f"{source} has no values.")
    if empty:
        report_once(f"{source}: {empty:,} of {len(ends):,} series have no value: left out.")
    if cut_off:
        report_once(
            f"{source}: {cut_off:,} steps before the first or after the last value of a series are "
            "left out."
        )
    return Table(
        table.columns, table.known, table.frequency, table.seasonality, series, [0] * len(series)
    ), kept


def _cut_at(
    table: Table,
    ends: list[dict[str, int]],
    split: str,
    names: tuple[str, ...],
    shares: tuple[float, ...],
) -> list[dict[str, int]]:
    """Divides a split at times, the same for all series, before which are shares of its rows.

    Steps without times are divided in each series.
    """
    own = [series.times[: each[split]] for series, each in zip(table.series, ends, strict=True)]
    limits = []
    if table.frequency:
        every = np.sort(np.concatenate(own))
        limits = [every[int(share * len(every))] for share in shares]
    found = []
    for times, each in zip(own, ends, strict=True):
        if table.frequency:
            inner = np.searchsorted(times, limits).tolist()
        else:
            inner = [int(share * len(times)) for share in shares]
        divided = dict(zip(names, [*inner, len(times)], strict=True))
        found.append(divided | {name: end for name, end in each.items() if name not in divided})
    return found


def _report_series(train: Table, source: Path) -> None:
    def is_constant(values: np.ndarray) -> bool:
        largest = np.fmax.reduce(values)  # NaN for a column without a value
        return bool((np.isnan(largest) | (largest == np.fmin.reduce(values))).all())

    constant = [series.name for series in train.series if is_constant(series.values)]
    if constant:
        report_once(
            f"{source}: {len(constant):,} of {len(train.series):,} series have one value only in "
            f"the training split: {named(constant)}."
        )
