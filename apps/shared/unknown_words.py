"""Words that a vocabulary lacks, counted."""

import tensorflow as tf

from unroll.pipelines.errors import report_once
from unroll.pipelines.text import UNKNOWN


def report_unknown(
    split: str,
    dataset: tf.data.Dataset,
    *names: str,
    unknown: int = UNKNOWN,
    special: int = 2,
    what: str = "words",
) -> None:
    """Says on standard error how many words of a split are not in the vocabulary, if there are any.

    It reads the split once. Training reads what the pipeline caches from there.

    Args:
        split: its name.
        dataset: batches of `(features, ...)`.
        *names: of the features that are ids of words, of any shape.
        unknown: the id of all unknown words.
        special: the number of ids that are not of words: those below it, except `unknown`.
        what: what the vocabulary consists of.
    """

    def count(features, *_) -> tuple[tf.Tensor, tf.Tensor]:
        ids = tf.concat([tf.reshape(features[name], [-1]) for name in names], axis=0)
        is_unknown = ids == unknown
        is_word = is_unknown | (ids >= special)
        return tf.math.count_nonzero(is_unknown), tf.math.count_nonzero(is_word)

    counts = list(dataset.map(count, tf.data.AUTOTUNE).as_numpy_iterator())
    missing, total = (int(sum(each)) for each in zip(*counts, strict=True)) if counts else (0, 0)
    if missing:
        report_once(
            f"{split}: {100 * missing / total:.1f} % of {what} are unknown "
            f"({missing:,} of {total:,})."
        )
