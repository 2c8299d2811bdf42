"""What the published datasets of key terms share: their repository and its files of columns."""

from pathlib import Path

from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.datasets.tagging.base import Tagging
from unroll.pipelines.datasets.tagging.columns import read_columns

LABEL = "KEY"  # of a key term, where there is one kind
_ADDRESS = (
    "https://raw.githubusercontent.com/midas-research/"
    "keyphrase-extraction-as-sequence-labeling-data/8d5643b44b558483c5e5edf8e4c4d8ca0ade8912/"
)
# Brackets and quotes as the Penn Treebank spells them. A text that is typed has the others.
_TYPED = {
    "-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}",
    "``": '"', "''": '"', "`": "'",
}  # fmt: skip


class KeyTermColumns(Tagging, skip_registration=True):
    """Documents with BIO tags, from the repository of Sahrawat et al. 2020.

    Brackets and quotes that are spelled as in the Penn Treebank are read as typed. A subclass sets
    the folders of the files, and by split their name and checksum.
    """

    FOLDER = ""  # in the manual folder
    PUBLISHED_FOLDER = ""
    FILES: dict[str, tuple[str, str]]

    def _split_generators(self, dl_manager):
        paths = {
            split: find(
                Source(
                    self.FOLDER, name, f"{_ADDRESS}{self.PUBLISHED_FOLDER}/{name}", sha256=checksum
                ),
                dl_manager,
                self.manual_dir,
            )
            for split, (name, checksum) in self.FILES.items()
        }
        return {split: self._generate_examples(path) for split, path in paths.items()}

    def _generate_examples(self, path: Path):
        for k, example in enumerate(read_columns(path)):
            yield k, {**example, "words": [_TYPED.get(word, word) for word in example["words"]]}
