"""The files of a run and their checksums."""

import contextlib
import os

import pytest

from unroll.apps.core import checksums, files
from unroll.apps.core.errors import UsageError


def contents(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_read_as_it_was_written(tmp_path):
    (tmp_path / "assets").mkdir()
    for name, content in (("a", b""), ("assets/b", b"\x00\xff"), ("a", b"again")):
        checksums.write(tmp_path, name, content)
        assert checksums.read(tmp_path, name) == content
    assert checksums.names(tmp_path) == ["a", "assets/b"]
    assert all(len((tmp_path / "checksums" / name).read_text()) == 65 for name in ("a", "assets/b"))


@pytest.mark.parametrize("broken", [b"", b"conten", b"content!", b"Content"])
def test_a_file_that_was_changed_is_named(tmp_path, broken):
    checksums.write(tmp_path, "name", b"content")
    (tmp_path / "name").write_bytes(broken)
    with pytest.raises(UsageError, match=r"/name is broken or was changed: its checksum differs"):
        checksums.read(tmp_path, "name")


def test_a_file_or_a_checksum_that_is_missing_is_named(tmp_path):
    checksums.write(tmp_path, "name", b"content")
    (tmp_path / "name").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"/name is missing\.$"):
        checksums.read(tmp_path, "name")
    with pytest.raises(UsageError, match=r"/elsewhere has no checksum .*copy the folder checksums"):
        checksums.read(tmp_path, "elsewhere")


@pytest.mark.parametrize("previous", [None, b"old"])
def test_a_process_can_be_killed_at_any_moment(tmp_path, monkeypatch, previous):
    """Kills the process before and after each file gets its name, several times in a row."""
    replace = files.Path.replace

    def outcome(steps: int) -> tuple[int, bytes | None]:
        """Writes, and is killed after a number of renamings; the number that there was."""
        made = 0

        def replace_or_die(path, target):
            nonlocal made
            if made == steps:
                raise KeyboardInterrupt
            made += 1
            return replace(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(files.Path, "replace", replace_or_die)
            with contextlib.suppress(KeyboardInterrupt):
                checksums.write(tmp_path, "name", f"new {steps}".encode())
        return made, checksums.read(tmp_path, "name") if (tmp_path / "name").exists() else None

    if previous:
        checksums.write(tmp_path, "name", previous)
    allowed = {previous}
    for _ in range(3):
        for steps in (0, 1, 2):
            allowed.add(f"new {steps}".encode())
            _, content = outcome(steps)
            assert content in allowed
    made, content = outcome(9)
    assert (made, content) == (3, b"new 9")
    assert len((tmp_path / "checksums/name").read_text().split()) == 1


def test_a_deleted_folder_does_not_come_back(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        checksums.write(tmp_path / "run", "name", b"content")
    assert error.value.filename == str(tmp_path / "run/checksums")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_another_process_replaces_meanwhile_is_read_again(tmp_path, monkeypatch):
    checksums.write(tmp_path, "name", b"old")
    read = files.Path.read_bytes

    def replaced(path):
        content = read(path)
        if content == b"old":
            checksums.write(tmp_path, "name", b"new")
        return content

    monkeypatch.setattr(files.Path, "read_bytes", replaced)
    assert checksums.read(tmp_path, "name") == b"new"


def test_a_full_disk_keeps_the_previous_file(tmp_path, monkeypatch):
    checksums.write(tmp_path, "name", b"old")
    before = contents(tmp_path)

    def full(descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        checksums.write(tmp_path, "name", b"new")
    assert error.value.filename == str(tmp_path / "checksums/name")
    assert contents(tmp_path) == before
