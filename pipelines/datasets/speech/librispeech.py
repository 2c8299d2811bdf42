"""LibriSpeech (Panayotov et al. 2015) from TFDS, with train-clean-100 as training data.

TFDS downloads 57 GB.
"""

import tensorflow as tf

from unroll.pipelines.datasets.sources import Source

NAME = "librispeech"
SPLITS = {"train": "train_clean100", "valid": "dev_clean", "test": "test_clean"}
RATE = 16_000
DECODERS = None
ARCHIVE = Source(
    NAME, "train-clean-100.tar.gz", "https://www.openslr.org/resources/12/train-clean-100.tar.gz"
)


def convert(example: dict) -> dict:
    """An example with the features of the other datasets of recordings."""
    samples = tf.cast(example["speech"], tf.float32) / 2**15
    return {
        "audio": tf.audio.encode_wav(samples[:, tf.newaxis], RATE),
        "transcript": example["text"],
        "speaker": tf.strings.as_string(example["speaker_id"]),
    }
