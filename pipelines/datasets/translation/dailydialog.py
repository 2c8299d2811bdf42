"""DailyDialog: English conversations about daily life."""

import itertools
import json
import re
import zipfile
import zlib

from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.datasets.translation.base import Pairs, replies
from unroll.pipelines.errors import DataError

# The archive of this address also has pictures; the checksum of one without them differs.
ARCHIVE = Source(
    "dailydialog",
    "data.zip",
    "https://github.com/jahotor/dailydialog-emototion-app/raw/"
    "0f30d3753b14ea6bf5617b9f75780d39e2af3b79/data/data.zip",
)
_MEMBER = "data/dialogues.json"
_SPLITS = {"train": "train", "valid": "validation", "test": "test"}
_FEWEST = 3  # words of a turn of an exchange
_WORD = re.compile(r"\w+")
_APART = re.compile(r"(\w)' (s|t|m|d|ll|re|ve)\b", re.IGNORECASE)


class DailyDialog(Pairs, skip_registration=True):
    """10,489 / 1,000 / 1,000 dialogs: 71,062 / 7,069 / 6,740 replies.

    The splits are those of the authors without 629 of the 11,118 dialogs of "train", which share
    an exchange with "valid" or "test": two turns in succession, of at least three words each, that
    are the same but for case and punctuation. A space inside contractions of the files (`Let' s`)
    is removed.
    """

    name = "dailydialog"
    HOMEPAGE = "http://yanran.li/dailydialog"
    CITATION = "Li et al. 2017, DailyDialog: A manually labelled multi-turn dialogue dataset"
    LICENSE = "CC BY-NC-SA 4.0"
    dialogs = True

    def _split_generators(self, dl_manager):
        path = find(ARCHIVE, dl_manager, self.manual_dir)
        return {split: self._replies(path, split) for split in self.SPLITS}

    def _replies(self, path, split: str):
        try:
            with zipfile.ZipFile(path) as archive:
                contents = json.loads(archive.read(_MEMBER))
            found: dict[str, list[list[str]]] = {name: [] for name in _SPLITS.values()}
            for dialog in contents:
                turns = [_APART.sub(r"\1'\2", each["utterance"]) for each in dialog["turns"]]
                found[dialog["data_split"]].append(turns)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
            raise DataError(f"{path} is not a complete archive: {error}.") from None
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: {_MEMBER} has another format ({error!r}).") from None
        dialogs = found[_SPLITS[split]]
        if split == "train":
            dialogs = without_shared(dialogs, found["validation"] + found["test"])
        yield from self._generate_examples(
            example for turns in dialogs for example in replies(turns, self.history)
        )


def without_shared(dialogs: list[list[str]], others: list[list[str]]) -> list[list[str]]:
    """The dialogs that have no exchange in common with others."""
    known = set().union(*map(_exchanges, others))
    return [turns for turns in dialogs if known.isdisjoint(_exchanges(turns))]


def _exchanges(turns: list[str]) -> set[tuple[str, str]]:
    """The words of two turns in succession, if both have enough."""
    folded = [" ".join(_WORD.findall(turn.lower())) for turn in turns]
    pairs = itertools.pairwise(folded)
    return {pair for pair in pairs if min(each.count(" ") for each in pair) >= _FEWEST - 1}
