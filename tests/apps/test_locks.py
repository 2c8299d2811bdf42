"""The lock of a folder: it excludes other processes, and ends with its own."""

import errno
import fcntl
import os
import signal
import threading

import pytest

from tests.apps.children import Child
from unroll.apps.core import locks
from unroll.apps.core.errors import UsageError
from unroll.apps.core.locks import Lock


def hold(connection, folder):
    """Holds the lock until the process is killed."""
    with Lock(folder):
        connection.send(os.getpid())
        connection.recv()


def acquire(connection, folder):
    """Sends the error of an attempt to lock."""
    try:
        with Lock(folder):
            connection.send("")
    except UsageError as error:
        connection.send(str(error))


def test_another_process_is_refused_by_a_line_that_names_the_holder(tmp_path):
    with Lock(tmp_path), Child(acquire, tmp_path) as child:
        assert child.receive().startswith(f"{tmp_path} is in use by process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []
    with Child(acquire, tmp_path) as child:
        assert child.receive() == ""


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError) as error, Lock(tmp_path):
        pass
    assert error.value.filename == str(tmp_path)


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    with Child(hold, tmp_path) as child:
        pid = child.receive()
        with pytest.raises(UsageError, match=f"is in use by process {pid} on "), Lock(tmp_path):
            pass
        os.kill(pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert (tmp_path / locks.NAME).exists()
    with Lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_refused_attempt_does_not_release_the_lock_of_this_process(tmp_path):
    with Lock(tmp_path):
        with pytest.raises(UsageError, match="is in use by this process"), Lock(tmp_path):
            pass
        with Child(acquire, tmp_path) as child:
            assert "is in use by process" in child.receive()


def test_one_lock_can_be_entered_repeatedly(tmp_path):
    lock = Lock(tmp_path)
    for _ in range(2):
        with lock:
            with lock:
                pass
            lock.check()
            assert (tmp_path / locks.NAME).exists()
    assert list(tmp_path.iterdir()) == []


def test_one_of_many_threads_gets_the_lock(tmp_path):
    start, outcomes = threading.Barrier(8), []
    done = threading.Barrier(8)

    def attempt():
        start.wait()
        try:
            with Lock(tmp_path):
                outcomes.append("held")
                done.wait()
        except UsageError:
            outcomes.append("refused")
            done.wait()

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held", *["refused"] * 7]


def test_a_deleted_folder_is_noticed(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with Lock(folder) as lock:
        (folder / locks.NAME).unlink()
        with pytest.raises(UsageError, match="run was deleted or replaced while"):
            lock.check()
        (folder / locks.NAME).touch()  # a folder of the same name, made by someone else
        with pytest.raises(UsageError, match="run was deleted or replaced while"):
            lock.check()
    assert (folder / locks.NAME).exists()  # it is not ours


def test_a_lock_file_that_is_deleted_while_it_is_locked_is_not_enough(tmp_path, monkeypatch):
    lockf, calls = fcntl.lockf, []

    def delete_first(file, operation):
        if not calls:
            (tmp_path / locks.NAME).unlink()  # its holder ends between the opening and the locking
        calls.append(operation)
        lockf(file, operation)

    monkeypatch.setattr(fcntl, "lockf", delete_first)
    with Lock(tmp_path) as lock:
        lock.check()
    assert len(calls) == 2


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys, code):
    def unsupported(file, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "lockf", unsupported)
    with Lock(tmp_path) as lock:
        lock.check()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"unroll: the file system of {tmp_path} has no locks (")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_error_and_nothing_remains_locked(tmp_path):
    with pytest.raises(FileNotFoundError), Lock(tmp_path / "none"):
        pass
    (tmp_path / "none").mkdir()
    with Lock(tmp_path / "none"):
        pass
