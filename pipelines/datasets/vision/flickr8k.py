"""Pictures with captions: what such datasets share; Flickr8k."""

import re
import zipfile
from collections.abc import Iterable

import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Builder
from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.errors import DataError


class Captions(Builder, skip_registration=True):
    """A picture an example, with all its captions."""

    FEATURES = {
        "image": tf.string,
        "image_id": tf.string,
        "captions": tfds.features.Sequence(tf.string),
    }

    def _generate_examples(self, rows: Iterable[tuple[str, dict]]):
        yield from rows


_RELEASE = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
_PHOTOS = Source("flickr8k", "Flickr8k_Dataset.zip", f"{_RELEASE}/Flickr8k_Dataset.zip")
_TEXTS = Source("flickr8k", "Flickr8k_text.zip", f"{_RELEASE}/Flickr8k_text.zip")
_LISTS = {"train": "train", "valid": "dev", "test": "test"}
_LINE = re.compile(r"^(.+\.jpg)(?:\.\d+)?#\d\t(.*\S)\s*$")


class Flickr8k(Captions, skip_registration=True):
    """Flickr8k: 8,000 photos of people and dogs that do something, with five captions each.

    The splits are the official lists of 6,000, 1,000 and 1,000 photos, as Karpathy and Fei-Fei 2015
    and all after them use them.
    """

    HOMEPAGE = "https://github.com/jbrownlee/Datasets/releases/tag/Flickr8k"
    CITATION = "Hodosh, Young and Hockenmaier 2013"

    def _split_generators(self, dl_manager):
        photos = find(_PHOTOS, dl_manager, self.manual_dir)
        texts = find(_TEXTS, dl_manager, self.manual_dir)
        with zipfile.ZipFile(texts) as archive:
            captions: dict[str, list[str]] = {}
            lines = archive.read("Flickr8k.token.txt").decode().splitlines()
            for number, line in enumerate(lines, start=1):
                found = _LINE.match(line)
                if not found:
                    raise DataError(
                        f"{texts}: Flickr8k.token.txt, line {number}: expected a photo, #, a "
                        f"digit, a tab, a caption, got {line[:60]!r}."
                    )
                captions.setdefault(found[1], []).append(found[2])
            lists = {
                split: archive.read(f"Flickr_8k.{name}Images.txt").decode().split()
                for split, name in _LISTS.items()
            }
        return {split: self._photos(photos, names, captions) for split, names in lists.items()}

    def _photos(self, path, names: list[str], captions: dict[str, list[str]]):
        with zipfile.ZipFile(path) as archive:
            for name in names:
                try:
                    contents = archive.read(f"Flicker8k_Dataset/{name}")
                    yield name, example(name, contents, captions[name])
                except KeyError:
                    raise DataError(f"{path}: {name} has no photo or no caption.") from None


def example(name: str, contents: bytes, captions: list[str]) -> dict:
    """A picture with its captions, as the builders here generate it."""
    return {"image": contents, "image_id": name, "captions": captions}
