"""Atomic files and the four types of assets."""

import json

import numpy as np
import pytest

from unroll.apps.core.files import atomic, read_assets, write_assets, write_json


@pytest.mark.parametrize(
    "lines",
    [[], [""], ["a"], ["", "a", ""], ["\r", " ", "\u2028", "\x85", "é", "日本", "\x00", "a\r"]],
)
def test_lines_round_trip(tmp_path, lines):
    write_assets(tmp_path, {"tokens": lines, "labels": ["x", "y"]})
    assert read_assets(tmp_path) == {"tokens": lines, "labels": ["x", "y"]}


@pytest.mark.parametrize("value", [{}, {"mean": 0.5, "shape": [2, None], "name": "é\n日本"}])
def test_a_json_object_round_trips(tmp_path, value):
    write_assets(tmp_path, {"scaler": value})
    assert (tmp_path / "scaler.json").is_file()
    assert read_assets(tmp_path) == {"scaler": value}


@pytest.mark.parametrize("value", [b"", b"\x00\xff\r\n", bytes(range(256))])
def test_bytes_round_trip(tmp_path, value):
    write_assets(tmp_path, {"subwords": value})
    assert read_assets(tmp_path) == {"subwords": value}


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3), "float32"),
        np.array([[1.5, np.nan], [-np.inf, 1 / 3]], "float32"),
        np.array(7, "int64"),
        np.array([True, False]),
        np.arange(6, dtype="float64").reshape(2, 3).T,
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_an_array_round_trips(tmp_path, array):
    write_assets(tmp_path, {"mean": array})
    read = read_assets(tmp_path)["mean"]
    assert (read.dtype, read.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(read, array)


def test_an_array_of_objects_is_refused(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        write_assets(tmp_path, {"mean": np.array([{}, None])})
    assert list(tmp_path.iterdir()) == []


def test_a_line_with_a_line_break_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^Asset tokens: 'a\\nb' is more than one line\.$"):
        write_assets(tmp_path, {"tokens": ["a\nb"]})
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_not_assets_are_ignored(tmp_path):
    write_assets(tmp_path, {"tokens": ["a"]})
    (tmp_path / ".123.tokens.txt").touch()
    (tmp_path / "notes.md").touch()
    assert read_assets(tmp_path) == {"tokens": ["a"]}


def test_a_failed_write_keeps_the_previous_content(tmp_path):
    file = tmp_path / "file.json"
    write_json(file, {"old": 1})
    with pytest.raises(TypeError):
        write_json(file, {"new": object()})
    with pytest.raises(IsADirectoryError), atomic(file) as temporary:
        temporary.write_text("half") and tmp_path.read_text()
    assert json.loads(file.read_text()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_a_temporary_file_has_the_suffix_of_the_final_one(tmp_path):
    with atomic(tmp_path / "weights.h5") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".h5"
        temporary.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["weights.h5"]
