"""The examples in docstrings."""

import doctest
import importlib
import pkgutil

import pytest

import unroll
from unroll import apps, layers, pipelines

# Needs the PyTorch backend.
SKIPPED = {"unroll.layers.backend_torch"}


def modules() -> list[str]:
    """The names of all modules with an example in a docstring."""
    names = []
    for package in (layers, pipelines, apps):
        walk = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        for info in walk:
            spec = info.module_finder.find_spec(info.name)
            if spec.loader.get_source(info.name).find(">>> ") >= 0:
                names.append(info.name)
    return [name for name in names if name not in SKIPPED]


@pytest.mark.parametrize("name", modules())
def test_examples(name):
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert attempted
    assert not failed


def test_there_are_examples():
    assert len(modules()) > 30
    assert unroll.__version__
