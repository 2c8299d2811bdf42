"""Queries an exported SavedModel, with TensorFlow only.

python serving.py saved_models/speech_ctc/1 recording.wav
"""

import sys
from pathlib import Path

import tensorflow as tf


def main(folder: str, *paths: str) -> None:
    """Prints the transcript of each recording and the times of its labels, or what is wrong."""
    model = tf.saved_model.load(folder)
    contents = tf.constant([Path(path).read_bytes() for path in paths])
    outputs = model.signatures["serving_default"](audio_bytes=contents)
    for i, path in enumerate(paths):
        if error := outputs["error"][i].numpy().decode():
            print(path, f"error: {error}", sep="\t")
            continue
        times = zip(outputs["labels"][i].numpy(), outputs["timestamps"][i].numpy(), strict=True)
        labels = " ".join(f"{label.decode()}@{time:.2f}" for label, time in times if time >= 0)
        print(path, outputs["transcript"][i].numpy().decode(), labels, sep="\t")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python serving.py FOLDER WAV...")
    main(*sys.argv[1:])
