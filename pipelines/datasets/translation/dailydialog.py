"""DailyDialog: English conversations about daily life."""

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
_APART = re.compile(r"(\w)' (s|t|m|d|ll|re|ve)\b", re.IGNORECASE)


class DailyDialog(Pairs, skip_registration=True):
    """11,118 / 1,000 / 1,000 dialogues with 102,979 turns: 76,052 / 7,069 / 6,740 replies.

    The splits are those of the authors, in which 84 dialogues of "valid" and 109 of "test" are also
    in "train". A space inside contractions of the files (`Let' s`) is removed.
    """

    name = "dailydialog"
    HOMEPAGE = "http://yanran.li/dailydialog"
    CITATION = "Li et al. 2017, DailyDialog: A manually labelled multi-turn dialogue dataset"
    dialogues = True

    def _split_generators(self, dl_manager):
        path = find(ARCHIVE, dl_manager, self.manual_dir)
        return {split: self._replies(path, split) for split in self.SPLITS}

    def _replies(self, path, split: str):
        try:
            with zipfile.ZipFile(path) as archive:
                contents = json.loads(archive.read(_MEMBER))
            found = [
                [each["utterance"] for each in dialogue["turns"]]
                for dialogue in contents
                if dialogue["data_split"] == _SPLITS[split]
            ]
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
            raise DataError(f"{path} is not a complete archive: {error}.") from None
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: {_MEMBER} has another format ({error!r}).") from None
        dialogues = ([_APART.sub(r"\1'\2", turn) for turn in turns] for turns in found)
        yield from self._generate_examples(
            example for turns in dialogues for example in replies(turns, self.history)
        )
