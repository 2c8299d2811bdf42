"""Datasets: TFDS builders, one file each, grouped by task.

A builder reads its files from the manual folder (`manual_dir`, or the environment variable
`UNROLL_MANUAL_DIR`), as `<dataset>/<published file name>`, or downloads them.
"""

import functools
from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Builder, Generated, without_bucket
from unroll.pipelines.datasets.key_terms.articles import Articles
from unroll.pipelines.datasets.key_terms.inspec import Inspec
from unroll.pipelines.datasets.key_terms.semeval2017 import SemEval2017
from unroll.pipelines.datasets.key_terms.term_files import TermFiles
from unroll.pipelines.datasets.language.grammar import Grammar
from unroll.pipelines.datasets.language.plain_files import PlainFiles
from unroll.pipelines.datasets.language.ptb import Ptb
from unroll.pipelines.datasets.language.tiny_shakespeare import TinyShakespeare
from unroll.pipelines.datasets.language.wiki10m import Wiki10m
from unroll.pipelines.datasets.language.word_questions import WordQuestions
from unroll.pipelines.datasets.language.world import World
from unroll.pipelines.datasets.prepared import Prepared
from unroll.pipelines.datasets.published import published
from unroll.pipelines.datasets.sentiment.imdb import ARCHIVE, Imdb
from unroll.pipelines.datasets.sentiment.reviews import Reviews
from unroll.pipelines.datasets.sentiment.sst import Sst2, Sst5
from unroll.pipelines.datasets.sentiment.text_files import TextFiles
from unroll.pipelines.datasets.series.ett import Etth1, Etth2
from unroll.pipelines.datasets.series.exchange_rate import ExchangeRate
from unroll.pipelines.datasets.series.m4_hourly import M4Hourly
from unroll.pipelines.datasets.series.seasons import Seasons
from unroll.pipelines.datasets.series.series_files import SeriesFiles
from unroll.pipelines.datasets.series.small_series import AirPassengers, Sunspots
from unroll.pipelines.datasets.series.stocknet import Stocknet
from unroll.pipelines.datasets.sources import in_manual_folder, require_reachable
from unroll.pipelines.datasets.speech import librispeech
from unroll.pipelines.datasets.speech.an4 import An4
from unroll.pipelines.datasets.speech.fsdd import SPEAKERS, Fsdd
from unroll.pipelines.datasets.speech.speech_files import SpeechFiles
from unroll.pipelines.datasets.speech.spoken_digits import SpokenDigits
from unroll.pipelines.datasets.stories.babi import Babi
from unroll.pipelines.datasets.stories.stories import Stories
from unroll.pipelines.datasets.stories.story_files import StoryFiles
from unroll.pipelines.datasets.tagging.atis import Atis
from unroll.pipelines.datasets.tagging.flights import Flights
from unroll.pipelines.datasets.tagging.snips import Snips
from unroll.pipelines.datasets.tagging.tagged_files import TaggedFiles
from unroll.pipelines.datasets.translation.dailydialog import DailyDialog
from unroll.pipelines.datasets.translation.multi30k import Multi30k
from unroll.pipelines.datasets.translation.pair_files import PairFiles
from unroll.pipelines.datasets.translation.phrases import Phrases
from unroll.pipelines.datasets.translation.tatoeba_zh_en import TatoebaZhEn
from unroll.pipelines.datasets.vision import coco_captions
from unroll.pipelines.datasets.vision.caption_files import CaptionFiles
from unroll.pipelines.datasets.vision.daquar import Daquar
from unroll.pipelines.datasets.vision.easy_vqa import EasyVqa
from unroll.pipelines.datasets.vision.flickr8k import Flickr8k
from unroll.pipelines.datasets.vision.question_files import QuestionFiles
from unroll.pipelines.datasets.vision.scenes_captions import ScenesCaptions
from unroll.pipelines.datasets.vision.scenes_clips import ScenesClips
from unroll.pipelines.datasets.vision.scenes_dialog import ScenesDialog
from unroll.pipelines.datasets.vision.scenes_qa import ScenesQa
from unroll.pipelines.errors import DataError

