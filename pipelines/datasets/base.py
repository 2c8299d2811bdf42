"""What the builders here share."""

from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder that looks for its files in a manual folder of its own kind.

    Args:
        manual_dir: that folder; the environment variable `UNROLL_MANUAL_DIR` by default.
        **kwargs: as in `tfds.core.DatasetBuilder`, such as `data_dir`.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, manual_dir: str | Path | None = None, **kwargs):
        self.manual_dir = manual_dir
        super().__init__(**kwargs)


class TextClassification(Builder, skip_registration=True):
    """Texts with a label each. A subclass names its labels and generates the examples."""

    LABELS: tuple[str, ...] = ()
    HOMEPAGE = ""
    CITATION = ""

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {"text": tf.string, "label": tfds.features.ClassLabel(names=list(self.LABELS))}
            ),
            supervised_keys=("text", "label"),
            homepage=self.HOMEPAGE or None,
            citation=self.CITATION or None,
        )
