"""The captions of COCO (Chen et al. 2015) from TFDS: the photos of 2014 in Karpathy's splits."""

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.published import Published

NAME = "coco_captions"
SPLITS = {"train": "train+restval", "valid": "val", "test": "test"}
DECODERS = {"image": tfds.decode.SkipDecoding()}
_CAPTIONS = ("annotations_trainval2014.zip", "caption_datasets.zip")


class CocoCaptions(Published, skip_registration=True):
    """123,287 photos with five captions each (Chen et al. 2015), in Karpathy's splits.

    The archives of `val` and `test` have 6.9 GB, and those of `train` and `restval` another
    13.5 GB. The photos of COCO's own test set have no captions and are not downloaded.
    """

    ARCHIVES = {
        "train": ("train2014.zip", *_CAPTIONS),
        "val": ("val2014.zip", *_CAPTIONS),
        "test": ("val2014.zip", *_CAPTIONS),
        "restval": ("val2014.zip", *_CAPTIONS),
    }


def convert(example: dict) -> dict:
    """An example with the features of the other datasets of captions."""
    return {
        "image": example["image"],
        "image_id": example["image/filename"],
        "captions": example["captions"]["text"],
    }
