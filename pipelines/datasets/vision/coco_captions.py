"""The captions of COCO (Chen et al. 2015) from TFDS: the photos of 2014 in Karpathy's splits.

TFDS downloads 38 GB.
"""

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.sources import Source

NAME = "coco_captions"
SPLITS = {"train": "train+restval", "valid": "val", "test": "test"}
DECODERS = {"image": tfds.decode.SkipDecoding()}
ARCHIVE = Source(NAME, "train2014.zip", "http://images.cocodataset.org/zips/train2014.zip")


def convert(example: dict) -> dict:
    """An example with the features of the other datasets of captions."""
    return {
        "image": example["image"],
        "image_id": example["image/filename"],
        "captions": example["captions"]["text"],
    }
