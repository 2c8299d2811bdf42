"""Base classes of the TFDS builders, and helpers that several builders use."""

import contextlib
import hashlib
import os
import sys
import threading
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from unroll.pipelines.errors import DataError, report_once

_MAX_NAMED = 5  # skipped files that a message names
_FEWEST = 10  # examples of which a tenth can be held out
_LARGEST = 1 / 3  # of the examples that are held out, where groups are large


_bucket = threading.RLock()


@contextlib.contextmanager
def without_bucket() -> Iterator[None]:
    """A builder of TFDS that is made inside does not look for its metadata on a server.

    TFDS does not either: its access to the server is switched off. But for each builder it first
    makes a folder in the system's temporary folder, which it never removes.
    """
    with _bucket:
        original = tfds.core.DatasetInfo.initialize_from_bucket
        tfds.core.DatasetInfo.initialize_from_bucket = lambda info: None
        try:
            yield
        finally:
            tfds.core.DatasetInfo.initialize_from_bucket = original


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder that reads published files from a manual folder.

    Args:
        manual_dir: the manual folder. Defaults to the environment variable `UNROLL_MANUAL_DIR`.
        **kwargs: arguments of `tfds.core.DatasetBuilder`, such as `data_dir`.
    """

    VERSION = tfds.core.Version("1.0.0")
    FEATURES: ClassVar[dict] = {}  # of an example, by name
    # The names of the splits; empty if they are those of the user's files.
    SPLITS: ClassVar[tuple[str, ...]] = ("train", "valid", "test")
    # The arguments of `datasets.builder` that the builder has beside the folders.
    OPTIONS: ClassVar[tuple[str, ...]] = ()
    SUPERVISED_KEYS: ClassVar[tuple[str, str] | None] = None
    # Whether the examples keep the order in which they are generated. Otherwise TFDS shuffles them.
    ORDERED = False
    # Whether TFDS shows progress bars, for downloads that take long.
    SHOWS_PROGRESS = False
    HOMEPAGE = ""
    CITATION = ""
    LICENSE = ""  # of the data; empty if it is not known

    def __init__(self, *, manual_dir: str | Path | None = None, **kwargs):
        self.manual_dir = manual_dir
        with without_bucket():
            super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(self._features()),
            supervised_keys=self.SUPERVISED_KEYS,
            homepage=self.HOMEPAGE or None,
            citation=self.CITATION or None,
            disable_shuffling=self.ORDERED,
        )

    def _features(self) -> dict:
        return self.FEATURES

    @property
    def split_names(self) -> tuple[str, ...]:
        """The names of the splits."""
        if self.SPLITS:
            return self.SPLITS
        own = self.generators(None)
        return tuple(split for split in Builder.SPLITS if split in own)

    def generators(self, downloads: tfds.download.DownloadManager | None) -> dict[str, Iterable]:
        """The keys and examples of each split. They are generated when they are read."""
        return self._split_generators(downloads)


class Generated(Builder, skip_registration=True):
    """A generated dataset. A subclass sets `SIZES` and generates `self.sizes[split]` examples.

    Args:
        size: multiplies the number of examples of each split. Each size is prepared in a folder of
            its own.
        **kwargs: arguments of `Builder`.

    Raises:
        DataError: if `size` is not positive.
    """

    LICENSE = "Apache-2.0"  # of the generator
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
    if not os.path.isfile(path):  # unlike the method, not an error for names that are too long
        return ()
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def hold_out(
    groups: Sequence[Hashable],
    source: str | Path,
    *,
    examples: str,
    group: str,
    add: str,
    labels: Sequence[Collection[Hashable]] | None = None,
) -> list[bool]:
    """Holds out about a tenth of a training split for validation, and says so on standard error.

    Args:
        groups: the group of each example, such as its story, image or speaker. No group is in both
            parts.
        source: the file or the folder, for the message.
        examples: what the examples are, such as `questions`.
        group: what a group is, such as `story`.
        add: the file to add instead, such as `valid.txt`.
        labels: as in `held_out`.

    Returns:
        For each example whether it is held out.

    Raises:
        DataError: if there are too few examples or groups. The message says what to add.
    """
    total, kinds = len(groups), len(set(groups))
    if total < _FEWEST:
        raise DataError(
            f"{source} has no validation split, and a tenth of {total} {examples} cannot be held "
            f"out for one: add {add}, or more data."
        )
    chosen = held_out(groups, labels=labels)
    if not 0 < (number := sum(chosen)) <= _LARGEST * total:
        raise DataError(
            f"{source} has no validation split, and a tenth of the {total} {examples} cannot be "
            f"held out by {group} ({kinds} in all): add {add}, or more data."
        )
    own = len({each for each, out in zip(groups, chosen, strict=True) if out})
    report_once(
        f"{source} has no validation split: {number} of {total} {examples} are held out for it, "
        f"by {group} ({own} of {kinds})."
    )
    return chosen


def held_out(
    groups: Sequence[Hashable],
    *,
    last: bool = False,
    labels: Sequence[Collection[Hashable]] | None = None,
) -> list[bool]:
    """Chooses whole groups with about a tenth of the examples.

    The choice depends on the groups alone, not on their order: it is the same each time, and a new
    example hardly changes it.

    Args:
        groups: the group of each example.
        last: whether the last groups are chosen, at least a tenth: for data in the order of time.
        labels: the labels of each example. Each label keeps an example that is not chosen.

    Returns:
        For each example whether it is chosen.

    >>> held_out(["a"] * 9 + ["b"] * 2, last=True)[7:]
    [False, False, True, True]
    """
    sizes = Counter(groups)  # in the order of the examples
    target, count = len(groups) // 10, 0
    order = list(reversed(sizes)) if last else sorted(sizes, key=_digest)
    remaining = Counter(label for own in labels or () for label in set(own))
    of_group: dict[Hashable, Counter] = {each: Counter() for each in sizes}
    for each, own in zip(groups, labels or [()] * len(groups), strict=True):
        of_group[each].update(set(own))

    def is_free(each) -> bool:
        return all(remaining[label] > n for label, n in of_group[each].items())

    chosen = set()
    for each in order:
        if last and count >= target:
            break
        closer = abs(count + sizes[each] - target) < abs(count - target)
        if (last or closer) and is_free(each):
            chosen.add(each)
            count += sizes[each]
            remaining -= of_group[each]
    if not chosen and target and len(sizes) > 1:  # all groups are larger than two tenths
        chosen.update(sorted(filter(is_free, order), key=sizes.get)[:1])
    return [each in chosen for each in groups]


def _digest(group: Hashable) -> bytes:
    return hashlib.sha256(repr(group).encode("utf-8", "surrogatepass")).digest()


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
