"""Cells of tables to numbers and times."""

import re

import numpy as np

from unroll.pipelines.calendars import DAY

MISSING = frozenset(("", "na", "nan", "null"))  # in lower case
# Numbers with what may be a decimal comma, and those in which it may also separate thousands.
_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
# What is meant as a number, but is none.
_DECORATED = re.compile(
    r"[^\w\s]?\s*[+-]?\d[\d.,'’_\s]*\s*(?:[%€$£¥]|[A-Za-zµ°]{1,3})?|n/a|-+|\?", re.I
)
_TIME = re.compile(
    r"(?P<year>\d{4})(?P<mark>[-/.]?)(?P<month>\d{1,2})(?:(?P=mark)(?P<day>\d{1,2}))?"
    r"(?:[T\s]\s*(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,]0+)?)?)?"
    r"\s*(?P<zone>Z|[+-]\d{2}(?::?\d{2})?)?",
    re.IGNORECASE,
)
_WHOLE = re.compile(r"[+-]?\d+(?:\.0*)?")
_DAY_FIRST = re.compile(r"\d{1,2}([-/.])\d{1,2}\1\d{2,4}\b.*")
_UNITS = {1: 1e11, 10**3: 1e14, 10**6: 1e17, 10**9: np.inf}  # of Unix time, below which size


class CellError(ValueError):
    """A cell that cannot be read. `index` is its row."""

    def __init__(self, index: int, message: str):
        super().__init__(message)
        self.index = index


class Numbers:
    """Reads columns of numbers, part by part. Empty cells, NA, NaN and null are missing.

    Attributes:
        has_commas, has_points: whether numbers with decimal commas or points were read.
    """

    def __init__(self):
        self.has_commas = self.has_points = False

    def read(self, cells: list[str]) -> np.ndarray:
        """The numbers of cells, `[N]` float64, NaN where missing.

        A comma is the decimal mark if no number has a point, and one has no three digits after it.

        Raises:
            CellError: if a cell is no number, or may be two.
        """
        text = "".join(cells)
        if "," not in text and "_" not in text and not (self.has_commas and "." in text):
            self.has_points |= "." in text
            try:
                return np.array(list(map(float, cells)))
            except ValueError:
                pass
        return np.array([self._number(*pair) for pair in enumerate(cells)])

    def _number(self, index: int, cell: str) -> float:
        stripped = cell.strip()
        if stripped.lower() in MISSING:
            return np.nan
        if "," in stripped and not self.has_points and _COMMA.fullmatch(stripped):
            if not self.has_commas and _THOUSANDS.fullmatch(stripped):
                whole, fraction = stripped.replace(",", ""), stripped.replace(",", ".")
                raise CellError(index, f"{stripped!r} may be {whole} or {fraction}: write one")
            self.has_commas = True
            return float(stripped.replace(",", "."))
        if "." in stripped and self.has_commas:
            raise CellError(index, f"{stripped!r} has a point, and other numbers a decimal comma")
        try:
            if "_" in stripped:
                raise ValueError
            number = float(stripped)
        except ValueError:
            raise CellError(index, f"{stripped!r} is not a number") from None
        self.has_points |= "." in stripped
        return number


def looks_numeric(cells: list[str]) -> bool:
    """Whether cells are meant as numbers: most of those that are not missing have digits alone.

    Units, signs of currencies and thousands separators are allowed: then reading the column fails,
    with a message, in place of leaving it out.
    """
    given = [cell.strip() for cell in cells if cell.strip().lower() not in MISSING]
    return 2 * sum(bool(_DECORATED.fullmatch(c) or is_number(c)) for c in given) >= len(given)


def is_number(cell: str) -> bool:
    """Whether a cell is a number or missing."""
    try:
        Numbers().read([cell])
    except CellError:
        return bool(_THOUSANDS.fullmatch(cell.strip()))
    return True


def is_whole(cell: str) -> bool:
    """Whether a cell is a whole number."""
    return bool(_WHOLE.fullmatch(cell.strip()))


def read_names(cells: list[str]) -> np.ndarray:
    """The names of series, with single spaces.

    Raises:
        CellError: if a cell is empty.
    """
    names = [" ".join(cell.split()) for cell in cells]
    if "" in names:
        raise CellError(names.index(""), "the series has no name")
    return np.array(names, object)


def to_float32(numbers: np.ndarray) -> np.ndarray:
    """Numbers as they are stored.

    Raises:
        CellError: if one is infinite or too large.
    """
    too_large = np.abs(numbers) > np.finfo("float32").max
    if too_large.any():
        index = int(too_large.argmax())
        raise CellError(index, f"{numbers[index]} is too large")
    return numbers.astype("float32")


