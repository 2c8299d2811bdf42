"""Splits that are prepared on disk, each when it is first read."""

import contextlib
import functools
import io
import random
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle

from unroll.pipelines.batching import OPTIONS
from unroll.pipelines.datasets.base import Builder, without_bucket
from unroll.pipelines.errors import DataError

# Errors of a download or of a disk. Broken data is a DataError already.
_ERRORS = (
    OSError,
    tfds.download.DownloadError,
    tfds.download.download_manager.NonMatchingChecksumError,
)
# TFDS orders the examples of a split on disk if they take more bytes than this.
_BUFFER = 64 * 2**20


class Prepared:
    """A dataset of TFDS whose splits are prepared one by one, in a folder each.

    What is prepared stays on disk.

    Args:
        source: generates the examples. If it is not a `Builder` but one of TFDS, all splits are
            prepared at once.

    Attributes:
        source: as given.
        name: of the dataset.
        features: the features of an example, by name.
        split_names: of the splits that have been or can be prepared.
    """

    def __init__(self, source: tfds.core.DatasetBuilder):
        self.name = source.name
        self.features = source.info.features
        self.source = source
        self._of_split: dict[str, tfds.core.DatasetBuilder] = {}
        self._generators: dict[str, Iterator] = {}
        if isinstance(source, Builder):
            self.split_names = source.split_names
            for split in self.split_names:
                self._of_split[split] = _Split(source, split, self._generators)
        else:
            _prepare(source)
            self.split_names = tuple(source.info.splits)

    def folder(self, split: str) -> Path:
        """Where a split, or that of a slice, is prepared."""
        return Path(self._builder(re.match(r"\w*", split)[0]).data_dir)

    def is_prepared(self) -> bool:
        """Whether all splits are prepared."""
        return all(_is_prepared(self._builder(split)) for split in self.split_names)

    def read(self, split: str, decoders=None) -> tf.data.Dataset:
        """A split, a slice such as `train[:90%]`, or a sum of them, such as `train+valid`.

        The order of the examples is always the same.

        Raises:
            DataError: if there is no such split, the slice is empty, or the split cannot be
                prepared.
        """
        parts = [part.strip() for part in split.split("+")] if self._of_split else [split]
        names = [part.partition("[")[0] for part in parts]
        for name in names:
            if self._of_split and name not in self._of_split:
                raise self._unknown(split)
        pieces = [self._piece(*each, decoders) for each in zip(names, parts, strict=True)]
        return functools.reduce(tf.data.Dataset.concatenate, pieces)

    def _piece(self, name: str, part: str, decoders) -> tf.data.Dataset:
        builder = self._builder(name)
        _prepare(builder)
        # The pipelines cache what they need.
        config = tfds.ReadConfig(try_autocache=False, options=OPTIONS)
        try:
            return builder.as_dataset(
                split=part, shuffle_files=False, decoders=decoders, read_config=config
            )
        except ValueError:
            if name not in builder.info.splits:
                raise self._unknown(part) from None
            count = builder.info.splits[name].num_examples
            raise DataError(
                f"{self.name} has no split {part!r}: {name} has {count} examples, and the slice "
                "is empty or not of the form 'train[:90%]'."
            ) from None

    def _builder(self, split: str) -> tfds.core.DatasetBuilder:
        return self._of_split.get(split, self.source)

    def _unknown(self, split: str) -> DataError:
        return DataError(
            f"{self.name} has no split {split!r}; it has {', '.join(self.split_names)}, and slices "
            "such as 'train[:90%]'."
        )


class _Split(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The builder of one split of `source`. `generators` has those of the splits to come."""

    def __init__(self, source: Builder, split: str, generators: dict[str, Iterator]):
        self.name, self.VERSION = source.name, source.version
        self._source, self._split, self._generators = source, split, generators
        config = "-".join(filter(None, (source.builder_config_name, split)))
        with without_bucket():
            super().__init__(
                data_dir=source.data_dir_root, config=tfds.core.BuilderConfig(name=config)
            )

    @property
    def shows_progress(self) -> bool:
        return self._source.SHOWS_PROGRESS

    def _info(self) -> tfds.core.DatasetInfo:
        whole = self._source.info
        return tfds.core.DatasetInfo(
            builder=self,
            description=whole.description,
            features=whole.features,
            supervised_keys=whole.supervised_keys,
            homepage=whole.homepage or None,
            citation=whole.citation or None,
            disable_shuffling=whole.disable_shuffling,
        )

    def _split_generators(self, dl_manager):
        if self._split not in self._generators:
            self._generators.update(self._source.generators(dl_manager))
        return {self._split: self._generators.pop(self._split)}

    def _generate_examples(self, *_):
        raise NotImplementedError("The source generates the examples.")


def _prepare(builder: tfds.core.DatasetBuilder) -> None:
    """Downloads and prepares a dataset, if that has not been done.

    Raises:
        DataError: one line. Nothing incomplete stays on disk.
    """
    if _is_prepared(builder):
        if not builder.info.splits:  # another process prepared it meanwhile
            builder.info.read_from_directory(builder.data_dir)
        return
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    if isinstance(builder, _Split) and not builder.shows_progress:  # takes seconds
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()), _other_random_numbers(), _buffer():
            builder.download_and_prepare(download_config=config)
    except BaseException as error:
        _clean(builder)
        if isinstance(error, OSError) and _is_prepared(builder):
            builder.info.read_from_directory(builder.data_dir)
            return  # another process prepared it at the same time
        if isinstance(error, _ERRORS):
            reason = str(error).partition("\n")[0]
            raise DataError(
                f"{builder.name} cannot be prepared in {builder.data_dir}: {reason}"
            ) from None
        raise
    finally:
        tfds.enable_progress_bar()


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    """As `builder.is_prepared()`, which logs a warning if the answer is no."""
    return (Path(builder.data_dir) / "dataset_info.json").is_file()


@contextlib.contextmanager
def _other_random_numbers() -> Iterator[None]:
    """Python's random numbers, which name the temporary folder, differ from process to process.

    Two machines with the same seed would otherwise write into the same folder.
    """
    state = random.getstate()
    random.seed()
    try:
        yield
    finally:
        random.setstate(state)


@contextlib.contextmanager
def _buffer() -> Iterator[None]:
    """The examples that TFDS orders in memory take `_BUFFER` bytes, and not 1 GB."""
    size, shuffle.MAX_MEM_BUFFER_SIZE = shuffle.MAX_MEM_BUFFER_SIZE, _BUFFER
    try:
        yield
    finally:
        shuffle.MAX_MEM_BUFFER_SIZE = size


def remove_folder(folder: Path) -> None:
    """Removes a folder, also if a thread of TFDS still closes a file in it."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)


def _clean(builder: tfds.core.DatasetBuilder) -> None:
    """Removes the files of a failed download, and empty folders."""
    root = Path(builder.data_dir_root)
    downloads = root / "downloads"
    for unfinished in (downloads / builder.name).glob("*.tmp.*"):
        remove_folder(unfinished)
    own = [folder for folder in Path(builder.data_dir).parents if root in folder.parents]
    for folder in (downloads / builder.name, downloads / "extracted", downloads, *own):
        with contextlib.suppress(OSError):  # not empty, or not there
            folder.rmdir()
