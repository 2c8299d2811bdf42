"""Files that are written completely or not at all."""

import contextlib
import functools
import hashlib
import io
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Collection
from pathlib import Path

import numpy as np

from unroll.apps.core.protocol import Asset, Assets

_UNIQUE = re.compile(r"\.(?:export-)?([0-9a-f]{8})-([0-9]+)-[0-9a-f]{8}(?:\.|$)")
_DAY = 24 * 60 * 60


def write_bytes(path: Path, content: bytes) -> None:
    """Creates or replaces a file. Nobody sees a part of its content.

    The content is on the disk before the file gets its name. Large files are made in memory: a
    library that writes to the disk itself may leave half a file, or crash, when the disk is full.

    Raises:
        OSError: that names `path`. A previous file remains as it was.
    """
    temporary = path.with_name(f".{unique_name()}.{path.name}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def unique_name() -> str:
    """A name that no other process uses, on any machine that shares a folder with this one."""
    return f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"


def is_abandoned(path: Path) -> bool:
    """Whether a file or folder with a unique name was left by a process that has ended.

    Processes of other machines cannot be seen from here: their files count as abandoned after a
    day.
    """
    named = _UNIQUE.match(path.name)
    if not named:
        return False
    try:
        if named[1] == _machine():
            os.kill(int(named[2]), 0)
        return time.time() - path.stat().st_mtime > _DAY
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # the process of another user
        return False
    except OSError:  # removed meanwhile
        return False


@functools.cache
def _machine() -> str:
    """A hash of what distinguishes this machine, and a container, whose process ids are its own."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not on Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def encode_json(value) -> bytes:
    """A value as indented JSON."""
    try:
        return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # the name of a file that is not UTF-8
        return (json.dumps(value, indent=2) + "\n").encode()


def write_json(path: Path, value) -> None:
    """Writes a value as indented JSON."""
    write_bytes(path, encode_json(value))


def encode_assets(assets: Assets) -> dict[str, bytes]:
    """The files of assets: lines are `<name>.txt`, objects `.json`, bytes `.bin`, arrays `.npy`."""
    files = {}
    for name, asset in assets.items():
        if isinstance(asset, dict):
            files[f"{name}.json"] = encode_json(asset)
        elif isinstance(asset, list):
            files[f"{name}.txt"] = _encode_lines(name, asset)
        elif isinstance(asset, bytes):
            files[f"{name}.bin"] = asset
        else:
            buffer = io.BytesIO()
            np.save(buffer, asset, allow_pickle=False)
            files[f"{name}.npy"] = buffer.getvalue()
    return files


def _encode_lines(name: str, lines: list[str]) -> bytes:
    for line in lines:
        if "\n" in line:
            raise ValueError(f"Asset {name}: {line!r} is more than one line.")
    return "".join(f"{line}\n" for line in lines).encode()


_DECODERS = {
    # Decoded from bytes, since a text file would also end a line at a carriage return.
    ".txt": lambda content: content.decode().split("\n")[:-1],
    ".json": lambda content: json.loads(content.decode()),
    ".bin": bytes,
    ".npy": lambda content: np.load(io.BytesIO(content), allow_pickle=False),
}


def decode_asset(suffix: str, content: bytes) -> Asset:
    """The asset in a file with a suffix.

    Raises:
        ValueError, EOFError: if the content is broken.
    """
    return _DECODERS[suffix](content)


def asset_files(folder: Path) -> list[Path]:
    """The files of assets in a folder."""
    return [path for path in sorted(folder.glob("[!.]*")) if path.suffix in _DECODERS]


def write_assets(folder: Path, assets: Assets) -> None:
    """Writes assets into a folder, each completely or not at all."""
    for name, content in encode_assets(assets).items():
        write_bytes(folder / name, content)


def read_assets(folder: Path, names: Collection[str] | None = None) -> Assets:
    """The assets that `write_assets` wrote into a folder, by name; only those of `names`, if given.

    Raises:
        OSError, ValueError, EOFError: if a file cannot be read.
    """
    return {
        path.stem: decode_asset(path.suffix, path.read_bytes())
        for path in asset_files(folder)
        if names is None or path.stem in names
    }
