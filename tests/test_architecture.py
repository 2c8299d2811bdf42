"""Imports point one way, and a backend is named only in files named for it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("apps", "layers", "pipelines")
BACKENDS = {"tf": "tensorflow", "tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}


def imported(source: str) -> set[str]:
    """The dotted names of all modules that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            # `from apps import sentiment` imports a module, `from apps.core.cli import main` a name
            # in one: both are found by their beginning.
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def violations(path: str, source: str) -> list[str]:
    """What a file of one of the packages imports and must not, each with the rule."""
    package, *inside = Path(path).with_suffix("").parts
    app = inside[0] if package == "apps" and len(inside) > 1 else None
    found = []
    for name in sorted(imported(source)):
        parts = name.split(".")
        if name.startswith("."):
            found.append(f"{name}: imports are absolute")
        if parts[0] in PACKAGES and package != "apps" and parts[0] != package:
            found.append(f"{name}: {package} knows nothing of {parts[0]}")
        if parts[0] == "tests":
            found.append(f"{name}: tests are no part of the packages")
        if app and parts[0] == "apps" and len(parts) > 1 and parts[1] not in (app, "core"):
            found.append(f"{name}: {app} knows nothing of {parts[1]}")
        backend = BACKENDS.get(parts[0])
        if package == "layers" and backend and not path.endswith(f"_{backend}.py"):
            found.append(f"{name}: belongs in a file named *_{backend}.py")
    return found


FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
)


@pytest.mark.parametrize("path", FILES)
def test_imports_point_one_way(path):
    assert violations(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("layers/a.py", "import pipelines.text"),
        ("layers/a.py", "def f():\n    from apps.core import cli"),
        ("layers/recurrent/a.py", "import tensorflow as tf"),
        ("layers/recurrent/a_jax.py", "from tensorflow.python import ops"),
        ("layers/a.py", "from jax import numpy"),
        ("layers/a.py", "from . import b"),
        ("pipelines/a.py", "from unroll.layers import LSTM"),
        ("pipelines/datasets/a.py", "from unroll.apps import sentiment"),
        ("apps/sentiment/app.py", "from unroll.apps.vqa import app"),
        ("apps/sentiment/app.py", "from unroll.apps import vqa"),
        ("apps/core/cli.py", "import apps.sentiment.app"),
        ("apps/core/cli.py", "from tests.apps import toy"),
    ],
)
def test_what_points_the_other_way_is_found(path, source):
    assert violations(path, source)


def test_what_is_allowed_is_not():
    assert not violations("apps/a/app.py", "import layers, pipelines.text\nfrom apps.core import x")
    assert not violations("apps/a/app.py", "from unroll.apps.a import app\nimport tensorflow as tf")
    assert not violations("layers/a_tensorflow.py", "import tensorflow as tf\nfrom layers import b")
    assert not violations("apps/demo.py", "from unroll.apps.sentiment.app import EXAMPLES")
