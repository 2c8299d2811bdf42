"""Tables of series, CSV or Parquet, to arrays of their columns."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unroll.pipelines.datasets.series import cells
from unroll.pipelines.errors import DataError, report_once
from unroll.pipelines.lines import read_rows

TEXT = (".csv", ".tsv", ".txt")
PARQUET = ".parquet"
SUFFIXES = (*TEXT, PARQUET)
_HEAD = 200  # rows from which the columns are detected
_PART = 1 << 15  # rows that are converted at once
# Headers of columns in which whole numbers are times, and of those that name series.
_TIME_NAMES = frozenset("time times timestamp datetime date ds epoch unix year".split())
_SERIES_NAMES = frozenset("series series_id unique_id item_id".split())


@dataclass(frozen=True)
class Roles:
    """Which columns are what. An empty one is detected.

    Attributes:
        time: by default the first column of dates, or of whole numbers whose name says that they
            are times. If there is none, the rows are the steps.
        target: what to forecast, by default all other columns of numbers.
        series: names the series of a row. By default a column of the name series, series_id,
            unique_id or item_id. If there is none, all rows are one series.
        known: covariates that are known ahead of time.
    """

    time: str = ""
    target: tuple[str, ...] = ()
    series: str = ""
    known: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rows:
    """The rows of a file, as they are in it.

    Attributes:
        path: of the file.
        unit: what `numbers` count: `line` or `row`.
        numbers: of each row, `[N]`.
        target, known: the names of the columns.
        times: `[N]` int64; `None` if there is no column of times.
        series: `[N]` strings; `None` if there is no such column.
        values: `[N, C]` float32.
        covariates: `[N, K]` float32.
    """

    path: Path
    unit: str
    numbers: np.ndarray
    target: tuple[str, ...]
    known: tuple[str, ...]
    times: np.ndarray | None
    series: np.ndarray | None
    values: np.ndarray
    covariates: np.ndarray

    @property
    def columns(self) -> list[str]:
        """The names of the columns, with those that all files of a folder must have."""
        has = {"times": self.times, "series": self.series}
        return [*self.target, *self.known, *(k for k, v in has.items() if v is not None)]

    def where(self, index: int) -> str:
        """A row, for a message."""
        return f"{self.path}, {self.unit} {self.numbers[index]}"


def read(path: Path, roles: Roles) -> Rows:
    """The rows of a .csv, .tsv, .txt or .parquet file.

    What is detected or left out is printed once to standard error.

    Raises:
        DataError: one line that names the file, the line and the column.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path} is not a file of series: {', '.join(SUFFIXES)}.")
    return _read_parquet(path, roles) if suffix == PARQUET else _read_text(path, roles)


@dataclass
class _Columns:
    """Collects parts of columns.

    Args:
        path: of the file.
        unit: of the numbers of rows.
        roles: of the columns, of which none is to be detected.
    """

    path: Path
    unit: str
    roles: Roles
    numbers: list[np.ndarray] = field(default_factory=list)
    parts: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, numbers: Sequence[int], of: Callable[[str], np.ndarray]) -> None:
        """Adds the rows of a part, whose columns `of` returns or raises a `CellError` for."""
        numbers = np.asarray(numbers, "int64")
        for name in (self.roles.time, self.roles.series, *self.roles.target, *self.roles.known):
            if not name:
                continue
            try:
                found = of(name)
                if name in self.roles.known and np.isnan(found).any():
                    raise cells.CellError(
                        int(np.isnan(found).argmax()),
                        "a covariate that is known ahead of time is missing",
                    )
            except cells.CellError as error:
                raise self.error(numbers[error.index], name, error) from None
            self.parts.setdefault(name, []).append(found)
        self.numbers.append(numbers)

    def error(self, number: int, name: str, error: ValueError) -> DataError:
        return DataError(f"{self.path}, {self.unit} {number}, column {name!r}: {error}.")

    def rows(self, is_stamp: bool, is_zoned: bool) -> Rows:
        """The rows of all parts."""
        if not self.numbers:
            raise DataError(f"{self.path} has no rows.")
        whole = {name: np.concatenate(parts) for name, parts in self.parts.items()}
        numbers, roles = np.concatenate(self.numbers), self.roles
        times = whole[roles.time] if roles.time else None
        if is_stamp:
            try:
                times = cells.stamps_to_times(times)
            except cells.CellError as error:
                raise self.error(numbers[error.index], roles.time, error) from None
        elif is_zoned:
            times = self._in_one_zone(times[:, 0], times[:, 1])
        empty = np.zeros((len(numbers), 0), "float32")

        def matrix(names):
            return np.stack([whole[name] for name in names], axis=-1) if names else empty

        return Rows(
            self.path,
            self.unit,
            numbers,
            roles.target,
            roles.known,
            times,
            whole[roles.series] if roles.series else None,
            matrix(roles.target),
            matrix(roles.known),
        )

    def _in_one_zone(self, seconds: np.ndarray, zones: np.ndarray) -> np.ndarray:
        if (zones == zones[0]).all():
            return seconds
        report_once(f"{self.path}: the times are in several time zones, and are read as UTC.")
        return seconds - zones