# Published datasets that TFDS builds. A module maps our split names to those of TFDS, and has a
# function that converts an example to the features of the other datasets of its task.
_TFDS_DATASETS = {module.NAME: module for module in (coco_captions, librispeech)}
_BUILDERS = {
    "air_passengers": AirPassengers,
    "an4": An4,
    "articles": Articles,
    "atis": Atis,
    "babi": functools.partial(Babi, config="en"),
    "babi_10k": functools.partial(Babi, config="en-10k"),
    "dailydialog": DailyDialog,
    "daquar": Daquar,
    "easy_vqa": EasyVqa,
    "etth1": Etth1,
    "etth2": Etth2,
    "exchange_rate": ExchangeRate,
    "flickr8k": Flickr8k,
    "flights": Flights,
    "fsdd": functools.partial(Fsdd, config="single"),
    "fsdd_strings": functools.partial(Fsdd, config="strings"),
    "grammar": Grammar,
    "imdb": Imdb,
    "inspec": Inspec,
    "m4_hourly": M4Hourly,
    "multi30k": Multi30k,
    "phrases": Phrases,
    "ptb": Ptb,
    "ptb_characters": Ptb,
    "reviews": Reviews,
    "scenes_captions": ScenesCaptions,
    "scenes_clips": ScenesClips,
    "scenes_dialog": ScenesDialog,
    "scenes_qa": ScenesQa,
    "seasons": Seasons,
    "semeval2017": SemEval2017,
    "snips": Snips,
    "spoken_digits": SpokenDigits,
    "sst2": Sst2,
    "sst5": Sst5,
    "stocknet": Stocknet,
    "stories": Stories,
    "sunspots": Sunspots,
    "tatoeba_zh_en": TatoebaZhEn,
    "tiny_shakespeare": TinyShakespeare,
    "wiki10m": Wiki10m,
    "word_questions": WordQuestions,
    "world": World,
    **{f"fsdd_without_{who}": functools.partial(Fsdd, config=f"without_{who}") for who in SPEAKERS},
    "coco_captions": functools.partial(published, coco_captions.CocoCaptions),
    "librispeech": functools.partial(published, librispeech.Librispeech),
}
GENERATED = tuple(
    name
    for name, make in _BUILDERS.items()
    if isinstance(make, type) and issubclass(make, Generated)
)
# Builders that read a folder of your own files, by the kind of the files.
KINDS = {
    "captions": CaptionFiles,
    "key_terms": TermFiles,
    "plain_text": PlainFiles,
    "series": SeriesFiles,
    "speech": SpeechFiles,
    "stories": StoryFiles,
    "tagging": TaggedFiles,
    "text_classification": TextFiles,
    "translation": PairFiles,
    "visual_questions": QuestionFiles,
}

_OF_ONE_FILE = ("plain_text", "series")


def names() -> list[str]:
    """The names of the datasets that `builder` and `load` know."""
    return sorted(_BUILDERS)


def builder_class(name: str) -> type[Builder] | None:
    """The class of the builder of a dataset; `None` for a folder of your own files."""
    make = _BUILDERS.get(name)
    while isinstance(make, functools.partial):
        make = make.args[0] if make.args else make.func
    return make


