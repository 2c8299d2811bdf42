"""Datasets: TFDS builders, one file each, generated ones beside published ones.

A builder looks for its files in the manual folder first (`manual_dir`, or the environment variable
`UNROLL_MANUAL_DIR`), as `<dataset>/<published file name>`, and downloads them else.
"""

import contextlib
import io
from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds

from pipelines.datasets.base import Builder
from pipelines.datasets.imdb import ARCHIVE, Imdb
from pipelines.datasets.reviews import Reviews
from pipelines.datasets.sources import in_manual_folder
from pipelines.datasets.sst import Sst2, Sst5
from pipelines.datasets.text_files import TextFiles
from pipelines.errors import DataError

_BUILDERS = {"imdb": Imdb, "reviews": Reviews, "sst2": Sst2, "sst5": Sst5}


def names() -> list[str]:
    """The datasets that `builder` and `load` know."""
    return sorted(_BUILDERS)


def builder(
    name: str, *, manual_dir: str | Path | None = None, data_dir: str | Path | None = None
) -> tfds.core.DatasetBuilder:
    """A dataset's TFDS builder, prepared on disk.

    Args:
        name: one of `names()`, or a folder of your own files (see `TextFiles`).
        manual_dir: where downloaded files lie; `UNROLL_MANUAL_DIR` by default.
        data_dir: where prepared datasets are kept; that of TFDS by default.

    Raises:
        DataError: one line, for an unknown name and for missing or broken files.
    """
    where = {"data_dir": data_dir, "manual_dir": manual_dir}
    if name == "imdb" and not in_manual_folder(ARCHIVE, manual_dir):
        made = tfds.builder("imdb_reviews", data_dir=data_dir, try_gcs=False)
    elif name in _BUILDERS:
        made = _BUILDERS[name](**where)
    elif Path(name).is_dir():
        made = TextFiles(name, **where)
    else:
        raise DataError(
            f"No dataset {name!r}: it is neither one of {', '.join(names())} nor a folder."
        )
    _prepare(made)
    return made


def load(
    name: str,
    split: str,
    *,
    manual_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> tf.data.Dataset:
    """A split of a dataset, in an order that is always the same.

    Args:
        name, manual_dir, data_dir: as in `builder`.
        split: its name, or a slice such as `train[:90%]`.

    Raises:
        DataError: as `builder`, and for a split that the dataset does not have.
    """
    return read(builder(name, manual_dir=manual_dir, data_dir=data_dir), split)


def read(prepared: tfds.core.DatasetBuilder, split: str) -> tf.data.Dataset:
    """As `load`, from a builder."""
    splits = prepared.info.splits
    if split.partition("[")[0] not in splits:
        raise DataError(f"{prepared.name} has no split {split!r}; it has {', '.join(splits)}.")
    return prepared.as_dataset(split=split, shuffle_files=False)


def _prepare(made: tfds.core.DatasetBuilder) -> None:
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    if isinstance(made, Builder):  # these take seconds; TFDS's own may have to download
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            made.download_and_prepare(download_config=config)
    except DataError:
        raise
    except (OSError, tfds.download.DownloadError) as error:
        raise DataError(
            f"{made.name} cannot be prepared in {made.data_dir}: {error}".splitlines()[0]
        ) from None
    finally:
        tfds.enable_progress_bar()
