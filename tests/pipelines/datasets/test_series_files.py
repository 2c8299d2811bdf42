"""Your own series: CSV and Parquet files, what is detected, converted, reported and refused."""

import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.mutations import outcomes
from unroll.pipelines import errors
from unroll.pipelines.datasets.series.series_files import read_series
from unroll.pipelines.datasets.series.tables import Roles
from unroll.pipelines.errors import DataError
from unroll.pipelines.forecasting import Table

NAN = float("nan")


@pytest.fixture(autouse=True)
def messages():
    """Every test prints its messages, although some are the same."""
    errors.report_once.cache_clear()


@pytest.fixture
def read(tmp_path, capsys):
    """Reads a text as a file; returns the table, and the messages without the name of the file."""

    def made(text: str | bytes, name: str = "a.csv", **roles) -> tuple[Table, list[str]]:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        capsys.readouterr()
        table = read_series(path, Roles(**roles))
        lines = capsys.readouterr().err.splitlines()
        return table, [line.removeprefix(f"unroll: {path}") for line in lines]

    return made


def refused(read, text: str | bytes, **options) -> str:
    """The message of the error, without the name of the folder."""
    with pytest.raises(DataError) as error:
        read(text, **options)
    message = str(error.value)
    assert "\n" not in message
    return message.partition("a.csv")[2].removeprefix(", ")


def dates(series) -> list[str]:
    return [str(time).replace("T00:00:00", "") for time in series.times.astype("M8[s]")]


class TestColumns:
    def test_the_first_dates_are_the_times_and_all_numbers_the_targets(self, read):
        table, messages = read(
            "city,day,rain,temperature\nBonn,2024-01-01,1.5,3\nBonn,2024-01-02,,-4e0\n"
        )
        assert (table.columns, table.known, table.frequency) == (["rain", "temperature"], [], "D")
        [series] = table.series
        assert series.name == "series"  # whatever the name of the file
        assert dates(series) == ["2024-01-01", "2024-01-02"]
        np.testing.assert_array_equal(series.values, [[1.5, 3], [NAN, -4]])
        assert messages == [
            " is read without city (no numbers).",
            ": the frequency is 'D', and a season has 7 steps.",
        ]

    def test_columns_that_are_named(self, read):
        text = "d,x,y,z,p\n2024-01,1,2,a,0\n2024-02,3,4,a,1\n2024-01,5,6,b,1\n2024-02,7,8,b,0\n"
        table, messages = read(text, time="d", target=("y", "x"), series="z", known=("p",))
        assert (table.columns, table.known, table.seasonality) == (["y", "x"], ["p"], 12)
        assert [series.name for series in table.series] == ["a", "b"]
        assert table.series[1].values.tolist() == [[6, 5], [8, 7]]
        assert table.series[1].known.tolist() == [[1], [0]]
        assert messages == [": the frequency is 'MS', and a season has 12 steps."]

    @pytest.mark.parametrize("header", ["unique_id", "series", "Item_ID"])
    def test_usual_names_of_the_column_of_series(self, read, header):
        table, _ = read(f"{header},ds,y\n7,2024-01-01,1\n7,2024-01-02,2\n8,2024-01-01,3\n")
        assert [(s.name, len(s.times)) for s in table.series] == [("7", 2), ("8", 1)]
        assert table.columns == ["y"]

    def test_a_column_of_a_spreadsheet_without_a_header_and_times(self, read):
        table, messages = read("12\n13.5\n-1\n")
        assert (table.columns, table.frequency, table.seasonality) == (["column 1"], "", 1)
        assert table.series[0].times.tolist() == [0, 1, 2]
        assert messages == [
            " has no header: the columns are called column 1, ...",
            " has no column of times: its rows are the steps.",
        ]

    def test_blank_lines_are_no_steps(self, read):
        table, messages = read("x\n1\n\n2\nNA\n3\n\n")
        np.testing.assert_array_equal(table.series[0].values[:, 0], [1, 2, NAN, 3])
        assert messages[0] == ": 1 blank lines are no steps; write NA for a missing value."

    def test_the_numbers_of_rows_are_left_out(self, read):
        table, messages = read(",date,y\n0,2024-01-01,4\n1,2024-01-02,5\n")
        assert table.columns == ["y"]
        assert messages[0] == " is read without column 1 (the numbers of the rows)."
        assert read("0,1\n5,6\n7,8\n")[0].columns == ["0", "1"]  # a header of pandas

    @pytest.mark.parametrize(
        ("roles", "message"),
        [
            ({"time": "Date"}, " has no column 'Date'; it has date, x, y."),
            ({"target": ("x", "z")}, " has no column 'z'; it has date, x, y."),
            ({"target": ("x",), "known": ("x",)}, "the column 'x' is named for two purposes."),
            ({"target": ("date",)}, "line 2, column 'date': '2024-01-01' is not a number."),
            ({"time": "x"}, "line 2, column 'x': '1.5' is not a time: write 2024-12-31 or"),
        ],
    )
    def test_columns_that_cannot_be_used(self, read, roles, message):
        text = "date,x,y\n2024-01-01,1.5,2\n2024-01-02,1,2\n"
        found = refused(read, text, **roles).removeprefix(": ")
        assert found.startswith(message)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", " is empty."),
            ("date,x\n", " has no rows."),
            ("date,x\n2024-01-01,1,2\n", "line 2: 3 columns in place of 2."),
            ("date,x,x\n2024-01-01,1,2\n", " has two columns 'x'."),
            ("date,x\n2024-01-01,a\n", " has no column of numbers to forecast."),
            (b"date,x\n2024-01-01,\xff\n", "line 2: byte 18 is not UTF-8. Save the file as UTF-8."),
        ],
    )
    def test_files_that_are_no_tables(self, read, text, message):
        assert refused(read, text) == message