def builder(
    name: str,
    *,
    kind: str = "text_classification",
    size: float = 1.0,
    manual_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
    **options,
) -> Prepared:
    """A dataset, whose splits are prepared on disk when they are first read.

    Args:
        name: one of `names()`, or a folder of your own files. For plain text and series also one
            file.
        kind: what the files of a folder are, one of `KINDS`.
        size: multiplies the number of examples of a generated dataset (`GENERATED`).
        manual_dir: the folder of downloaded files. Defaults to `UNROLL_MANUAL_DIR`.
        data_dir: the folder of prepared datasets. Defaults to that of TFDS.
        **options: arguments of the builder of a folder. Of a builder by name, those in its
            `OPTIONS`.

    Raises:
        DataError: for an unknown name or kind, a size that the dataset does not support, or missing
            or broken files. The message is one line. `read` raises it for what it has to prepare.
    """
    if kind not in KINDS:
        raise DataError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
    folders = {"data_dir": data_dir, "manual_dir": manual_dir}
    if name in _BUILDERS:
        accepted = getattr(_BUILDERS[name], "OPTIONS", ())
        own = {option: options[option] for option in accepted if option in options}
        make = functools.partial(_BUILDERS[name], **own, **folders)
    elif Path(name).is_dir() or (kind in _OF_ONE_FILE and Path(name).is_file()):
        make = functools.partial(KINDS[kind], name, **options, **folders)
    else:
        raise DataError(
            f"No dataset {name!r}: it is neither one of {', '.join(names())} nor a folder."
        )
    if name in GENERATED:
        make = functools.partial(make, size=size)
    elif size != 1:
        raise DataError(
            f"size={size}: {name} is not generated. A size other than 1 is allowed for "
            f"{', '.join(GENERATED)}."
        )
    prepared = Prepared(make())
    if name == "imdb" and not (prepared.is_prepared() or in_manual_folder(ARCHIVE, manual_dir)):
        with without_bucket():
            whole = tfds.builder("imdb_reviews", data_dir=data_dir, try_gcs=False)
        if not whole.is_prepared():
            require_reachable(ARCHIVE, manual_dir)
        prepared = Prepared(whole)
    return prepared


def load(name: str, split: str, **options) -> tf.data.Dataset:
    """A split of a dataset. The order of the examples is always the same.

    Args:
        name: as in `builder`.
        split: the name of a split, or a slice such as `train[:90%]`.
        **options: the other arguments of `builder`.

    Raises:
        DataError: as `builder`, and for a split that the dataset does not have.
    """
    return read(builder(name, **options), split)


def read(prepared: Prepared, split: str) -> tf.data.Dataset:
    """A split of a dataset, as in `load`, from its builder."""
    if published := _TFDS_DATASETS.get(prepared.name):
        examples = prepared.read(published.SPLITS.get(split, split), published.DECODERS)
        return examples.map(published.convert, tf.data.AUTOTUNE)
    return prepared.read(split)


def split_names(prepared: Prepared) -> list[str]:
    """The names that `splits` accepts. "valid" is always one of them."""
    return list(_slices(prepared))


def splits(prepared: Prepared, names: Iterable[str] | None = None) -> dict[str, tf.data.Dataset]:
    """Splits of a dataset by name. Only these are read.

    Where a dataset has no split "valid", that is the last tenth of "train".

    Args:
        prepared: made by `builder`.
        names: of the splits; `None` for all.

    Raises:
        DataError: if the dataset does not have a split.
    """
    slices = _slices(prepared)
    names = list(slices if names is None else names)
    for name in names:
        if name not in slices:
            raise DataError(f"{prepared.name} has no split {name!r}; it has {', '.join(slices)}.")
    return {name: read(prepared, slices[name]) for name in names}


def folder(prepared: Prepared, split: str) -> Path:
    """The folder in which a split of `split_names` is prepared."""
    published = _TFDS_DATASETS.get(prepared.name)
    slices = published.SPLITS if published else _slices(prepared)
    return prepared.folder(slices[split])


def _slices(prepared: Prepared) -> dict[str, str]:
    """The argument of `read` for each split."""
    if prepared.name in _TFDS_DATASETS:
        return {name: name for name in _TFDS_DATASETS[prepared.name].SPLITS}
    slices = {name: name for name in prepared.split_names}
    if "valid" not in slices:
        slices |= {"train": "train[:90%]", "valid": "train[90%:]"}
    return slices
