"""LibriSpeech (Panayotov et al. 2015) from TFDS, with train-clean-100 as training data."""

import numpy as np
import tensorflow as tf

from unroll.pipelines import sound
from unroll.pipelines.datasets.published import Published

NAME = "librispeech"
SPLITS = {"train": "train_clean100", "valid": "dev_clean", "test": "test_clean"}
RATE = 16_000
DECODERS = None


class Librispeech(Published, skip_registration=True):
    """1,000 hours of read English books (Panayotov et al. 2015), 16 kHz.

    The archive of `test_clean` has 346 MB, that of `train_clean100` 6.4 GB.
    """

    ARCHIVES = {
        "dev_clean": ("dev-clean.tar.gz",),
        "dev_other": ("dev-other.tar.gz",),
        "test_clean": ("test-clean.tar.gz",),
        "test_other": ("test-other.tar.gz",),
        "train_clean100": ("train-clean-100.tar.gz",),
        "train_clean360": ("train-clean-360.tar.gz",),
        "train_other500": ("train-other-500.tar.gz",),
    }

    def encode(self, examples):
        # TFDS would decode the files with pydub and ffmpeg.
        for key, example in examples:
            path = example["speech"]
            samples, _ = sound.decode(sound.read_bytes(path), path)
            yield key, example | {"speech": np.round(samples * 2**15).astype("int16")}


def convert(example: dict) -> dict:
    """An example with the features of the other datasets of recordings."""
    samples = tf.cast(example["speech"], tf.float32) / 2**15
    return {
        "audio": tf.audio.encode_wav(samples[:, tf.newaxis], RATE),
        "transcript": example["text"],
        "speaker": tf.strings.as_string(example["speaker_id"]),
    }