class TestSpreadsheets:
    TEXT = "Zeit;Wert\n2024-01-01;1,5\n2024-01-02;-0,25\n2024-01-03;1,234\n2024-01-04;7\n"

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_semicolons_and_decimal_commas(self, read, encoding):
        table, messages = read(self.TEXT.replace("\n", "\r\n").encode(encoding))
        assert table.columns == ["Wert"]
        np.testing.assert_allclose(table.series[0].values[:, 0], [1.5, -0.25, 1.234, 7])
        assert messages[:2] == [
            " is read with semicolons between the columns.",
            ": the numbers are read with decimal commas.",
        ]

    def test_tabs_and_a_line_that_names_the_delimiter(self, read):
        tabs = self.TEXT.replace(";", "\t")
        assert read(tabs, "a.tsv")[0].series[0].values[1] == -0.25
        assert read("sep=;\n" + self.TEXT)[0].series[0].values[1] == -0.25

    @pytest.mark.parametrize(
        ("cell", "reason"),
        [
            ("1,234", "'1,234' may be 1234 or 1.234: write one"),
            ("1,234,567", "'1,234,567' is not a number"),
            ("1.234,5", "'1.234,5' is not a number"),
            ("12 %", "'12 %' is not a number"),
            ("5°C", "'5°C' is not a number"),
            ("n/a", "'n/a' is not a number"),
            ("-", "'-' is not a number"),
            ("1_000", "'1_000' is not a number"),
            ("inf", "inf is too large"),
            ("1e39", "1e+39 is too large"),
        ],
    )
    @pytest.mark.parametrize("others", ["3", "3.5"])
    def test_text_in_numbers(self, read, cell, reason, others):
        text = f'date,x\n2024-01-01,{others}\n2024-01-02,"{cell}"\n2024-01-03,{others}\n'
        if (cell, others) == ("1,234", "3.5"):
            reason = "'1,234' is not a number"
        if (cell, others) == ("1.234,5", "3"):
            reason = "'1.234,5' is not a number"
        assert refused(read, text) == f"line 3, column 'x': {reason}."
        # Also if a column has nothing else.
        text = f'date,x\n2024-01-01,"{cell}"\n2024-01-02,"{cell}"\n'
        assert refused(read, text).startswith("line 2, column 'x': ")

    def test_points_and_commas_are_not_mixed(self, read):
        text = "date;x;y\n2024-01-01;1,5;1\n2024-01-02;1,5;2.5\n"
        assert refused(read, text) == (
            "line 3, column 'y': '2.5' has a point, and other numbers a decimal comma."
        )

    @pytest.mark.parametrize("cell", ["", " ", "NA", "NaN", "nan", "null"])
    def test_missing_values(self, read, cell):
        table, _ = read(f"date,x,p\n2024-01-01,1,0\n2024-01-02,{cell},0\n", known=("p",))
        np.testing.assert_array_equal(table.series[0].values, [[1], [NAN]])
        message = refused(read, f"date,x,p\n2024-01-01,1,{cell}\n", known=("p",))
        assert message == (
            "line 2, column 'p': a covariate that is known ahead of time is missing."
        )


