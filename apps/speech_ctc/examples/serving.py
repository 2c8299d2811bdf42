"""Asks an exported SavedModel, with TensorFlow and nothing else.

python serving_example.py saved_models/speech_ctc/1 recording.wav
"""

import sys
from pathlib import Path

import tensorflow as tf


def main(folder: str, *paths: str) -> None:
    """Prints the transcript of each recording, and when its labels were heard."""
    model = tf.saved_model.load(folder)
    contents = tf.constant([Path(path).read_bytes() for path in paths])
    answers = model.signatures["serving_default"](audio_bytes=contents)
    for k, path in enumerate(paths):
        times = zip(answers["labels"][k].numpy(), answers["timestamps"][k].numpy(), strict=True)
        heard = " ".join(f"{label.decode()}@{time:.2f}" for label, time in times if time >= 0)
        print(path, answers["transcript"][k].numpy().decode(), heard, sep="\t")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python serving_example.py FOLDER WAV...")
    main(*sys.argv[1:])
