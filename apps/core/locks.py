"""A lock on a folder, which one process at a time can hold."""

import contextlib
import errno
import fcntl
import os
import socket
import sys
import threading
from pathlib import Path

from unroll.apps.core.errors import UsageError

NAME = ".lock"
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
# The lock files that this process has locked, by device and inode. The system's locks exclude
# other processes only, and opening a file again and closing it would release the lock.
_held: set[tuple[int, int]] = set()
_guard = threading.Condition()


class Lock:
    """The lock of a folder, held inside a `with` block. One object can be entered repeatedly.

    It is a POSIX record lock (`fcntl`) on the file `.lock` in the folder. The system releases it
    when the process ends, in whatever way: a killed process leaves only the file, which the next
    process locks again. Child processes do not inherit it.

    - On one machine, this always holds.
    - On a network file system, the lock is that of the server, for all machines: NFS version 4,
      SMB, CephFS, GPFS, and Lustre mounted with `flock`. If a machine dies or loses its network, an
      NFS 4 server releases its locks when their lease expires, usually after 90 seconds.
    - NFS version 3 does the same with a lock daemon, but keeps the locks of a machine that died
      until it has started again.
    - With the options `nolock` or `local_lock` of NFS or `localflock` of Lustre, and on most object
      stores that are mounted as a folder, locks exclude processes of the same machine only.
    - Where the file system has no locks, a line on the standard error says so, and nothing is
      excluded.

    Args:
        folder: an existing folder.
        name: of the file, if the folder has several locks.
        wait: whether to wait until a lock that is held elsewhere is released, for a lock that is
            held for the time of writing a file.
    """

    def __init__(self, folder: Path, *, name: str = NAME, wait: bool = False):
        self.folder = folder
        self._path = folder / name
        self._wait = wait
        self._file: int | None = None
        self._entered = 0

    def __enter__(self) -> "Lock":
        """Locks the folder.

        Raises:
            UsageError: if another process, or another lock of this one, holds it, and the lock
                does not wait.
            OSError: if the folder does not exist or cannot be written to.
        """
        if not self._entered:
            with _guard:
                while self._file is None:
                    self._file = self._acquire()
        self._entered += 1
        return self

    def __exit__(self, *exception) -> None:
        self._entered -= 1
        if not self._entered:
            with _guard:
                _held.discard(_identity(os.fstat(self._file)))
                with contextlib.suppress(OSError):
                    if self._is_current(self._file):
                        self._path.unlink()
                os.close(self._file)
                self._file = None
                _guard.notify_all()

    def check(self) -> None:
        """Checks that the folder is still there.

        Raises:
            UsageError: if it was deleted or replaced since it was locked.
        """
        if not self._is_current(self._file):
            raise UsageError(f"{self.folder} was deleted or replaced while this process used it.")

    def _acquire(self) -> int | None:
        """The locked file; `None` if it was deleted meanwhile, by the process that held it."""
        with contextlib.suppress(FileNotFoundError):
            while _identity(self._path.stat()) in _held:
                if not self._wait:
                    raise UsageError(f"{self.folder} is in use by this process.")
                _guard.wait()
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            error.filename = str(self.folder)  # the lock file is no concern of the user
            raise
        try:
            self._lock(file)
            if not self._is_current(file):
                os.close(file)
                return None
            with contextlib.suppress(OSError):  # a full disk: the content is only for messages
                os.ftruncate(file, 0)
                os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        except BaseException:
            os.close(file)
            raise
        _held.add(_identity(os.fstat(file)))
        return file

    def _lock(self, file: int) -> None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if self._wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                owner = os.pread(file, 300, 0).decode("utf-8", "replace") or "another process"
                raise UsageError(f"{self.folder} is in use by {owner}.") from None
            if error.errno not in _UNSUPPORTED:
                raise
            print(
                f"unroll: the file system of {self.folder} has no locks ({error.strerror}): do not "
                "use this folder in two processes at once.",
                file=sys.stderr,
            )

    def _is_current(self, file: int) -> bool:
        try:
            return _identity(self._path.stat()) == _identity(os.fstat(file))
        except OSError:
            return False


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
