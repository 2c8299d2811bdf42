"""Batches of any size, for exports."""

from collections.abc import Callable

import tensorflow as tf


def for_any_batch(function: Callable[[dict], dict], strings: dict[str, bytes]) -> Callable:
    """A function of batches that also takes a batch without examples.

    Some operations refuse such a batch. The function gets one example instead, of zeros, and its
    outputs are removed.

    Args:
        function: from and to tensors by name, whose first axis is the batch.
        strings: the value of each input of strings in that example.
    """

    def call(inputs: dict) -> dict:
        count = tf.shape(next(iter(inputs.values())))[0]
        missing = tf.maximum(1 - count, 0)
        some = {name: _append(x, missing, strings.get(name)) for name, x in inputs.items()}
        return {name: x[:count] for name, x in function(some).items()}

    return call


def _append(x, missing, string: bytes | None):
    # Not `tf.pad`, after which the converter to LiteRT does not know the last axes.
    shape = tf.concat([[missing], tf.shape(x)[1:]], axis=0)
    value = tf.constant(string) if x.dtype == tf.string else tf.zeros([], x.dtype)
    return tf.concat([x, tf.fill(shape, value)], axis=0)
