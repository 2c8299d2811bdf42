"""What the datasets of plain text share."""

from typing import ClassVar

import tensorflow as tf

from unroll.pipelines.datasets.base import Builder


class PlainText(Builder, skip_registration=True):
    """A text, as consecutive pieces that end at the end of a line.

    The text of a split is the concatenation of its pieces, in their order. A subclass generates
    them, with their number as the key.
    """

    FEATURES: ClassVar[dict] = {"text": tf.string}
    ORDERED = True
