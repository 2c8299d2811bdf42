"""The splits of your own series: by time, from one file or several."""

import numpy as np
import pytest

from tests.pipelines.datasets.helpers import read_all
from unroll.pipelines import datasets, errors
from unroll.pipelines.datasets.series.series_files import SeriesFiles
from unroll.pipelines.errors import DataError
from unroll.pipelines.forecasting import Table, read_table

NAN = float("nan")


@pytest.fixture(autouse=True)
def messages():
    """Every test prints its messages, although some are the same."""
    errors.report_once.cache_clear()


def days(first: int, count: int, series: str = "", start: float = 0.0) -> str:
    """Rows of consecutive days after 2024-01-01."""
    begin = np.datetime64("2024-01-01") + first
    return "".join(f"{begin + k},{series}{start + first + k}\n" for k in range(count))


class TestSplits:
    def tables(self, path, tmp_path, **options) -> dict[str, Table]:
        made = datasets.builder(str(path), kind="series", data_dir=tmp_path / "prepared", **options)
        return {split: read_table(dataset) for split, dataset in datasets.splits(made).items()}

    def test_a_file_is_cut_at_times_that_are_the_same_for_all_series(self, tmp_path, capsys):
        path = tmp_path / "a.csv"
        rows = days(0, 60, "a,") + days(20, 40, "b,", 1000) + days(0, 5, "c,") + days(48, 12, "d,")
        path.write_text(f"date,series,x\n{rows}")
        found = self.tables(path, tmp_path)
        ends = {
            split: [(s.name, float(s.values[-1, 0]), start)
                    for s, start in zip(table.series, table.starts, strict=True)]
            for split, table in found.items()
        }  # fmt: skip
        # 117 rows: the first 81 are before day 48, the first 93 before day 52.
        assert ends == {
            "train": [("a", 47, 0), ("b", 1047, 0), ("c", 4, 0)],
            "valid": [("a", 51, 48), ("b", 1051, 28), ("d", 51, 0)],
            "test": [("a", 59, 52), ("b", 1059, 32), ("d", 59, 4)],
        }
        assert (
            "a.csv: the splits are by time, 70 % to train, 10 % to validate, 20 % to test.\n"
        ) in capsys.readouterr().err

    def test_rows_without_times_are_cut_in_each_series(self, tmp_path):
        path = tmp_path / "a.csv"
        rows = "".join(f"{name},{k}\n" for name, n in (("a", 20), ("b", 10)) for k in range(n))
        path.write_text(f"series,x\n{rows}")
        found = self.tables(path, tmp_path)
        sizes = {split: [len(s.times) for s in table.series] for split, table in found.items()}
        assert sizes == {"train": [14, 7], "valid": [16, 8], "test": [20, 10]}

    def test_files_of_a_folder_are_put_together(self, tmp_path, capsys):
        folder = tmp_path / "own"
        folder.mkdir()
        (folder / "train.csv").write_text("date,series,x\n" + days(0, 10, "a,") + days(0, 9, "b,"))
        (folder / "dev.csv").write_text("date,series,x\n" + days(10, 4, "a,"))
        (folder / "test.csv").write_text("date,series,x\n" + days(15, 3, "a,") + days(0, 3, "c,"))
        found = self.tables(folder, tmp_path)
        shapes = {
            split: [(s.name, len(s.times), start)
                    for s, start in zip(table.series, table.starts, strict=True)]
            for split, table in found.items()
        }  # fmt: skip
        assert shapes == {
            "train": [("a", 10, 0), ("b", 9, 0)],
            "valid": [("a", 14, 10)],
            "test": [("a", 18, 14), ("c", 3, 0)],
        }
        np.testing.assert_array_equal(found["test"].series[0].values[12:16, 0], [12, 13, NAN, 15])
        assert "1 steps have no row (gaps: 1)" in capsys.readouterr().err

    def test_a_folder_without_a_validation_file_holds_out_the_end(self, tmp_path, capsys):
        folder = tmp_path / "own"
        folder.mkdir()
        (folder / "train.csv").write_text("date,x\n" + days(0, 40))
        found = self.tables(folder, tmp_path)
        assert {s: (len(t.series[0].times), t.starts) for s, t in found.items()} == {
            "train": (36, [0]), "valid": (40, [36]),
        }  # fmt: skip
        assert (
            "own has no validation split: the last 10% of the training rows are held out for it."
        ) in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({"test.csv": days(0, 3)}, "own has no train.csv. Name a single file itself."),
            (
                {"train.csv": days(0, 3), "train.tsv": days(0, 3)},
                "own has train twice, FOLDER/train.csv and FOLDER/train.tsv: remove one.",
            ),
            (
                {"train.csv": days(0, 9), "valid.csv": days(8, 2)},
                "own/valid.csv, line 2: the time 2024-01-09 is also that of line 10: remove one, "
                "or name the column of the series with --series.",
            ),
            (
                {"train.csv": days(0, 9) + days(12, 1), "valid.csv": days(10, 1)},
                "own/train.csv, line 11: a time of train is after 2024-01-11 of valid: splits are "
                "by time.",
            ),
            (
                {"train.csv": days(0, 9), "validation.csv": days(10, 1)},
                "own/validation.csv is not read: name the file valid.csv, valid.tsv, valid.txt, "
                "valid.parquet, or move it away.",
            ),
            (
                {"train.csv": days(0, 9), "test.csv": "2024-02-01,1\n"},
                "own/test.csv has the columns x, times, and FOLDER/train.csv y, times.",
            ),
            ({"train.csv": "2024-01-01,\n2024-01-02,\n"}, "own has no values."),
        ],
    )
    def test_folders_that_cannot_be_read(self, tmp_path, files, message):
        folder = tmp_path / "own"
        folder.mkdir()
        for name, rows in files.items():
            column = "y" if "the columns" in message and name == "train.csv" else "x"
            text = f"date,{column}\n{rows}"
            (folder / name).write_text(text.replace(",", "\t") if name[-3:] == "tsv" else text)
        with pytest.raises(DataError) as error:
            self.tables(folder, tmp_path)
        found = str(error.value).replace(f"{folder}", "FOLDER")
        assert found == message.replace("own", "FOLDER", 1)

    def test_a_file_with_another_suffix(self, tmp_path):
        (tmp_path / "a.xlsx").write_bytes(b"PK")
        with pytest.raises(DataError, match=r"a\.xlsx is not a file of series: \.csv, \.tsv, "):
            self.tables(tmp_path / "a.xlsx", tmp_path)

    def test_empty_and_constant_series_are_reported(self, tmp_path, capsys):
        path = tmp_path / "a.csv"
        rows = days(0, 20, "a,") + "".join(
            f"2024-01-{k + 1:02},b,5\n2024-01-{k + 1:02},c,\n" for k in range(20)
        )
        path.write_text(f"date,series,x\n{rows}2024-01-21,a,\n2024-01-22,a,\n")
        found = self.tables(path, tmp_path)
        assert [len(series.times) for series in found["test"].series] == [20, 20]
        lines = capsys.readouterr().err.replace(str(path), "a.csv").splitlines()
        assert "unroll: a.csv: 1 of 3 series have no value: left out." in lines
        assert (
            "unroll: a.csv: 2 steps before the first or after the last value of a series are left "
            "out."
        ) in lines
        assert (
            "unroll: a.csv: 1 of 2 series have one value only in the training split: b."
        ) in lines

    def test_options_of_the_command_line(self, tmp_path):
        path = tmp_path / "a.csv"
        path.write_text("d,n,x,y,p\n" + "".join(f"{d}" for d in days(0, 30).replace(
            ",", ",s,1,").replace("\n", ",0\n").splitlines(keepends=True)))  # fmt: skip
        options = {"time": "d", "target": "y, x", "series": "n", "known": "p"}
        read = read_all(SeriesFiles, tmp_path, path=path, **options)
        assert [example["columns"] for example in read["test"]] == [["y", "x"]]
        assert [example["known_columns"] for example in read["test"]] == [["p"]]
        # Other options are other data.
        names = {
            SeriesFiles(path, data_dir=tmp_path, **own).builder_config.name
            for own in (options, {}, {"target": "x"}, {"target": "y"})
        }
        assert len(names) == 4
