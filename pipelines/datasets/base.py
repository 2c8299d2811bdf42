"""Base classes of the TFDS builders, and helpers that several builders use."""

import sys
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from unroll.pipelines.errors import DataError

_MAX_NAMED = 5  # skipped files that a message names


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder that reads published files from a manual folder.

    Args:
        manual_dir: the manual folder. Defaults to the environment variable `UNROLL_MANUAL_DIR`.
        **kwargs: arguments of `tfds.core.DatasetBuilder`, such as `data_dir`.
    """

    VERSION = tfds.core.Version("1.0.0")
    FEATURES: ClassVar[dict] = {}  # of an example, by name
    SUPERVISED_KEYS: ClassVar[tuple[str, str] | None] = None
    HOMEPAGE = ""
    CITATION = ""

    def __init__(self, *, manual_dir: str | Path | None = None, **kwargs):
        self.manual_dir = manual_dir
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(self._features()),
            supervised_keys=self.SUPERVISED_KEYS,
            homepage=self.HOMEPAGE or None,
            citation=self.CITATION or None,
        )

    def _features(self) -> dict:
        return self.FEATURES


class Generated(Builder, skip_registration=True):
    """A generated dataset. A subclass sets `SIZES` and generates `self.sizes[split]` examples.

    Args:
        size: multiplies the number of examples of each split. Each size is prepared in a folder of
            its own.
        **kwargs: arguments of `Builder`.

    Raises:
        DataError: if `size` is not positive.
    """

    SIZES: ClassVar[dict[str, int]] = {}  # examples by split, at size 1
    MIN_SIZE = 8  # examples of a split, at any size

    def __init__(self, *, size: float = 1.0, **kwargs):
        if not size > 0:
            raise DataError(f"size must be greater than 0, got {size}.")
        self.sizes = {
            split: max(round(number * size), min(number, self.MIN_SIZE))
            for split, number in self.SIZES.items()
        }
        if size != 1:
            kwargs["config"] = tfds.core.BuilderConfig(name=f"size_{float(size)}")
        super().__init__(**kwargs)


def file_version(path: Path) -> tuple:
    """The size and the modification time of a file, or an empty tuple if it does not exist."""
    if not path.is_file():
        return ()
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def report_skipped(reasons: list[str], total: int, what: str, lost: str = "") -> None:
    """Prints to standard error which files of a split are skipped, and why.

    Args:
        reasons: for each skipped file, its name and what is wrong with it.
        total: the number of files of the split.
        what: what the files are, such as `images of train`.
        lost: what is skipped with them, such as `3 questions`.

    Raises:
        DataError: if all files are skipped.
    """
    if not reasons:
        return
    named = "; ".join(reasons[:_MAX_NAMED]) + ("; ..." if len(reasons) > _MAX_NAMED else "")
    lost = f", with {lost}" if lost else ""
    message = f"{len(reasons)} of {total} {what} are skipped{lost}: {named}"
    if len(reasons) == total:
        raise DataError(message)
    print(f"unroll: {message}", file=sys.stderr)
