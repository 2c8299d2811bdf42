"""Files that are written completely or not at all."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unroll.apps.core.protocol import Asset, Assets


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path that is renamed to `path` on success and removed on failure."""
    # The suffix is kept: some writers choose their format by it.
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value) -> None:
    """Writes a value as indented JSON."""
    with atomic(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8")


def write_assets(folder: Path, assets: Assets) -> None:
    """Writes lines as `<name>.txt`, objects as `.json`, bytes as `.bin`, arrays as `.npy`."""
    for name, asset in assets.items():
        if isinstance(asset, dict):
            write_json(folder / f"{name}.json", asset)
            continue
        if isinstance(asset, list):
            suffix, content = ".txt", _encode_lines(name, asset)
        elif isinstance(asset, bytes):
            suffix, content = ".bin", asset
        else:
            suffix, content = ".npy", None
        with atomic(folder / f"{name}{suffix}") as temporary:
            if content is None:
                np.save(temporary, asset, allow_pickle=False)
            else:
                temporary.write_bytes(content)


def _encode_lines(name: str, lines: list[str]) -> bytes:
    for line in lines:
        if "\n" in line:
            raise ValueError(f"Asset {name}: {line!r} is more than one line.")
    return "".join(f"{line}\n" for line in lines).encode()


_READERS = {
    # Decoded from bytes, since a text file would also end a line at a carriage return.
    ".txt": lambda path: path.read_bytes().decode().split("\n")[:-1],
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".bin": Path.read_bytes,
    ".npy": lambda path: np.load(path, allow_pickle=False),
}


def read_assets(folder: Path) -> dict[str, Asset]:
    """The assets that `write_assets` wrote into a folder, by name.

    Raises:
        OSError, ValueError, EOFError: if a file cannot be read.
    """
    return {
        path.stem: _READERS[path.suffix](path)
        for path in sorted(folder.glob("[!.]*"))
        if path.suffix in _READERS
    }
