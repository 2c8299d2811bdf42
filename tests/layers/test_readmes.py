"""The READMEs: their examples run, and they name all layers and functions."""

import re
from pathlib import Path

import keras
import pytest

from unroll import layers

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("path", ["README.md", "layers/README.md"])
def test_examples_run(path):
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)
    for block in blocks:
        if "saved_models/" not in block:  # needs an export
            exec(compile(block, path, "exec"), names)
    models = [x for x in names.values() if isinstance(x, keras.Model)]
    assert models
    assert all(model.count_params() > 0 for model in models)


def is_layer(name: str) -> bool:
    found = getattr(layers, name)
    return isinstance(found, type) and issubclass(found, keras.layers.Layer)


def test_the_readme_describes_each_layer():
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| (`.*?`) \|.*\|.*\S.*\|$", text, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named >= {
        name for name in layers.__all__ if is_layer(name) and not name.endswith("Cell")
    }


def test_the_readmes_name_all_functions():
    text = (ROOT / "README.md").read_text() + (ROOT / "layers/README.md").read_text()
    functions = [
        name for name in layers.__all__ if callable(getattr(layers, name)) and name[0].islower()
    ]
    assert functions
    assert all(name in text for name in functions)
