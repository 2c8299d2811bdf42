"""What the builders here share."""

import sys
from pathlib import Path
from typing import ClassVar

import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.errors import DataError

_NAMED = 5  # so many of the files that are left out are named


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder that looks for its files in a manual folder of its own kind.

    Args:
        manual_dir: that folder; the environment variable `UNROLL_MANUAL_DIR` by default.
        **kwargs: as in `tfds.core.DatasetBuilder`, such as `data_dir`.
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


class TextClassification(Builder, skip_registration=True):
    """Texts with a label each. A subclass names its labels and generates the examples."""

    LABELS: tuple[str, ...] = ()
    SUPERVISED_KEYS = ("text", "label")

    def _features(self) -> dict:
        return {"text": tf.string, "label": tfds.features.ClassLabel(names=list(self.LABELS))}


def stamp(path: Path) -> tuple:
    """What tells a file from another of its name: size and time of change; nothing if it lacks."""
    if not path.is_file():
        return ()
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def report_left_out(reasons: list[str], total: int, what: str, lost: str = "") -> None:
    """Tells, on the standard error, which of a person's files a split does without, and why.

    Args:
        reasons: a file each, and what is wrong with it.
        total: of how many files.
        what: what they are, such as `pictures of train`.
        lost: what goes with them, such as `3 questions`.

    Raises:
        DataError: if no file is left.
    """
    if not reasons:
        return
    some = "; ".join(reasons[:_NAMED]) + ("; ..." if len(reasons) > _NAMED else "")
    lost = f", with {lost}" if lost else ""
    told = f"{len(reasons)} of {total} {what} are left out{lost}: {some}"
    if len(reasons) == total:
        raise DataError(told)
    print(f"unroll: {told}", file=sys.stderr)
