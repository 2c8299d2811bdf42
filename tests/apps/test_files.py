"""Files that are written completely or not at all, and the four types of assets."""

import json
import os
import re

import numpy as np
import pytest

from unroll.apps.core import files
from unroll.apps.core.files import (
    is_abandoned,
    read_assets,
    unique_name,
    write_assets,
    write_bytes,
    write_json,
)


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


def test_a_failed_write_keeps_the_previous_content(tmp_path, monkeypatch):
    file = tmp_path / "file.json"
    write_json(file, {"old": 1})
    with pytest.raises(TypeError):
        write_json(file, {"new": object()})

    def full(descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        write_json(file, {"new": 2})
    assert error.value.filename == str(file)
    assert json.loads(file.read_text()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_the_content_is_on_the_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, files.Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: steps.append(os.fstat(fd).st_size) or fsync(fd))
    monkeypatch.setattr(
        files.Path, "replace", lambda path, to: steps.append(to.name) or replace(path, to)
    )
    write_bytes(tmp_path / "name", b"12345")
    assert steps == [5, "name"]
    assert (tmp_path / "name").read_bytes() == b"12345"


def test_unique_names_name_the_machine_and_the_process():
    names = {unique_name() for _ in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch(f"[0-9a-f]{{8}}-{os.getpid()}-[0-9a-f]{{8}}", name) for name in names)


@pytest.fixture
def ended_process() -> int:
    """The number of a process that has ended."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def test_only_what_is_certainly_abandoned_counts_as_such(tmp_path, ended_process):
    machine = unique_name().partition("-")[0]
    other = "0" * 8 if machine != "0" * 8 else "1" * 8
    abandoned, day_old = f".{machine}-{ended_process}-00000000", f".{other}-1-00000000.state.npz"
    names = {
        f"{abandoned}.state.npz": True,
        f".export-{machine}-{ended_process}-00000000": True,
        f".{machine}-{os.getpid()}-00000000.state.npz": False,  # this process
        f".{machine}-1-00000000.state.npz": False,  # of another user, or of this one
        f".{other}-{ended_process}-00000000.state.npz": False,  # another machine
        day_old: True,
        ".lock": False,
        ".gitignore": False,
        "state.npz": False,
        f"{abandoned[1:]}.npz": False,
    }
    for name in names:
        (tmp_path / name).touch()
    os.utime(tmp_path / day_old, (0, 0))
    assert {name: is_abandoned(tmp_path / name) for name in names} == names
    assert not is_abandoned(tmp_path / f".{other}-1-00000000.missing")
