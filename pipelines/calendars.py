"""Times of series: frequencies, the steps of a calendar, and time features in the graph.

A time is a number of seconds since 1970-01-01, of the clock on the wall: the time zone is that of
the file. A frequency is written as pandas does it:

| frequency | a step is |
| --- | --- |
| `s`, `min`, `h`, `D`, `W` | a second, minute, hour, day, week |
| `B` | a day from Monday to Friday |
| `MS`, `QS`, `YS` | a month, quarter, year, on the same day of the month |
| `ME`, `QE`, `YE` | a month, quarter, year, on the last day of the month |
| an empty string | of unknown length: times are the numbers of the steps |

A number before the unit multiplies it, as in `15min`.
"""

import re

import numpy as np
import tensorflow as tf

from unroll.pipelines.errors import DataError

DAY = 86_400
_SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600, "D": DAY, "W": 7 * DAY}
_MONTHS = {"MS": 1, "QS": 3, "YS": 12, "ME": 1, "QE": 3, "YE": 12}
_FREQUENCY = re.compile(r"(?P<count>[1-9]\d*)?(?P<unit>s|min|h|D|W|B|[MQY][SE])?")
_FEATURES = {
    "second": ("s",),
    "minute": ("s", "min"),
    "hour": ("s", "min", "h"),
    "day of week": ("s", "min", "h", "D", "B"),
    "day of month": ("s", "min", "h", "D", "B", "W"),
    "day of year": ("s", "min", "h", "D", "B", "W"),
    "month": ("MS", "ME", "QS", "QE"),
}
_LARGEST = {
    "second": 59, "minute": 59, "hour": 23, "day of week": 6, "day of month": 30,
    "day of year": 365, "month": 11,
}  # fmt: skip


def parse(frequency: str) -> tuple[int, str]:
    """The number and the unit of a frequency.

    >>> parse("15min"), parse("MS"), parse("")
    ((15, 'min'), (1, 'MS'), (1, ''))

    Raises:
        DataError: if it is none.
    """
    found = _FREQUENCY.fullmatch(frequency)
    if not found or (frequency and not found["unit"]):
        raise DataError(
            f"The frequency {frequency!r} is none of s, min, h, D, B, W, MS, ME, QS, QE, YS, YE, "
            "with a number before it, as in 15min."
        )
    return int(found["count"] or 1), found["unit"] or ""


def shift(time: int, steps: np.ndarray, frequency: str) -> np.ndarray:
    """The times that are a number of steps after a time, `[N]` int64.

    Args:
        time: on the calendar of the frequency.
        steps: `[N]` integers, which may be negative.
        frequency: as in the docstring of this module.

    >>> shift(0, np.arange(3), "MS").astype("datetime64[s]").astype("datetime64[D]").tolist()
    [datetime.date(1970, 1, 1), datetime.date(1970, 2, 1), datetime.date(1970, 3, 1)]
    """
    count, unit = parse(frequency)
    steps = np.asarray(steps, "int64") * count
    if unit in _SECONDS:
        return time + steps * _SECONDS[unit]
    day, second = divmod(int(time), DAY)
    if unit == "B":
        days = np.busday_offset(np.datetime64(day, "D"), steps, roll="backward")
    else:
        month = np.datetime64(day, "D").astype("datetime64[M]")
        months = month + steps * _MONTHS[unit]
        last = (months + 1).astype("datetime64[D]") - 1
        own = months.astype("datetime64[D]") + (np.datetime64(day, "D") - month)
        days = last if unit.endswith("E") else np.minimum(own, last)
    return days.astype("int64") * DAY + second


