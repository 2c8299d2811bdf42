"""Load and temperature of electricity transformers (ETT)."""

from unroll.pipelines.datasets.series.darts_files import DartsFile


class _Ett(DartsFile, skip_registration=True):
    HOMEPAGE = "https://github.com/zhouhaoyi/ETDataset"
    CITATION = "Zhou et al. 2021, Informer, arXiv:2012.07436"
    LICENSE = "CC BY-ND 4.0"
    FOLDER = "ett"
    FREQUENCY = "h"
    ENDS = {"train": 8640, "valid": 11_520, "test": 14_400}


class Etth1(_Ett, skip_registration=True):
    """Six loads and the oil temperature of a transformer, hourly: 8,640 / 2,880 / 2,880 hours.

    12 / 4 / 4 months of 30 days. The rows after them are not used, as in the literature.
    """

    NAME = "ETTh1.csv"
    SHA256 = "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"


class Etth2(_Ett, skip_registration=True):
    """Six loads and the oil temperature of another transformer, with the splits of `Etth1`."""

    NAME = "ETTh2.csv"
    SHA256 = "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b"