class TestTimes:
    @pytest.mark.parametrize(
        ("cells", "expected"),
        [
            (("2024-02-28", "2024-02-29"), "2024-02-28"),
            (("2024-02-28T05:30", "2024-02-28T05:45"), "2024-02-28T05:30:00"),
            (("2024-02-28 05:30:07", "2024-02-28 05:30:08.000"), "2024-02-28T05:30:07"),
            (("2016/7/1 0:00", "2016/7/1 1:00"), "2016-07-01"),
            (("2016.07.01", "2016.07.02"), "2016-07-01"),
            (("1949-01", "1949-02"), "1949-01-01"),
            (("1709186400", "1709190000"), "2024-02-29T06:00:00"),
            (("1709186400000", "1709190000000"), "2024-02-29T06:00:00"),
            (("20240228", "20240229"), "2024-02-28"),
            (("1999", "2000"), "1999-01-01"),
            (("1999.0", "2000.0"), "1999-01-01"),
            (("1850-12-31", "1851-12-31"), "1850-12-31"),
        ],
    )
    def test_formats(self, read, cells, expected):
        for quote in ("", '"'):
            rows = "".join(f"{quote}{cell}{quote},1\n" for cell in cells)
            table, _ = read(f"time,x\n{rows}")
            assert dates(table.series[0])[0] == expected
            assert table.columns == ["x"]

    @pytest.mark.parametrize(
        ("zones", "expected", "message"),
        [
            (("Z", "Z"), "2024-03-31T01:00:00", None),
            (("+01:00", "+0100"), "2024-03-31T01:00:00", None),
            (
                ("+01:00", "+02:00"),
                "2024-03-31",
                ": the times are in several time zones, and are read as UTC.",
            ),
        ],
    )
    def test_time_zones(self, read, zones, expected, message):
        second = "02:00" if zones[0] == zones[1] or zones[1] == "+0100" else "03:00"
        rows = f"2024-03-31 01:00{zones[0]},1\n2024-03-31 {second}{zones[1]},2\n"
        table, messages = read(f"date,x\n{rows}")
        assert dates(table.series[0])[0] == expected
        assert table.frequency == "h"
        assert messages[:-1] == ([message] if message else [])

    @pytest.mark.parametrize(
        ("cells", "message"),
        [
            (
                ("2024-01-01", "01/02/2024"),
                "line 3, column 't': the order of day and month of '01/02/2024' is not known: "
                "write 2024-12-31.",
            ),
            (
                ("31.12.2023", "31.1.2024"),
                "line 2, column 't': the order of day and month of '31.12.2023' is not known: "
                "write 2024-12-31.",
            ),
            (
                ("2024-01-01", "yesterday"),
                "line 3, column 't': 'yesterday' is not a time: write 2024-12-31 or "
                "2024-12-31 23:59.",
            ),
            (
                ("2024-01-01", ""),
                "line 3, column 't': '' is not a time: write 2024-12-31 or 2024-12-31 23:59.",
            ),
            (
                ("2023-02-28", "2023-02-29"),
                "line 3, column 't': '2023-02-29' is not a time that exists.",
            ),
            (
                ("2024-01-01 00:00", "2024-01-01 00:00:00.5"),
                "line 3, column 't': '2024-01-01 00:00:00.5' is not a time: write 2024-12-31 or "
                "2024-12-31 23:59.",
            ),
            (
                ("2024-01-01 00:00", "2024-01-01 01:00Z"),
                "line 3, column 't': '2024-01-01 01:00Z': some times have a time zone, and others "
                "none.",
            ),
        ],
    )
    def test_what_is_no_time(self, read, cells, message):
        rows = "".join(f"{cell},1\n" for cell in cells)
        assert refused(read, f"t,x\n{rows}", time="t") == message

    def test_all_times_are_of_one_kind(self, read):
        assert refused(read, "time,x\n1709186400,1\n2024-02-29,1\n", time="time") == (
            "line 3, column 'time': '2024-02-29' is not a whole number, as the times before it."
        )
        assert refused(read, "time,x\n2024-02-29,1\n1709186400,1\n", time="time") == (
            "line 3, column 'time': '1709186400' is not a time: write 2024-12-31 or "
            "2024-12-31 23:59."
        )

    def test_fractions_of_a_second(self, read):
        rows = "".join(f"{1709186400000 + k * 250},1\n" for k in range(3))
        assert refused(read, f"time,x\n{rows}") == (
            "line 3, column 'time': 1709186400250 has a fraction of a second."
        )


