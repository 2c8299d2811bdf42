"""Files with a checksum each, so that a broken one is found and named.

The SHA-256 of `<root>/<name>` is in `<root>/checksums/<name>`. A process that is killed while it
writes leaves a valid pair: the new checksum is recorded beside that of the previous file before the
file is replaced, and alone afterwards.
"""

import hashlib
from pathlib import Path

from unroll.apps.core.errors import UsageError
from unroll.apps.core.files import write_bytes

FOLDER = "checksums"


def write(root: Path, name: str, content: bytes) -> None:
    """Writes a file and its checksum.

    Raises:
        OSError: that names the file. A previous file remains, and is still valid.
    """
    digest, record = hashlib.sha256(content).hexdigest(), root / FOLDER / name
    for folder in (root / FOLDER, record.parent):  # not the root: a deleted one must not come back
        folder.mkdir(exist_ok=True)
    previous = record.read_text("ascii", "replace").split() if record.is_file() else []
    write_bytes(record, _lines([digest, *previous]))
    write_bytes(root / name, content)
    if previous:
        write_bytes(record, _lines([digest]))


def read(root: Path, name: str) -> bytes:
    """The content of a file, which equals what was written.

    Raises:
        UsageError: one line that names the file, if it is missing, broken or has no checksum.
    """
    path, record = root / name, root / FOLDER / name
    # Another process may replace the file between the two readings.
    for _ in range(3):
        content = _content(path)
        if not record.is_file():
            raise UsageError(
                f"{path} has no checksum ({record}): copy the folder {FOLDER} with a run."
            )
        known = _content(record).decode("ascii", "replace").split()
        if hashlib.sha256(content).hexdigest() in known:
            return content
    raise UsageError(
        f"{path} is broken or was changed: its checksum differs from that in {record}."
    )


def names(root: Path) -> list[str]:
    """The names of the files that have a checksum."""
    folder = root / FOLDER
    files = (path for path in sorted(folder.rglob("[!.]*")) if path.is_file())
    return [path.relative_to(folder).as_posix() for path in files]


def _lines(digests: list[str]) -> bytes:
    return "".join(f"{digest}\n" for digest in digests).encode()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path} is missing.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
