"""Queries an exported SavedModel, with only TensorFlow.

python serving.py saved_models/image_captioning/1 photo.jpg
"""

import sys
from pathlib import Path

import tensorflow as tf


def main(folder: str, *paths: str) -> None:
    """Prints the captions of each image with their scores, best first."""
    model = tf.saved_model.load(folder).signatures["serving_default"]
    outputs = model(image_bytes=tf.constant([Path(path).read_bytes() for path in paths]))
    for error, path in zip(outputs["error"].numpy(), paths, strict=True):
        if error:
            sys.exit(f"{path} {error.decode()}")
    for captions, scores in zip(
        outputs["captions"].numpy(), outputs["scores"].numpy(), strict=True
    ):
        for caption, score in zip(captions, scores, strict=True):
            print(caption.decode(), f"{score:.2f}", sep="\t")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python serving.py FOLDER IMAGE...")
    main(*sys.argv[1:])