class TestSteps:
    def test_unsorted_rows_are_sorted(self, read):
        table, messages = read("date,x\n2024-01-03,3\n2024-01-02,2\n2024-01-01,1\n2024-01-04,4\n")
        assert table.series[0].values[:, 0].tolist() == [1, 2, 3, 4]
        assert messages[0] == (
            ": 2 rows are earlier than the row before; the rows are sorted by time."
        )

    def test_repeated_times_are_refused(self, read):
        rows = "2024-01-02,a,1\n2024-01-01,a,2\n\n2024-01-02,b,3\n2024-01-02,a,4\n"
        assert refused(read, f"date,series,x\n{rows}") == (
            "line 6: the time 2024-01-02 of the series 'a' is also that of line 2: remove one."
        )
        assert refused(read, f"date,station,x\n{rows}") == (
            "line 5: the time 2024-01-02 is also that of line 2: remove one, or name the column of "
            "the series with --series."
        )

    def test_gaps_are_missing_values(self, read):
        text = "date,x,p\n2024-01-01 05:00,1,7\n2024-01-01 06:00,2,8\n2024-01-01 09:00,3,9\n"
        table, messages = read(text, known=("p",))
        np.testing.assert_array_equal(table.series[0].values[:, 0], [1, 2, NAN, NAN, 3])
        assert table.series[0].known[:, 0].tolist() == [7, 8, 8, 8, 9]
        assert dates(table.series[0])[3] == "2024-01-01T08:00:00"
        assert messages[0] == (
            ": 2 steps have no row (gaps: 1): their values are missing, their covariates those of "
            "the step before."
        )

    def test_holidays_are_no_steps(self, read):
        days = ["2024-03-28", "2024-04-02", "2024-04-03", "2024-04-04", "2024-04-05"]
        table, messages = read("date,x\n" + "".join(f"{day},1\n" for day in days))
        assert (table.frequency, len(table.series[0].times)) == ("B", 5)
        assert messages[0] == (
            ": 2 days from Monday to Friday have no row: they are read as holidays, and are no "
            "steps."
        )

    def test_times_between_two_steps_are_refused(self, read):
        rows = "".join(f"2024-01-01 0{k}:00,1\n" for k in range(5))
        assert refused(read, f"date,x\n{rows}2024-01-01 04:20,1\n") == (
            "line 7: 2024-01-01 04:20:00 is not a whole number of steps of 'h' after 2024-01-01, "
            "the first time. Resample the series to regular steps."
        )

    def test_a_gap_that_is_larger_than_the_data_is_refused(self, read):
        rows = "1970-01-01 00:00:00,1\n2024-01-01 00:00:00,1\n2024-01-01 00:00:01,1\n"
        rows += "2024-01-01 00:00:02,1\n"
        with pytest.raises(DataError, match=r"has 4 rows and 1,704,067,203 steps of 's': there are "
                           r"none between 1970-01-01 and 2024-01-01\."):  # fmt: skip
            read(f"date,x\n{rows}")

    def test_one_time_has_no_frequency(self, read):
        message = refused(read, "date,x\n2024-01-01,1\n")
        assert message == ": no series has two times to infer their frequency from."


