"""Flickr8k."""

import re

from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.datasets.vision.base import Captions, caption_example, open_archive
from unroll.pipelines.errors import DataError
from unroll.pipelines.lines import decode_text, split_lines

_RELEASE = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
PHOTOS = Source("flickr8k", "Flickr8k_Dataset.zip", f"{_RELEASE}/Flickr8k_Dataset.zip")
TEXTS = Source("flickr8k", "Flickr8k_text.zip", f"{_RELEASE}/Flickr8k_text.zip")
_LISTS = {"train": "train", "valid": "dev", "test": "test"}
_LINE = re.compile(r"^(.+\.jpg)(?:\.\d+)?#\d\t(.*\S)\s*$")


class Flickr8k(Captions, skip_registration=True):
    """Flickr8k: 8,000 photos of people and dogs in action, with five captions each.

    The splits are the official lists of 6,000, 1,000 and 1,000 photos, as in Karpathy and Fei-Fei
    2015 and later work.
    """

    HOMEPAGE = "https://github.com/jbrownlee/Datasets/releases/tag/Flickr8k"
    CITATION = "Hodosh, Young and Hockenmaier 2013"
    LICENSE = "for research"

    def _split_generators(self, dl_manager):
        photos = find(PHOTOS, dl_manager, self.manual_dir)
        texts = find(TEXTS, dl_manager, self.manual_dir)
        with open_archive(texts) as archive:
            captions: dict[str, list[str]] = {}
            lines = split_lines(decode_text(archive.read("Flickr8k.token.txt"), str(texts)))
            for number, line in enumerate(lines, start=1):
                match = _LINE.match(line)
                if not match:
                    raise DataError(
                        f"{texts}: Flickr8k.token.txt, line {number}: expected a photo, #, a "
                        f"digit, a tab, a caption, got {line[:60]!r}."
                    )
                captions.setdefault(match[1], []).append(match[2])
            lists = {
                split: archive.read(f"Flickr_8k.{name}Images.txt").decode().split()
                for split, name in _LISTS.items()
            }
        return {split: self._photos(photos, names, captions) for split, names in lists.items()}

    def _photos(self, path, names: list[str], captions: dict[str, list[str]]):
        with open_archive(path) as archive:
            known = set(archive.namelist())
            for name in names:
                member = f"Flicker8k_Dataset/{name}"
                if member not in known or name not in captions:
                    raise DataError(f"{path}: {name} has no photo or no caption.")
                yield name, caption_example(name, archive.read(member), captions[name])
