"""Datasets: TFDS builders, one file each, generated ones beside published ones.

A builder looks for its files in the manual folder first (`manual_dir`, or the environment variable
`UNROLL_MANUAL_DIR`), as `<dataset>/<published file name>`, and downloads them else.
"""

import contextlib
import functools
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Builder
from unroll.pipelines.datasets.sentiment.imdb import ARCHIVE, Imdb
from unroll.pipelines.datasets.sentiment.reviews import Reviews
from unroll.pipelines.datasets.sentiment.sst import Sst2, Sst5
from unroll.pipelines.datasets.sentiment.text_files import TextFiles
from unroll.pipelines.datasets.sources import in_manual_folder, of_tfds, require_reachable
from unroll.pipelines.datasets.speech import librispeech
from unroll.pipelines.datasets.speech.published import SPEAKERS, An4, Fsdd
from unroll.pipelines.datasets.speech.speech_files import SpeechFiles
from unroll.pipelines.datasets.speech.spoken_digits import SpokenDigits
from unroll.pipelines.datasets.stories.babi import Babi
from unroll.pipelines.datasets.stories.stories import Stories
from unroll.pipelines.datasets.stories.story_files import StoryFiles
from unroll.pipelines.datasets.tagging.atis_snips import Atis, Snips
from unroll.pipelines.datasets.tagging.flights import Flights
from unroll.pipelines.datasets.tagging.tagged_files import TaggedFiles
from unroll.pipelines.datasets.vision import coco_captions
from unroll.pipelines.datasets.vision.caption_files import CaptionFiles
from unroll.pipelines.datasets.vision.flickr8k import Flickr8k
from unroll.pipelines.datasets.vision.question_files import VisualFiles
from unroll.pipelines.datasets.vision.scenes_captions import ScenesCaptions
from unroll.pipelines.datasets.vision.scenes_clips import ScenesClips
from unroll.pipelines.datasets.vision.scenes_qa import ScenesDialog, ScenesQa
from unroll.pipelines.datasets.vision.visual_questions import Daquar, EasyVqa
from unroll.pipelines.errors import DataError

# Of a download or a disk. What is wrong with the data is a DataError already.
_ERRORS = (
    OSError,
    tfds.download.DownloadError,
    tfds.download.download_manager.NonMatchingChecksumError,
)
# Published datasets that TFDS builds: each tells which of its splits are which, and has a function
# that makes an example what it is in the other datasets of its kind.
_OF_TFDS = {module.NAME: module for module in (coco_captions, librispeech)}
_BUILDERS = {
    "an4": An4,
    "atis": Atis,
    "babi": functools.partial(Babi, config="en"),
    "babi_10k": functools.partial(Babi, config="en-10k"),
    "daquar": Daquar,
    "easy_vqa": EasyVqa,
    "flickr8k": Flickr8k,
    "flights": Flights,
    "fsdd": functools.partial(Fsdd, config="single"),
    "fsdd_strings": functools.partial(Fsdd, config="strings"),
    "imdb": Imdb,
    "reviews": Reviews,
    "scenes_captions": ScenesCaptions,
    "scenes_clips": ScenesClips,
    "scenes_dialog": ScenesDialog,
    "scenes_qa": ScenesQa,
    "snips": Snips,
    "spoken_digits": SpokenDigits,
    "sst2": Sst2,
    "sst5": Sst5,
    "stories": Stories,
    **{f"fsdd_without_{who}": functools.partial(Fsdd, config=f"without_{who}") for who in SPEAKERS},
    **{name: functools.partial(of_tfds, module.ARCHIVE) for name, module in _OF_TFDS.items()},
}
# What reads a folder of a person's own files.
FOLDERS = {
    "captioned": CaptionFiles,
    "labelled": TextFiles,
    "spoken": SpeechFiles,
    "tagged": TaggedFiles,
    "told": StoryFiles,
    "visual": VisualFiles,
}


def names() -> list[str]:
    """The datasets that `builder` and `load` know."""
    return sorted(_BUILDERS)


def builder(
    name: str,
    *,
    folder: str = "labelled",
    manual_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
    **options,
) -> tfds.core.DatasetBuilder:
    """A dataset's TFDS builder, prepared on disk.

    Args:
        name: one of `names()`, or a folder of your own files.
        folder: what the files of a folder are, one of `FOLDERS`.
        manual_dir: where downloaded files lie; `UNROLL_MANUAL_DIR` by default.
        data_dir: where prepared datasets are kept; that of TFDS by default.
        **options: of the builder of a folder.

    Raises:
        DataError: one line, for an unknown name and for missing or broken files.
    """
    where = {"data_dir": data_dir, "manual_dir": manual_dir}
    if name in _BUILDERS:
        make = functools.partial(_BUILDERS[name], **where)
    elif Path(name).is_dir():
        make = functools.partial(FOLDERS[folder], name, **options, **where)
    else:
        raise DataError(
            f"No dataset {name!r}: it is neither one of {', '.join(names())} nor a folder."
        )
    archive_needed = name == "imdb" and not make().is_prepared()
    if archive_needed and not in_manual_folder(ARCHIVE, manual_dir):
        make = functools.partial(tfds.builder, "imdb_reviews", data_dir=data_dir, try_gcs=False)
        if not make().is_prepared():
            require_reachable(ARCHIVE, manual_dir)
    return _prepared(make)


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
    published, decoders = _OF_TFDS.get(prepared.name), None
    if published:
        split, decoders = published.SPLITS.get(split, split), published.DECODERS
    try:
        found = prepared.as_dataset(split=split, shuffle_files=False, decoders=decoders)
    except ValueError:
        splits = (f"{name} ({s.num_examples})" for name, s in prepared.info.splits.items())
        raise DataError(
            f"{prepared.name} has no split {split!r}; it has {', '.join(splits)}, "
            "and slices such as 'train[:90%]'."
        ) from None
    return found.map(published.converted, tf.data.AUTOTUNE) if published else found


def splits(prepared: tfds.core.DatasetBuilder) -> dict[str, tf.data.Dataset]:
    """All splits of a builder; where it has no `valid`, that is the last tenth of `train`."""
    if prepared.name in _OF_TFDS:
        return {name: read(prepared, name) for name in _OF_TFDS[prepared.name].SPLITS}
    names = {name: name for name in prepared.info.splits}
    if "valid" not in names:
        names |= {"train": "train[:90%]", "valid": "train[90%:]"}
    return {name: read(prepared, split) for name, split in names.items()}


def _prepared(make: Callable[[], tfds.core.DatasetBuilder]) -> tfds.core.DatasetBuilder:
    made = make()
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    if isinstance(made, Builder):  # these take seconds; TFDS's own may have to download
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            made.download_and_prepare(download_config=config)
    except BaseException as error:
        _clean(made)
        if isinstance(error, OSError) and made.is_prepared():
            return make()  # another process was faster
        if isinstance(error, _ERRORS):
            reason = str(error).partition("\n")[0]
            raise DataError(
                f"{made.name} cannot be prepared in {made.data_dir}: {reason}"
            ) from None
        raise
    finally:
        tfds.enable_progress_bar()
    return made


def _clean(made: tfds.core.DatasetBuilder) -> None:
    """Removes what TFDS leaves of a failed download, and folders that are empty."""
    root = Path(made.data_dir_root)
    downloads = root / "downloads"
    for unfinished in (downloads / made.name).glob("*.tmp.*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    own = [folder for folder in Path(made.data_dir).parents if root in folder.parents]
    for folder in (downloads / made.name, downloads / "extracted", downloads, *own):
        with contextlib.suppress(OSError):  # not empty, or not there
            folder.rmdir()
