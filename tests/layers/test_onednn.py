"""The cache that oneDNN's primitives share between threads, which corrupts memory, is off."""

import os
import platform
import subprocess
import sys

import pytest

from tests.layers import running

# TensorFlow's own cache is one for each thread: the second thread asks oneDNN for a primitive that
# the first one had made.
PRODUCTS_IN_TWO_THREADS = """
import threading
import tensorflow as tf
from unroll import layers

left, right = tf.ones([4, 5, 6]), tf.ones([4, 6, 7])
for _ in range(2):
    thread = threading.Thread(target=lambda: tf.matmul(left, right))
    thread.start()
    thread.join()
"""


@pytest.mark.skipif(running.BACKEND != "tensorflow", reason="TensorFlow's products alone")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN is off here")
@pytest.mark.parametrize(("chosen", "shared"), [(None, 0), ("1024", 1)])
def test_threads_share_no_primitive_unless_the_user_says_so(chosen, shared):
    environment = {k: v for k, v in os.environ.items() if k != "ONEDNN_PRIMITIVE_CACHE_CAPACITY"}
    environment |= {"KERAS_BACKEND": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "1"}
    environment |= {"ONEDNN_VERBOSE": "profile_create", "CUDA_VISIBLE_DEVICES": "-1"}
    if chosen is not None:
        environment["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = chosen
    told = subprocess.run(
        [sys.executable, "-c", PRODUCTS_IN_TWO_THREADS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    ).stdout
    made = [line for line in told.splitlines() if ",matmul," in line and "4x5x6:4x6x7" in line]
    assert len(made) == 2
    assert sum("cache_hit" in line for line in made) == shared
