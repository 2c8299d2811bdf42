"""Film reviews of IMDB, from the archive as published."""

import gzip
import tarfile
import zlib

from unroll.pipelines.datasets.base import TextClassification
from unroll.pipelines.datasets.sources import Source, in_manual_folder
from unroll.pipelines.errors import DataError

ARCHIVE = Source(
    "imdb",
    "aclImdb_v1.tar.gz",
    "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
)


class Imdb(TextClassification, skip_registration=True):
    """IMDB: 25,000 / 25,000 reviews, negative or positive.

    Without the archive in a manual folder, `load` takes TFDS's own `imdb_reviews`, which downloads
    it.
    """

    LABELS = ("negative", "positive")
    HOMEPAGE = "https://ai.stanford.edu/~amaas/data/sentiment"
    CITATION = "Maas et al. 2011, Learning word vectors for sentiment analysis"
    # Of each label in each split.
    COUNT = 12_500

    def _split_generators(self, dl_manager):
        path = in_manual_folder(ARCHIVE, self.manual_dir)
        # One pass through the archive serves both splits.
        reviews = {"train": [], "test": []}
        try:
            # Not tarfile's own "r|gz", which neither checks the sum nor misses a lost end.
            with gzip.open(path) as file, tarfile.open(fileobj=file, mode="r|") as archive:
                for member in archive:
                    _, split, kind, name = (*member.name.split("/"), "", "", "")[:4]
                    if split in reviews and kind in ("neg", "pos") and name.endswith(".txt"):
                        text = archive.extractfile(member).read().decode("utf-8")
                        example = {"text": text, "label": int(kind == "pos")}
                        reviews[split].append((f"{kind}/{name}", example))
                while file.read(1 << 20):  # the sum stands at the end
                    pass
        except (tarfile.TarError, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise DataError(f"{path} is no whole archive: {error}.") from None
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
