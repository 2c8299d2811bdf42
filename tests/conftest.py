"""What all tests share: a quiet TensorFlow, seeds, warnings as errors, the folder of real data."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest

# The checks that several tests share explain themselves as a test does.
pytest.register_assert_rewrite("tests.layers")

# Warnings are errors (pyproject.toml) but for these, none of which comes from this project.
EXPECTED_WARNINGS = (
    # Keras's variables under NumPy 2.
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning",
)


def pytest_configure(config):
    for warning in EXPECTED_WARNINGS:
        config.addinivalue_line("filterwarnings", warning)
    if keras.backend.backend() == "jax":
        import jax

        # An eager call compiles the time loop anew each time: what is the same is taken from disk.
        cache = tempfile.TemporaryDirectory()
        config.add_cleanup(cache.cleanup)
        jax.config.update("jax_compilation_cache_dir", cache.name)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.03)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        jax.config.update("jax_disable_most_optimizations", True)


def pytest_runtest_teardown(item):
    """Drop what JAX compiled, now and then: Linux gives a process 65,530 memory maps."""
    if keras.backend.backend() == "jax" and item.session.items.index(item) % 100 == 99:
        import jax

        jax.clear_caches()


@pytest.fixture(autouse=True)
def seeds():
    keras.utils.set_random_seed(0)


@pytest.fixture
def manual_dir() -> Path:
    """The folder of published datasets; a test that needs it is skipped where there is none."""
    folder = os.environ.get("UNROLL_MANUAL_DIR")
    if not folder:
        pytest.skip("UNROLL_MANUAL_DIR names no folder of published datasets")
    return Path(folder)
