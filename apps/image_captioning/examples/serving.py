"""Asks an exported SavedModel, with TensorFlow and nothing else.

python serving_example.py saved_models/image_captioning/1 photo.jpg
"""

import sys
from pathlib import Path

import tensorflow as tf


def main(folder: str, *photos: str) -> None:
    """Prints the captions of each photo, the likeliest first, with their scores."""
    write = tf.saved_model.load(folder).signatures["serving_default"]
    answer = write(image_bytes=tf.constant([Path(photo).read_bytes() for photo in photos]))
    for captions, scores in zip(answer["captions"].numpy(), answer["scores"].numpy(), strict=True):
        for caption, score in zip(captions, scores, strict=True):
            print(caption.decode(), f"{score:.2f}", sep="\t")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python serving_example.py FOLDER PHOTO...")
    main(*sys.argv[1:])
