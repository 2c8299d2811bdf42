"""What the datasets of recordings share."""

from typing import ClassVar

import tensorflow as tf

from unroll.pipelines.datasets.base import Builder

DIGITS = "zero one two three four five six seven eight nine".split()


class Speech(Builder, skip_registration=True):
    """Wav files as bytes, with their transcripts and speakers."""

    FEATURES: ClassVar = {"audio": tf.string, "transcript": tf.string, "speaker": tf.string}
