"""From examples to batches: bucketed by length, shuffled with a seed, prefetched."""

import numpy as np
import tensorflow as tf

from unroll.pipelines.errors import DataError


def batches(
    dataset: tf.data.Dataset,
    length,
    batch_size: int,
    *,
    boundaries: tuple[int, ...] = (),
    shuffle: int | None = None,
    static: bool = False,
) -> tf.data.Dataset:
    """Padded batches in which examples of a like length stand together.

    Args:
        dataset: of `(features, ...)`, tensors of any nesting, a first axis of `None` being time.
        length: a function of an element that gives its length.
        batch_size: B, of every bucket.
        boundaries: the lengths at which a new bucket begins. Within a bucket the order of the
            dataset holds.
        shuffle: a seed; `None` keeps the order. Each epoch has an order of its own, the same ones
            in every run of one seed.
        static: whether every batch has one of few static shapes, as XLA on a TPU wants: B examples
            (the remainder is left out) padded to just below the upper boundary of its bucket.

    Returns:
        The batches, prefetched, of a known number. Padding is zero.

    Raises:
        DataError: if shapes are to be static and an example reaches the last boundary.
    """
    # One pass ahead counts the batches (and fills the dataset's cache, where it has one), so that
    # a progress bar knows its end.
    lengths = np.fromiter((dataset.map(length)).as_numpy_iterator(), "int64")
    if static and max(lengths, default=0) >= max(boundaries, default=0):
        raise DataError(
            f"Static shapes need every length below the last boundary, {max(boundaries, default=0)}"
            f"; the longest example has {max(lengths, default=0)}."
        )
    per_bucket = np.bincount(np.digitize(lengths, boundaries))
    count = int(np.sum(per_bucket // batch_size if static else -(-per_bucket // batch_size)))
    if shuffle is not None:
        dataset = dataset.shuffle(max(len(lengths), 1), seed=shuffle, reshuffle_each_iteration=True)
    if boundaries:
        dataset = dataset.bucket_by_sequence_length(
            length,
            bucket_boundaries=list(boundaries),
            bucket_batch_sizes=[batch_size] * (len(boundaries) + 1),
            drop_remainder=static,
            pad_to_bucket_boundary=static,
        )
    else:
        dataset = dataset.padded_batch(batch_size, drop_remainder=static)
    if shuffle is not None and boundaries:
        # A bucket fills at its own pace: without this, long batches would come late in an epoch.
        dataset = dataset.shuffle(256, seed=shuffle, reshuffle_each_iteration=True)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
    return dataset.prefetch(tf.data.AUTOTUNE)