def _read_text(path: Path, roles: Roles) -> Rows:
    rows = read_rows(path, "\t" if path.suffix.lower() == ".tsv" else ",")
    head = list(itertools.islice(rows, _HEAD + 1))
    if not head:
        raise DataError(f"{path} is empty.")
    names, has_header = _header(path, head[0][1])
    body = head[1:] if has_header else head
    for line, fields in body:
        _check_width(path, line, fields, names)
    sample = {name: [row[k] for _, row in body] for k, name in enumerate(names)}
    roles = _detect(path, names, sample, roles)
    is_stamp = bool(roles.time) and all(map(cells.is_whole, sample[roles.time][:1]))
    position = {name: k for k, name in enumerate(names)}
    columns, numbers = _Columns(path, "line", roles), cells.Numbers()
    zoned: set[bool] = set()

    def read_time(own: list[str]) -> np.ndarray:
        if is_stamp:
            return cells.read_stamps(own)
        seconds, zones = cells.read_times(own)
        zoned.add(zones is not None)
        if len(zoned) > 1:
            raise cells.CellError(0, "some times have a time zone, and others none")
        return seconds if zones is None else np.stack([seconds, zones], axis=-1)

    for part in _parts(itertools.chain(body, rows)):
        for line, fields in part:
            _check_width(path, line, fields, names)
        text = list(zip(*(fields for _, fields in part), strict=True))

        def of(name: str, text=text) -> np.ndarray:
            own = list(text[position[name]])
            if name == roles.time:
                return read_time(own)
            if name == roles.series:
                return cells.read_names(own)
            return cells.to_float32(numbers.read(own))

        columns.add([line for line, _ in part], of)
    if numbers.has_commas:
        report_once(f"{path}: the numbers are read with decimal commas.")
    found = columns.rows(is_stamp, any(zoned))
    blank = int(found.numbers[-1] - found.numbers[0]) + 1 - len(found.numbers)
    if blank and found.times is None:
        report_once(f"{path}: {blank:,} blank lines are no steps; write NA for a missing value.")
    return found


def _parts(rows: Iterator[tuple[int, list[str]]]) -> Iterator[list[tuple[int, list[str]]]]:
    while part := list(itertools.islice(rows, _PART)):
        yield part


def _check_width(path: Path, line: int, fields: list[str], names: list[str]) -> None:
    if len(fields) != len(names):
        raise DataError(f"{path}, line {line}: {len(fields)} columns in place of {len(names)}.")


def _header(path: Path, fields: list[str]) -> tuple[list[str], bool]:
    """The names of the columns, and whether the first row has them."""
    fields = [" ".join(each.split()) for each in fields]
    values = [each for each in fields if each]
    # pandas numbers columns without a name from 0.
    is_numbered = len(fields) > 1 and fields == [str(k) for k in range(len(fields))]
    if not is_numbered and all(
        cells.is_number(each) or cells.looks_like_times([each]) for each in values
    ):
        names = [f"column {k}" for k in range(1, len(fields) + 1)]
        report_once(f"{path} has no header: the columns are called {names[0]}, ...")
        return names, False
    names = [name or f"column {k}" for k, name in enumerate(fields, start=1)]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        raise DataError(f"{path} has two columns {repeated!r}.")
    return names, True


