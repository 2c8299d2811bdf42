"""IMDB film reviews, from the published archive."""

import gzip
import tarfile
import zlib

from unroll.pipelines.datasets.sentiment.base import TextClassification
from unroll.pipelines.datasets.sources import Source, in_manual_folder
from unroll.pipelines.errors import DataError

ARCHIVE = Source(
    "imdb",
    "aclImdb_v1.tar.gz",
    "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
)


class Imdb(TextClassification, skip_registration=True):
    """IMDB: 25,000 / 25,000 reviews, negative or positive.

    If the archive is not in the manual folder, `datasets.builder` uses `imdb_reviews` of TFDS,
    which downloads it.
    """

    SPLITS = ("train", "test")
    LABELS = ("negative", "positive")
    HOMEPAGE = "https://ai.stanford.edu/~amaas/data/sentiment"
    CITATION = "Maas et al. 2011, Learning word vectors for sentiment analysis"
    LICENSE = "for research"
    COUNT = 12_500  # reviews of each label in each split

    def _split_generators(self, dl_manager):
        path = in_manual_folder(ARCHIVE, self.manual_dir)
        # Both splits are read in one pass through the archive.
        reviews = {"train": [], "test": []}
        try:
            # tarfile's own "r|gz" neither checks the checksum nor notices a truncated file.
            with gzip.open(path) as file, tarfile.open(fileobj=file, mode="r|") as archive:
                for member in archive:
                    _, split, kind, name = (*member.name.split("/"), "", "", "")[:4]
                    if split in reviews and kind in ("neg", "pos") and name.endswith(".txt"):
                        text = archive.extractfile(member).read().decode("utf-8")
                        example = {"text": text, "label": int(kind == "pos")}
                        reviews[split].append((f"{kind}/{name}", example))
                while file.read(1 << 20):  # the checksum is at the end
                    pass
        except (tarfile.TarError, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise DataError(f"{path} is not a complete archive: {error}.") from None
        for split, examples in reviews.items():
            for label, kind in enumerate(("neg", "pos")):
                count = sum(example["label"] == label for _, example in examples)
                if count != self.COUNT:
                    raise DataError(
                        f"{path} has {count} files aclImdb/{split}/{kind}/*.txt, not {self.COUNT}."
                    )
        return {split: self._generate_examples(examples) for split, examples in reviews.items()}

    def _generate_examples(self, examples):
        yield from examples
