"""LibriSpeech (Panayotov et al. 2015) by TFDS's own builder: a hundred hours of training data."""

from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds

from pipelines.datasets.sources import Source, require_reachable
from pipelines.errors import DataError

NAME = "librispeech"
SPLITS = {"train": "train_clean100", "valid": "dev_clean", "test": "test_clean"}
RATE = 16_000
ARCHIVE = Source(
    NAME, "train-clean-100.tar.gz", "https://www.openslr.org/resources/12/train-clean-100.tar.gz"
)


def builder(
    *, manual_dir: str | Path | None = None, data_dir: str | Path | None = None
) -> tfds.core.DatasetBuilder:
    """TFDS's builder, which downloads all of LibriSpeech, 57 GB, where it was not prepared yet.

    Raises:
        DataError: one line, if it has to be downloaded and cannot be.
    """
    made = tfds.builder(NAME, data_dir=data_dir, try_gcs=False)
    if not made.is_prepared():
        try:
            require_reachable(ARCHIVE, manual_dir)
        except DataError as error:
            why = str(error).partition(": put")[0]
            raise DataError(f"{why}: name a folder of its unpacked archives instead.") from None
    return made


def recording(example: dict) -> dict:
    """An example as the other datasets of recordings have it: a wav file, what is said, by whom."""
    samples = tf.cast(example["speech"], tf.float32) / 2**15
    return {
        "audio": tf.audio.encode_wav(samples[:, tf.newaxis], RATE),
        "transcript": example["text"],
        "speaker": tf.strings.as_string(example["speaker_id"]),
    }
