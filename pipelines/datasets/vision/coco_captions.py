"""COCO's captions (Chen et al. 2015) by TFDS's own builder: 2014's photos in Karpathy's splits.

TFDS downloads 38 GB.
"""

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.sources import Source

NAME = "coco_captions"
SPLITS = {"train": "train+restval", "valid": "val", "test": "test"}
DECODERS = {"image": tfds.decode.SkipDecoding()}
ARCHIVE = Source(NAME, "train2014.zip", "http://images.cocodataset.org/zips/train2014.zip")


def converted(example: dict) -> dict:
    """An example as the other datasets of captions have it: a picture file and its captions."""
    return {
        "image": example["image"],
        "image_id": example["image/filename"],
        "captions": example["captions"]["text"],
    }
