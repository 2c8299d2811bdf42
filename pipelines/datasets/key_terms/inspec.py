"""Inspec: abstracts of computer science."""

from unroll.pipelines.datasets.key_terms.base import KeyTermColumns


class Inspec(KeyTermColumns, skip_registration=True):
    """Inspec: 1,000 / 500 / 500 titles and abstracts with the key terms of an indexer.

    All mentions of a key term in the text are tagged.
    """

    CITATION = "Hulth 2003; as tags Sahrawat et al. 2020, arXiv:1910.08840"
    FOLDER = "inspec"
    PUBLISHED_FOLDER = "Inspec"
    FILES = {
        "train": ("train.txt", "41b08949b97a512556ca69019a2b20c00e7fdc2edc2219b61814d27730177b2c"),
        "valid": ("valid.txt", "c3292418d5af858a29ecc718d06fcb9d91363136114f57e443c45ed28c6ae463"),
        "test": ("test.txt", "2db06f5c57d99a30f5e19124b43d3b2a85e5d98e1629ad25a1778ed043248eb4"),
    }
