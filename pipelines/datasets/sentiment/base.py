"""What the datasets of labeled texts share."""

import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Builder


class TextClassification(Builder, skip_registration=True):
    """Texts with one label each. A subclass sets the labels and generates the examples."""

    LABELS: tuple[str, ...] = ()
    SUPERVISED_KEYS = ("text", "label")

    def _features(self) -> dict:
        return {"text": tf.string, "label": tfds.features.ClassLabel(names=list(self.LABELS))}
