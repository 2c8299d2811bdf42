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
    second = tf.math.floormod(times, DAY)
    # LiteRT has no division of int64. As a float32, the quotient is wrong by less than 0.5.
    day = tf.cast(tf.round(tf.cast(times - second, tf.float32) / DAY), tf.int32)
    second = tf.cast(second, tf.int32)
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
