"""Settings of all tests: log level, compilation, warnings as errors, seeds, published data."""

import gc
import os
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# XLA compiles four times as fast without optimizations.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_use_fusion_emitters=false",
)

import pytest

# pytest explains failed assertions in the modules of checks as in tests.
pytest.register_assert_rewrite("tests.layers", "tests.apps")

# All warnings are errors (pyproject.toml) except these, none of which comes from this project.
EXPECTED_WARNINGS = (
    # Keras's variables with NumPy 2.
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning",
)

# Apart from those of the apps.
LONG = ("test_packaging.py", "test_bench.py", "test_robustness.py")


def pytest_configure(config):
    for warning in EXPECTED_WARNINGS:
        config.addinivalue_line("filterwarnings", warning)


def pytest_collection_modifyitems(items):
    """Files that take long come first: at the end, no process waits long for another."""
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_collection_finish(session):
    """Prepares a process that runs tests; that which distributes them does not import Keras.

    What was imported and collected is never searched for garbage. JAX stores compiled functions in
    the folder of pytest's cache, for all processes and runs.
    """
    gc.collect()
    gc.freeze()
    if backend() == "tensorflow" and "not exhaustive" in session.config.option.markexpr:
        # Optimizing a graph takes longer than running it once or twice. `make test-all` does both.
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    if backend() == "jax":
        import jax

        folder = session.config.cache.mkdir("jax")
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.03)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def backend() -> str:
    """The name of Keras's backend."""
    import keras

    return keras.backend.backend()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Limits the memory of a process, and the time of Python's garbage collection.

    TensorFlow frees the functions of a file of tests in a collection. What is left is not searched
    again: the conversion to LiteRT collects garbage each time. JAX's caches are cleared every 100
    tests, because Linux limits a process to 65,530 memory maps.
    """
    yield
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()
    if backend() == "jax" and item.session.items.index(item) % 100 == 99:
        import jax

        jax.clear_caches()


@pytest.fixture(scope="module", autouse=True)
def seeds_of_a_file():
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def seeds():
    """Python's, NumPy's and Keras's seeds of each test.

    Not TensorFlow's: `tf.random.set_seed` discards all functions that are ready to run, and the
    tests of a file share them.
    """
    import keras

    if backend() != "tensorflow":
        keras.utils.set_random_seed(0)
        return
    import tensorflow as tf

    with mock.patch.object(tf.random, "set_seed"):
        keras.utils.set_random_seed(0)


@pytest.fixture
def manual_dir() -> Path:
    """The folder of published datasets. Without one, the test is skipped."""
    folder = os.environ.get("UNROLL_MANUAL_DIR")
    if not folder:
        pytest.skip("UNROLL_MANUAL_DIR names no folder of published datasets")
    return Path(folder)
