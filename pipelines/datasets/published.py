"""Datasets of TFDS whose splits are downloaded and prepared one by one."""

import functools
import glob
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.extractor import ExtractError

from unroll.pipelines.datasets.base import Builder, without_bucket
from unroll.pipelines.datasets.prepared import remove_folder
from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.errors import DataError


class Published(Builder, skip_registration=True):
    """A dataset of TFDS, one split at a time, from the archives of that split only.

    TFDS's own builder downloads the archives of all splits and prepares them together. An archive
    is read from the manual folder if it is there, and its sha256 is that of TFDS. A subclass has
    the name of the dataset of TFDS.

    Args:
        **kwargs: arguments of `Builder`.

    Attributes:
        whole: the builder of TFDS.
    """

    # The file names of the archives that a split needs, by TFDS's name of the split.
    ARCHIVES: ClassVar[dict[str, tuple[str, ...]]] = {}
    SHOWS_PROGRESS = True

    def __init__(self, **kwargs):
        with without_bucket():
            self.whole = tfds.builder_cls(self.name)(data_dir=kwargs.get("data_dir"))
        self.VERSION = self.whole.version
        super().__init__(**kwargs)

    @property
    def split_names(self) -> tuple[str, ...]:
        return tuple(self.ARCHIVES)

    def _features(self) -> dict:
        return dict(self.whole.info.features)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split, dl_manager) for split in self.ARCHIVES}

    def _generate_examples(self, split, dl_manager):
        archives = _Archives(self, self.ARCHIVES[split], dl_manager)
        generators = self.whole._split_generators(archives)
        if isinstance(generators, dict):
            examples = generators[split]
        else:
            [kwargs] = [each.gen_kwargs for each in generators if each.name == split]
            examples = self.whole._generate_examples(**kwargs)
        yield from self.encode(examples)

    def encode(self, examples: Iterator[tuple]) -> Iterator[tuple]:
        """The keys and examples of TFDS's builder, as they are written to disk."""
        return examples


def published(builder: type[Published], **folders) -> tfds.core.DatasetBuilder:
    """The builder of a dataset, or TFDS's own if that has prepared the whole dataset already."""
    made = builder(**folders)
    return made.whole if (Path(made.whole.data_dir) / "dataset_info.json").is_file() else made


class _Archives:
    """A download manager that downloads archives of some names only, for a builder of TFDS."""

    def __init__(self, builder: Published, names: tuple[str, ...], downloads):
        self._builder, self._names, self._downloads = builder, names, downloads
        self._extracted = functools.cache(self._extract)

    def download_and_extract(self, urls: dict[str, str]) -> dict[str, Path]:
        """The folders of the archives that are needed, by key. The others have none."""
        return _Folders(
            {key: self._extracted(url) for key, url in urls.items() if _name(url) in self._names}
        )

    def _extract(self, url: str) -> Path:
        published = (self._builder.whole.url_infos or {}).get(url)
        source = Source(
            self._builder.name, _name(url), url, published.checksum if published else None
        )
        path = find(source, self._downloads, self._builder.manual_dir)
        try:
            return self._downloads.extract(path)
        except ExtractError as error:
            extracted = Path(self._builder.data_dir_root) / "downloads/extracted"
            for unfinished in extracted.glob(f"incomplete.*_*.{glob.escape(path.name)}"):
                remove_folder(unfinished)
            cause = error.__cause__
            if isinstance(cause, KeyboardInterrupt | SystemExit):
                raise cause from None
            reason = " ".join(str(cause or error).split())
            raise DataError(f"{path} cannot be extracted: {reason}") from None


class _Folders(dict):
    """Folders of archives. TFDS's builder also asks for those of other splits, and reads none."""

    def __missing__(self, key: str) -> str:
        return ""


def _name(url: str) -> str:
    return url.rpartition("/")[2]