def _detect(path: Path, names: list[str], sample: dict[str, list[str]], roles: Roles) -> Roles:
    """The roles of the columns, from the first rows."""
    for role in (roles.time, roles.series, *roles.target, *roles.known):
        if role and role not in names:
            raise DataError(f"{path} has no column {role!r}; it has {', '.join(names)}.")
    used = [role for role in (roles.time, roles.series, *roles.target, *roles.known) if role]
    if repeated := next((role for role in used if used.count(role) > 1), None):
        raise DataError(f"{path}: the column {repeated!r} is named for two purposes.")

    def is_time(name: str) -> bool:
        given = [cell for cell in sample[name] if cell.strip()]
        is_named = name.casefold() in _TIME_NAMES and all(map(cells.is_whole, given))
        return bool(given) and (is_named or cells.looks_like_times(given))

    free = [name for name in names if name not in used]
    series = roles.series or next((n for n in free if n.casefold() in _SERIES_NAMES), "")
    free = [name for name in free if name != series]
    time = roles.time or next(filter(is_time, free), "")
    target = roles.target
    if not target:
        others = [name for name in free if name != time]
        index = {name for name in others if _is_index(name, sample[name])}
        texts = [name for name in others if is_time(name) or not cells.looks_numeric(sample[name])]
        target = tuple(name for name in others if name not in {*texts, *index})
        for what, left_out in (("no numbers", texts), ("the numbers of the rows", sorted(index))):
            if left_out:
                report_once(f"{path} is read without {', '.join(left_out)} ({what}).")
    if not target:
        raise DataError(f"{path} has no column of numbers to forecast.")
    return Roles(time, target, series, roles.known)


def _is_index(name: str, sample: list[str]) -> bool:
    """Whether a column without a name counts the rows, as pandas writes it."""
    has_name = not name.startswith(("column ", "Unnamed: ", "__index_level_"))
    return not has_name and sample == [str(k) for k in range(len(sample))] and len(sample) > 1


def _read_parquet(path: Path, roles: Roles) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return _read_batches(path, file, roles)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} cannot be read as Parquet: {reason}") from None


def _read_batches(path: Path, file, roles: Roles) -> Rows:
    import pyarrow as pa

    names = file.schema_arrow.names
    first = next(file.iter_batches(_HEAD), None)
    if first is None:
        raise DataError(f"{path} has no rows.")
    sample = {name: _as_text(first.column(name)) for name in names}
    roles = _detect(path, names, sample, roles)
    columns = _Columns(path, "row", roles)
    zones, is_stamp = [], False
    if roles.time:
        kind = file.schema_arrow.field(roles.time).type
        is_stamp = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if pa.types.is_timestamp(kind) and kind.tz:
            report_once(f"{path}: the times have the time zone {kind.tz}, and are read as UTC.")
    before = 0
    used = [n for n in (roles.time, roles.series, *roles.target, *roles.known) if n]
    for batch in file.iter_batches(_PART, columns=used):

        def of(name: str, batch=batch) -> np.ndarray:
            column = batch.column(name)
            if name == roles.series:
                return cells.read_names(_as_text(column))
            if name == roles.time:
                if column.null_count:
                    missing = column.is_null().to_numpy(zero_copy_only=False)
                    raise cells.CellError(int(missing.argmax()), "the time is missing")
                if is_stamp:
                    return column.cast(pa.int64()).to_numpy()
                if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
                    return column.cast(pa.timestamp("s")).cast(pa.int64()).to_numpy()
                seconds, own = cells.read_times(_as_text(column))
                zones.append(own is not None)
                return seconds if own is None else np.stack([seconds, own], axis=-1)
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                raise cells.CellError(0, "it has text in place of numbers")
            return cells.to_float32(column.cast(pa.float64()).to_numpy(zero_copy_only=False))

        columns.add(before + 1 + np.arange(len(batch)), of)
        before += len(batch)
    return columns.rows(is_stamp, any(zones))


def _as_text(column) -> list[str]:
    return ["" if value is None else str(value) for value in column.to_pylist()]