def infer(times: list[np.ndarray]) -> str:
    """The frequency of series: the commonest difference between two times.

    Args:
        times: of each series, `[T]` int64, sorted, without duplicates.

    Returns:
        Months, quarters or years if all times are on the same day of the month, or on its last.
        `B` if the differences are days, and no time is on a weekend. An empty string if no series
        has two times.

    >>> infer([np.array(["2020-01-31", "2020-02-29", "2020-04-30"], "M8[s]").astype("int64")])
    'ME'
    """
    found = np.concatenate([np.diff(own) for own in times])
    if not len(found):
        return ""
    every = np.concatenate(times)
    days, seconds = every // DAY, every % DAY
    if found.min() >= 28 * DAY and (seconds == seconds[0]).all():
        dates = days.astype("datetime64[D]")
        months = dates.astype("datetime64[M]")
        of_month = (dates - months.astype("datetime64[D]")).astype("int64")
        is_last = (dates + 1).astype("datetime64[M]") != months
        kind = "E" if is_last.all() else "S" if (of_month == of_month[0]).all() else ""
        if kind:
            own = [part.astype("M8[s]").astype("M8[M]").astype("int64") for part in times]
            step = _commonest(np.concatenate([np.diff(part) for part in own]))
            of_unit = next(n for n in (12, 3, 1) if step % n == 0)
            return _multiple(step // of_unit, {12: "Y", 3: "Q", 1: "M"}[of_unit] + kind)
    step = _commonest(found)
    if step == DAY and every.max() - every.min() >= 7 * DAY and ((days + 3) % 7 < 5).all():
        return "B"
    unit = next(unit for unit in ("W", "D", "h", "min", "s") if step % _SECONDS[unit] == 0)
    return _multiple(step // _SECONDS[unit], unit)


def _commonest(numbers: np.ndarray) -> int:
    values, counts = np.unique(numbers, return_counts=True)
    return int(values[counts.argmax()])


def _multiple(count: int, unit: str) -> str:
    return unit if count == 1 else f"{count}{unit}"


def steps_of(times: np.ndarray, frequency: str) -> tuple[np.ndarray, int | None]:
    """The number of steps from the first time to each, and the index of the first that is between.

    At the frequency `B`, holidays are no steps: each time is one step after the one before.

    Args:
        times: `[T]` int64, sorted.
        frequency: as in the docstring of this module.

    Returns:
        `[T]` int64, and `None` if all times are on the calendar of the first one.
    """
    count, unit = parse(frequency)
    if unit == "B":
        return np.arange(len(times)), None
    if unit in _SECONDS:
        steps = (times - times[0]) // (count * _SECONDS[unit])
    else:
        months = times.astype("M8[s]").astype("M8[M]").astype("int64")
        steps = (months - months[0]) // (count * _MONTHS[unit])
    between = shift(times[0], steps, frequency) != times
    return steps, int(between.argmax()) if between.any() else None


def season(frequency: str) -> int:
    """The number of steps of the season that is usual for a frequency; 1 if there is none.

    A day of seconds, minutes or hours, a week of days, a year of weeks, months and quarters.

    >>> season("h"), season("15min"), season("B"), season("QS")
    (24, 96, 5, 4)
    """
    count, unit = parse(frequency)
    whole = {"s": DAY, "min": DAY // 60, "h": 24, "D": 7, "B": 5, "W": 52} | {
        unit: 12 // months for unit, months in _MONTHS.items()
    }
    return max(1, whole.get(unit, 1) // count)


def feature_names(frequency: str) -> list[str]:
    """The time features that differ from step to step at a frequency.

    >>> feature_names("h")
    ['hour', 'day of week', 'day of month', 'day of year']
    """
    unit = parse(frequency)[1]
    return [name for name, units in _FEATURES.items() if unit in units]


def time_features(times, frequency: str) -> tf.Tensor:
    """Time features, each in [-0.5, 0.5], with operations that LiteRT has.

    Args:
        times: int64, of any shape, of the years from -9000 to 12,000.
        frequency: as in the docstring of this module.

    Returns:
        float32, of the shape of `times` with an axis of `feature_names(frequency)` after it.
    """
    names = feature_names(frequency)
    parts = _parts(tf.cast(times, tf.int64))
    columns = [tf.cast(parts[name], tf.float32) / _LARGEST[name] - 0.5 for name in names]
    if not columns:
        return tf.zeros(tf.concat([tf.shape(times), [0]], axis=0))
    return tf.stack(columns, axis=-1)


def _parts(times: tf.Tensor) -> dict[str, tf.Tensor]:
    """The parts of dates and times, int32, from zero.

    Dates by "civil_from_days" (Hinnant, "chrono-compatible low-level date algorithms"): years
    begin in March, so that the leap day is the last.
    """
    # LiteRT has no division of int64. A float32 is wrong by less than a day, and by 10,000 days
    # with constants of float16, of which none is as large as DAY. The integers that remain are
    # small.
    near = tf.cast(times, tf.float32) / 128 / (DAY // 128)
    near = tf.cast(tf.round(near), tf.int32)
    rest = tf.cast(times - DAY * tf.cast(near, tf.int64), tf.int32)
    day = near + rest // DAY
    second = tf.math.floormod(rest, DAY)
    shifted = day + 719_468  # days since March of the year 0
    era = shifted // 146_097  # 400 years
    of_era = shifted - era * 146_097
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)  # from March 1
    month = (5 * of_year + 2) // 153  # from March
    of_month = of_year - (153 * month + 2) // 5
    is_early = tf.cast(month >= 10, tf.int32)  # January and February belong to the next year
    of_400 = year + is_early
    is_leap = tf.cast(tf.math.floormod(of_400, 4) == 0, tf.int32) - tf.cast(
        tf.math.floormod(of_400, 100) == 0, tf.int32
    )
    is_leap += tf.cast(tf.math.floormod(of_400, 400) == 0, tf.int32)
    january = tf.where(is_early == 1, of_year - 306, of_year + 59 + is_leap)
    return {
        "second": tf.math.floormod(second, 60),
        "minute": tf.math.floormod(second // 60, 60),
        "hour": second // 3600,
        "day of week": tf.math.floormod(day + 3, 7),  # 1970-01-01 is a Thursday; Monday is 0
        "day of month": of_month,
        "day of year": january,
        "month": tf.math.floormod(month + 2, 12),
    }
