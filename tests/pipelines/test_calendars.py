"""Frequencies, steps of calendars, and time features in the graph and in LiteRT."""

import datetime

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from unroll.pipelines import calendars
from unroll.pipelines.errors import DataError


def seconds(*times: str) -> np.ndarray:
    return np.array(times, "M8[s]").astype("int64")


def written(times: np.ndarray) -> list[str]:
    return [str(time).replace("T00:00:00", "") for time in times.astype("M8[s]")]


# Every 37th hour from the year 1000 to 3000, and the days around the ends of all years in it.
CENTURIES = np.concatenate(
    [
        np.arange(*seconds("1000-01-01", "3000-01-01"), 37 * 3600 * 61),
        *(
            np.arange(1000, 3000, 1).astype(str).astype("M8[Y]").astype("M8[s]").astype("int64")
            + day * calendars.DAY
            + 86_399
            for day in (-1, 0, 58, 59)
        ),
    ]
)


class TestTimeFeatures:
    def test_they_are_those_of_python_for_centuries(self):
        parts = {
            "second": lambda t: t.second / 59,
            "minute": lambda t: t.minute / 59,
            "hour": lambda t: t.hour / 23,
            "day of week": lambda t: t.weekday() / 6,
            "day of month": lambda t: (t.day - 1) / 30,
            "day of year": lambda t: (t.timetuple().tm_yday - 1) / 365,
            "month": lambda t: (t.month - 1) / 11,
        }
        dates = [
            datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=int(time))
            for time in CENTURIES
        ]
        checked = set()
        for frequency in ("s", "MS"):
            names = calendars.feature_names(frequency)
            found = calendars.time_features(CENTURIES, frequency).numpy()
            expected = [[parts[name](date) - 0.5 for name in names] for date in dates]
            np.testing.assert_allclose(found, expected, atol=1e-6)
            checked.update(names)
        assert checked == set(parts)

    @pytest.mark.parametrize(
        ("frequency", "names"),
        [
            ("15min", ["minute", "hour", "day of week", "day of month", "day of year"]),
            ("h", ["hour", "day of week", "day of month", "day of year"]),
            ("B", ["day of week", "day of month", "day of year"]),
            ("W", ["day of month", "day of year"]),
            ("QE", ["month"]),
            ("YS", []),
            ("", []),
        ],
    )
    def test_only_those_that_differ_from_step_to_step(self, frequency, names):
        assert calendars.feature_names(frequency) == names
        shape = calendars.time_features(tf.zeros([2, 3], tf.int64), frequency).shape
        assert shape == (2, 3, len(names))

    def test_litert_has_the_operations(self):
        function = tf.function(
            lambda times: calendars.time_features(times, "s"),
            input_signature=[tf.TensorSpec([None, None], tf.int64)],
        )
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [function.get_concrete_function()]
        )
        model = Interpreter(model_content=converter.convert())
        given, output = model.get_input_details()[0]["index"], model.get_output_details()[0]
        model.resize_tensor_input(given, [1, len(CENTURIES)])
        model.allocate_tensors()
        model.set_tensor(given, CENTURIES[None])
        model.invoke()
        found = model.get_tensor(output["index"])
        np.testing.assert_allclose(found, function(CENTURIES[None]), atol=1e-7)


@pytest.mark.parametrize(
    ("times", "frequency"),
    [
        (["2024-01-01 00:00:00", "2024-01-01 00:00:01"], "s"),
        (["2024-01-01 00:00", "2024-01-01 00:15", "2024-01-01 00:30"], "15min"),
        # A day is missing, and the clock is not at zero.
        (["2024-03-30 06:30", "2024-03-31 06:30", "2024-04-01 06:30", "2024-04-03 06:30"], "D"),
        (["2024-03-29", "2024-04-01", "2024-04-02", "2024-04-03", "2024-04-08"], "B"),
        (["2024-03-27", "2024-03-28", "2024-03-29"], "D"),  # too few to have a weekend
        (["2024-03-01", "2024-03-15", "2024-03-29"], "2W"),
        (["2024-01-01", "2024-02-01", "2024-03-01", "2024-06-01"], "MS"),
        (["2024-01-15", "2024-02-15", "2024-03-15"], "MS"),
        (["2024-01-31", "2024-02-29", "2024-03-31"], "ME"),
        (["2024-03-31", "2024-06-30", "2024-09-30"], "QE"),
        (["2024-01-01", "2024-03-01", "2024-05-01"], "2MS"),
        (["1999-01-01", "2000-01-01", "2001-01-01"], "YS"),
        (["1999-12-31", "2000-12-31", "2001-12-31"], "YE"),
        (["2024-01-01", "2024-01-31", "2024-03-01"], "30D"),
        (["2024-01-01", "2024-01-29", "2024-02-26"], "4W"),
    ],
)
def test_a_frequency_is_inferred_and_continues_the_times(times, frequency):
    times = seconds(*times)
    assert calendars.infer([times]) == frequency
    steps, between = calendars.steps_of(times, frequency)
    assert between is None
    if frequency != "B":  # Friday 29 March to Monday 8 April 2024 has a gap, of holidays
        np.testing.assert_array_equal(calendars.shift(times[0], steps, frequency), times)
        ahead = calendars.shift(times[-1], np.array([0, -steps[-1]]), frequency)
        np.testing.assert_array_equal(ahead, times[[-1, 0]])


def test_the_frequency_of_several_series_is_the_commonest():
    daily = [seconds("2024-01-01", "2024-01-02", "2024-01-03"), seconds("2024-02-01")]
    assert calendars.infer([*daily, seconds("2023-01-01", "2023-01-03")]) == "D"
    assert calendars.infer(daily[1:]) == ""


def test_months_keep_their_last_day_and_weeks_of_work_their_weekend():
    february = calendars.shift(seconds("2024-01-31")[0], np.arange(-2, 3), "ME")
    assert written(february) == [
        *("2023-11-30", "2023-12-31", "2024-01-31", "2024-02-29", "2024-03-31"),
    ]
    friday = calendars.shift(seconds("2024-03-29 16:00")[0], np.array([-5, 0, 1, 6]), "B")
    assert written(friday) == [
        *("2024-03-22T16:00:00", "2024-03-29T16:00:00", "2024-04-01T16:00:00"),
        "2024-04-08T16:00:00",
    ]
    # Of a month without this day, the last one.
    assert written(calendars.shift(seconds("2023-12-30")[0], np.array([2]), "MS")) == ["2024-02-29"]


def test_a_time_between_two_steps_is_found():
    times = seconds("2024-01-01", "2024-01-02", "2024-01-03 12:00", "2024-01-04")
    assert calendars.steps_of(times, "D")[1] == 2
    assert calendars.steps_of(seconds("2024-01-01", "2024-02-02"), "MS")[1] == 1
    assert calendars.steps_of(seconds("2024-01-01", "2024-02-01"), "QS")[1] == 1


@pytest.mark.parametrize("frequency", ["H", "0D", "M", "1", "hourly", "-1D"])
def test_an_unknown_frequency_names_the_known_ones(frequency):
    with pytest.raises(DataError, match=rf"^The frequency '{frequency}' is none of s, min, h, D,"):
        calendars.parse(frequency)


@pytest.mark.parametrize(
    ("frequency", "steps"),
    [("s", 86_400), ("30min", 48), ("h", 24), ("6h", 4), ("D", 7), ("2D", 3), ("B", 5), ("W", 52),
     ("MS", 12), ("QE", 4), ("YS", 1), ("5YS", 1), ("", 1)],
)  # fmt: skip
def test_seasons(frequency, steps):
    assert calendars.season(frequency) == steps