def looks_like_times(cells: list[str]) -> bool:
    """Whether all of the cells are dates, also those of which day and month may be exchanged.

    Numbers are none.
    """
    return bool(cells) and all(
        (_TIME.fullmatch(c.strip()) or _DAY_FIRST.fullmatch(c.strip())) and not is_whole(c)
        for c in cells
    )


def read_times(cells: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Times of dates: ISO 8601, also with slashes or points, one-digit months, and without a day.

    Returns:
        `[N]` int64, seconds since 1970 of the clock on the wall, and the seconds by which it is
        ahead of UTC, or `None` if the cells do not have it.

    Raises:
        CellError: if a cell is none, or if some cells have a zone and others have none.
    """
    text = "".join(cells)
    # A sign after the date belongs to a zone; NumPy reads other words than dates.
    if not re.search(r"[^\d\-:T ]", text) and max(map(len, cells)) <= 19:
        try:
            found = np.array([c.strip() for c in cells], "datetime64[s]")
        except ValueError:
            pass
        else:
            is_date = np.array([c.strip()[4:5] == "-" for c in cells])
            if is_date.all() and not np.isnat(found).any():
                return found.astype("int64"), None
    parts = [_time(*pair) for pair in enumerate(cells)]
    zones = [zone for _, zone in parts]
    if (is_local := [zone is None for zone in zones]) and any(is_local) != all(is_local):
        index = is_local.index(not is_local[0])
        raise CellError(index, f"{cells[index]!r}: some times have a time zone, and others none")
    seconds = np.array([second for second, _ in parts], "int64")
    return seconds, None if is_local[0] else np.array(zones, "int64")


def _time(index: int, cell: str) -> tuple[int, int | None]:
    stripped = cell.strip()
    found = _TIME.fullmatch(stripped)
    if not found:
        if _DAY_FIRST.fullmatch(stripped):
            raise CellError(
                index, f"the order of day and month of {stripped!r} is not known: write 2024-12-31"
            )
        raise CellError(index, f"{stripped!r} is not a time: write 2024-12-31 or 2024-12-31 23:59")
    year, month, day = found["year"], found["month"], found["day"] or "1"
    try:
        date = np.datetime64(f"{year}-{month:0>2}-{day:0>2}", "D")
        hour, minute, second = (int(found[k] or 0) for k in ("hour", "minute", "second"))
        if hour > 23 or minute > 59 or second > 59:
            raise ValueError
    except ValueError:
        raise CellError(index, f"{stripped!r} is not a time that exists") from None
    seconds = int(date.astype("int64")) * DAY + 3600 * hour + 60 * minute + second
    return seconds, _zone(found["zone"])


def _zone(zone: str | None) -> int | None:
    if zone is None:
        return None
    digits = zone[1:].replace(":", "").ljust(4, "0")
    offset = 3600 * int(digits[:2]) + 60 * int(digits[2:]) if digits.isdigit() else 0
    return -offset if zone[0] == "-" else offset


def read_stamps(cells: list[str]) -> np.ndarray:
    """Whole numbers, for `stamps_to_times`, `[N]` int64.

    Raises:
        CellError: if a cell is none.
    """
    for index, cell in enumerate(cells):
        if not is_whole(cell):
            before = ", as the times before it" if index else ""
            raise CellError(index, f"{cell.strip()!r} is not a whole number{before}")
    return np.array([int(cell.partition(".")[0]) for cell in cells], "int64")


def stamps_to_times(numbers: np.ndarray) -> np.ndarray:
    """Times of years, of dates such as 20241231, or of Unix time, `[N]` int64.

    Unix time is in seconds, milliseconds, microseconds or nanoseconds: the largest number tells
    which.

    Raises:
        CellError: if a number has a fraction of a second.
    """
    low, high = numbers.min(), numbers.max()
    if low >= 1000 and high < 3000:
        return (numbers - 1970).astype("M8[Y]").astype("M8[s]").astype("int64")
    if low >= 10_000_101 and high < 30_000_000:
        try:
            dates = np.array([f"{n // 10**4}-{n // 100 % 100:02}-{n % 100:02}" for n in numbers])
            return dates.astype("M8[s]").astype("int64")
        except ValueError:
            pass
    size = max(abs(int(low)), abs(int(high)))
    unit = next(unit for unit, limit in _UNITS.items() if size < limit)
    fraction = numbers % unit != 0
    if fraction.any():
        index = int(fraction.argmax())
        raise CellError(index, f"{numbers[index]} has a fraction of a second")
    return numbers // unit
