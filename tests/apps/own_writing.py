"""What the layouts of own files have in common: the examples of each split."""

from pathlib import Path

SIZES = {"train": 12, "valid": 4, "test": 4}  # examples of each split
FOLDERS = {"train": "train", "valid": "dev", "test": "test"}


def write(path: Path, text: str, encoding: str = "utf-8") -> None:
    """Writes a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


def numbers(split: str) -> range:
    """The numbers of the examples of a split. No two splits have one in common."""
    first = 100 * list(SIZES).index(split)
    return range(first, first + SIZES[split])
