"""The primitive cache of oneDNN is off where TensorFlow would corrupt memory, and only there."""

import os
import platform
import subprocess
import sys

import pytest

from tests.layers import running

VARIABLE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
PRINT_VARIABLE = f"import os, unroll.layers; print(os.environ.get({VARIABLE!r}))"
# TensorFlow has a cache for each thread, so the second thread requests from oneDNN a primitive that
# the first thread created.
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


def output_of(code: str, backend: str, **environment: str) -> str:
    """The standard output of a Python program in a new process without a GPU."""
    inherited = {k: v for k, v in os.environ.items() if k != VARIABLE}
    inherited |= {"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    ).stdout


@pytest.mark.skipif(running.BACKEND != "tensorflow", reason="only TensorFlow has this defect")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN is off here")
@pytest.mark.parametrize(
    ("user_value", "shared"),
    [(None, 0), pytest.param("1024", 1, marks=pytest.mark.exhaustive)],
)
@pytest.mark.exhaustive
def test_threads_share_no_primitive_unless_the_user_sets_the_variable(user_value, shared):
    environment = {"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_VERBOSE": "profile_create"}
    if user_value is not None:
        environment[VARIABLE] = user_value
    printed = output_of(PRODUCTS_IN_TWO_THREADS, "tensorflow", **environment)
    created = [x for x in printed.splitlines() if ",matmul," in x and "4x5x6:4x6x7" in x]
    assert len(created) == 2
    assert sum("cache_hit" in line for line in created) == shared


@pytest.mark.skipif(running.BACKEND != "jax", reason="imports the layers on the JAX backend")
def test_the_variable_is_not_set_on_another_backend():
    assert output_of(PRINT_VARIABLE, "jax").split() == ["None"]


@pytest.mark.skipif(running.BACKEND != "tensorflow", reason="the module imports TensorFlow")
@pytest.mark.parametrize(
    ("version", "device_types", "affected"),
    [
        ("2.21.0", ["CPU"], True),
        ("2.21.1", ["CPU"], True),
        ("2.20.0", ["CPU"], True),
        ("2.22.0", ["CPU"], False),
        ("2.2.0", ["CPU"], False),
        ("2.21.0", ["CPU", "GPU"], False),
        ("2.21.0", ["CPU", "TPU"], False),
    ],
)
def test_affected_versions_and_devices(version, device_types, affected, monkeypatch):
    from unroll.layers import onednn_tensorflow

    assert onednn_tensorflow.is_affected(version, device_types) == affected

    class Device:
        def __init__(self, device_type):
            self.device_type = device_type

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(onednn_tensorflow.tf, "__version__", version)
    monkeypatch.setattr(
        onednn_tensorflow.tf.config,
        "list_physical_devices",
        lambda: [Device(device_type) for device_type in device_types],
    )
    onednn_tensorflow.turn_off_primitive_cache()
    assert os.environ.get(VARIABLE) == ("0" if affected else None)
