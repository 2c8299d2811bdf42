"""What the tests of datasets share."""

from pathlib import Path

import numpy as np
import tensorflow as tf


def read_all(builder_class, data_dir: Path, **options) -> dict[str, list[dict]]:
    """The examples of each split as a builder generates them, without writing TFRecords."""
    builder = builder_class(data_dir=data_dir, **options)
    return {
        split: [example for _, example in examples]
        for split, examples in builder.generators(None).items()
    }


def png(side: int = 8, value: int = 120) -> bytes:
    """A gray image file, wider than high."""
    return tf.io.encode_png(np.full((side, side + 2, 3), value, "uint8")).numpy()


def jpeg(side: int = 8, value: int = 120) -> bytes:
    """A gray image file, wider than high."""
    return tf.io.encode_jpeg(np.full((side, side + 2, 3), value, "uint8")).numpy()
