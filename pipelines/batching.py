"""From examples to batches: bucketed by length, shuffled with a seed, prefetched."""

import tensorflow as tf


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
            (the remainder is left out) padded to the upper boundary of its bucket. The last
            boundary must then exceed every length.

    Returns:
        The batches, prefetched. Padding is zero.
    """
    if shuffle is not None:
        count = int(dataset.cardinality())
        buffer = count if count > 0 else 100_000
        dataset = dataset.shuffle(buffer, seed=shuffle, reshuffle_each_iteration=True)
    if boundaries:
        dataset = dataset.bucket_by_sequence_length(
            lambda *element: length(*element),
            bucket_boundaries=list(boundaries),
            bucket_batch_sizes=[batch_size] * (len(boundaries) + 1),
            drop_remainder=static,
            pad_to_bucket_boundary=static,
        )
    else:
        dataset = dataset.padded_batch(batch_size, drop_remainder=static)
    if shuffle is not None and boundaries:
        # A bucket fills at its own pace: without this, long batches would come late in an epoch.
        dataset = dataset.shuffle(64, seed=shuffle, reshuffle_each_iteration=True)
    return dataset.prefetch(tf.data.AUTOTUNE)