@pytest.mark.parametrize(
    "content",
    [
        "series,date,x,p\n"
        + "".join(f'{n},2024-01-{k:02},{k}.5,"{k % 2}"\n' for n in "ab" for k in range(1, 5)),
        "Zeit;Wert\n" + "".join(f"{1709186400 + 900 * k};{k},5\n" for k in range(8)),
    ],
)
def test_mutated_files_are_read_or_refused_in_one_line(content, tmp_path):
    """1,000 mutations of each."""
    count = 0
    for table in outcomes(
        tmp_path / "a.csv", lambda path: read_series(path, Roles()), content.encode()
    ):
        count += 1
        for series in table.series:
            assert np.all(np.diff(series.times) > 0)
            assert series.values.shape == (len(series.times), len(table.columns))
            assert not np.isinf(series.values).any()
    assert count > 100


class TestParquet:
    def write(self, path, **columns):
        pq.write_table(pa.table(columns), path)
        return path

    def test_it_is_read_as_text_is(self, tmp_path, read):
        times = [datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=k) for k in range(4)]
        path = self.write(
            tmp_path / "a.parquet",
            id=pa.array(["a", "a", "b", "b"]).dictionary_encode(),
            time=pa.array([*times[:2], *times[:2]], pa.timestamp("ns")),
            x=pa.array([1, None, 3, 4], pa.int16()),
            y=pa.array([0.5, 1.5, NAN, 2.5]),
            open=[True, False, True, True],
        )
        roles = Roles(target=("x", "y"), series="id", known=("open",))
        found = read_series(path, roles)
        text = "id,time,x,y,open\n" + "".join(
            f"{row['id']},{row['time']},{'' if row['x'] is None else row['x']},{row['y']},"
            f"{int(row['open'])}\n"
            for row in pq.read_table(path).to_pylist()
        )
        expected, _ = read(text, **vars(roles))
        assert found.frequency == expected.frequency == "h"
        for one, other in zip(found.series, expected.series, strict=True):
            assert one.name == other.name
            for name in ("times", "values", "known"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))

    @pytest.mark.parametrize(
        ("times", "first"),
        [
            (pa.array([19_000, 19_001], pa.date32()), "2022-01-08"),
            (pa.array([1_709_186_400, 1_709_190_000]), "2024-02-29T06:00:00"),
            (pa.array([1_709_186_400.0, 1_709_190_000.0]), "2024-02-29T06:00:00"),
            (pa.array(["20240131", "20240229"]), "2024-01-31"),
            (pa.array(["2024-01-31", "2024-02-29"]), "2024-01-31"),
            (pa.array([10**15, 10**15 + 10**6], pa.timestamp("us", "Europe/Berlin")),
             "2001-09-09T01:46:40"),
        ],
    )  # fmt: skip
    def test_times(self, tmp_path, times, first, capsys):
        path = self.write(tmp_path / "a.parquet", time=times, x=[1.0, 2.0])
        assert dates(read_series(path, Roles()).series[0])[0] == first
        zoned = "the times have the time zone Europe/Berlin, and are read as UTC."
        assert (zoned in capsys.readouterr().err) == (first[:4] == "2001")

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"time": pa.array(["2024-01-01", None]), "x": [1.0, 2.0]},
             "row 2, column 'time': the time is missing."),
            ({"time": pa.array(["2024-01-01", "2024-01-02"]), "x": [1.0, np.inf]},
             "row 2, column 'x': inf is too large."),
            ({"time": pa.array(["2024-01-01", "2024-01-02"]), "x": ["1", "2"]},
             "row 1, column 'x': it has text in place of numbers."),
            ({"time": pa.array([], pa.date32()), "x": pa.array([], pa.float32())}, " has no rows."),
        ],
    )  # fmt: skip
    def test_errors(self, tmp_path, columns, message):
        path = self.write(tmp_path / "a.parquet", **columns)
        with pytest.raises(DataError) as error:
            read_series(path, Roles())
        assert str(error.value) == f"{path}{message if message[0] == ' ' else ', ' + message}"

    def test_a_broken_file(self, tmp_path):
        (tmp_path / "a.parquet").write_bytes(b"date,x\n")
        with pytest.raises(DataError, match=r"a\.parquet cannot be read as Parquet: .+$"):
            read_series(tmp_path / "a.parquet", Roles())
