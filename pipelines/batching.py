"""Examples to batches: bucketed by length, shuffled with a seed, prefetched."""

import numpy as np
import tensorflow as tf

from unroll.pipelines.errors import DataError

# Without the autotuning of tf.data. Whoever ends an iterator waits for the thread that tunes it,
# which now and then sleeps on, for as long as the iterator has existed, up to a minute (TensorFlow
# 2.21).
OPTIONS = tf.data.Options()
OPTIONS.autotune.enabled = False


def prefetched(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The last step of a pipeline: two batches are made ahead, with `OPTIONS`."""
    return dataset.prefetch(2).with_options(OPTIONS)


def batches(
    dataset: tf.data.Dataset,
    length,
    batch_size: int,
    *,
    boundaries: tuple[int, ...] = (),
    shuffle: int | None = None,
    static: bool = False,
    lengths: np.ndarray | None = None,
    buffer: int | None = None,
) -> tf.data.Dataset:
    """Padded batches of examples of similar lengths.

    Args:
        dataset: of `(features, ...)`, nested tensors. A first axis of `None` is time.
        length: a function that returns the length of an element.
        batch_size: B, in every bucket.
        boundaries: the lengths at which a new bucket begins. The order of the dataset is kept
            within a bucket.
        shuffle: a seed. The order is different in each epoch, and reproducible. `None` keeps the
            order.
        static: whether the batches have few different shapes, as XLA on a TPU needs: B examples
            (a smaller batch is dropped) padded to the upper boundary of the bucket minus 1.
        lengths: of all examples, if they are known; otherwise a first pass over the dataset
            computes them.
        buffer: the number of examples that a shuffle holds, by default all. The order is less
            random if it is smaller than the dataset.

    Returns:
        The batches, prefetched, with a known cardinality, padded with zeros.

    Raises:
        DataError: if `static` is set and an example is not shorter than the last boundary.
    """
    # The number of batches is for progress bars. The pass also fills the cache of the dataset.
    if lengths is None:
        lengths = np.fromiter((dataset.map(length)).as_numpy_iterator(), "int64")
    if static and max(lengths, default=0) >= max(boundaries, default=0):
        raise DataError(
            "Static shapes need lengths below the last boundary, "
            f"{max(boundaries, default=0)}; the longest example has {max(lengths, default=0)}."
        )
    per_bucket = np.bincount(np.digitize(lengths, boundaries))
    count = int(np.sum(per_bucket // batch_size if static else -(-per_bucket // batch_size)))
    size = max(len(lengths), 1) if buffer is None else max(1, min(len(lengths), buffer))

    def epoch(seeds=None) -> tf.data.Dataset:
        made = dataset if seeds is None else dataset.shuffle(size, seed=seeds[0])
        if not boundaries:
            return made.padded_batch(batch_size, drop_remainder=static)
        made = made.bucket_by_sequence_length(
            length,
            bucket_boundaries=list(boundaries),
            bucket_batch_sizes=[batch_size] * (len(boundaries) + 1),
            drop_remainder=static,
            pad_to_bucket_boundary=static,
        )
        # Rare lengths fill their buckets late: without this, they would come late in an epoch.
        of_batches = 256 if buffer is None else min(256, max(1, buffer // batch_size))
        return made if seeds is None else made.shuffle(of_batches, seed=seeds[1])

    def shuffled_epoch(seeds) -> tf.data.Dataset:
        # In this function only. TensorFlow would compare a global seed of 0 with unknown seeds.
        tf.random.set_seed(1)
        return epoch(seeds)

    if shuffle is None:
        dataset = epoch()
    else:
        # An iterator takes its seeds when it is made, not when it is first read: a resumed training
        # skips the finished epochs without reading an example.
        seeds = tf.data.Dataset.random(shuffle, rerandomize_each_iteration=True).batch(2).take(1)
        dataset = seeds.flat_map(shuffled_epoch)
    return prefetched(dataset.apply(tf.data.experimental.assert_cardinality(count)))
