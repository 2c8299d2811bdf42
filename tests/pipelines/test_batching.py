"""Batches."""

import numpy as np
import pytest
import tensorflow as tf

from unroll.pipelines.batching import batches
from unroll.pipelines.errors import DataError

LENGTHS = [3, 9, 1, 4, 12, 2, 7, 5, 3, 11, 6, 2, 8, 10]


def examples():
    def generate():
        for number, length in enumerate(LENGTHS):
            yield {"ids": np.full(length, number + 1, "int32")}, number

    signature = (
        {"ids": tf.TensorSpec([None], tf.int32)},
        tf.TensorSpec([], tf.int32),
    )
    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(len(LENGTHS)))


def length(features, _):
    return tf.shape(features["ids"])[0]


def numbers(dataset):
    return [y for _, ys in dataset for y in ys.numpy().tolist()]


def test_each_example_occurs_once_with_its_own_padding():
    dataset = batches(examples(), length, 3, boundaries=(4, 8), shuffle=1)
    order = []
    for features, ys in dataset:
        ids = features["ids"].numpy()
        for row, y in zip(ids, ys.numpy(), strict=True):
            assert row.tolist() == [y + 1] * LENGTHS[y] + [0] * (len(row) - LENGTHS[y])
            order.append(y)
        buckets = {np.digitize(LENGTHS[y], (4, 8)) for y in ys.numpy()}
        assert len(buckets) == 1
    assert sorted(order) == list(range(len(LENGTHS)))


def test_order_is_kept_without_buckets():
    assert numbers(batches(examples(), length, 4)) == list(range(len(LENGTHS)))


def test_epochs_differ_and_are_reproducible():
    first, again, other = (
        batches(examples(), length, 2, boundaries=(6,), shuffle=seed) for seed in (5, 5, 6)
    )
    epochs = [numbers(first) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert [numbers(again) for _ in range(3)] == epochs
    assert numbers(other) != epochs[0]


def test_static_shapes():
    dataset = batches(examples(), length, 2, boundaries=(4, 8, 13), shuffle=0, static=True)
    shapes = {features["ids"].shape.as_list()[1] for features, _ in dataset}
    assert shapes <= {3, 7, 12}
    assert all(len(ys) == 2 for _, ys in dataset)


def test_example_that_is_too_long_for_static_shapes():
    with pytest.raises(DataError, match="below the last boundary, 12; the longest example has 12"):
        batches(examples(), length, 2, boundaries=(4, 12), static=True)


def test_known_lengths_take_no_pass_and_a_buffer_limits_the_shuffle():
    started = []

    def counted(example, number):
        tf.numpy_function(lambda n: started.append(int(n)), [number], [])
        return example, number

    dataset = examples().map(counted)
    made = batches(dataset, length, 2, lengths=np.array(LENGTHS), shuffle=1, buffer=3)
    assert (len(made), started) == (7, [])
    order = numbers(made)
    assert sorted(order) == list(range(len(LENGTHS)))
    assert order != sorted(order)
    assert all(number <= place + 2 for place, number in enumerate(order))
