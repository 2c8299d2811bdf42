"""The rules of imports: one direction, no cycles, backends and private names in their own files."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("layers", "pipelines", "apps")
FOLDERS = (*PACKAGES, "unroll", "tests", "benchmarks")
BACKENDS = {
    "tensorflow": "tensorflow",
    "onnx": "tensorflow",  # the converter reads TensorFlow's graphs
    "tf2onnx": "tensorflow",
    "jax": "jax",
    "torch": "torch",
    "kenlm": "kenlm",
}
# What `pip install unroll-keras` brings.
OF_LAYERS = {"keras", "numpy", "unroll", *sys.stdlib_module_names}
# The files that use private names of other libraries, since there is no public way.
PRIVATE = {
    "layers/recurrent/keras_private.py",
    "apps/core/distribution.py",
    "apps/reading_comprehension/network.py",
}
# Attributes with a leading underscore that are documented.
DOCUMENTED = {"_replace", "_asdict", "_fields", "_exit"}


def imported(source: str) -> set[str]:
    """The dotted names that a file imports, anywhere in the file."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            # The name is a module or something in a module.
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def private_names(source: str) -> set[str]:
    """The private attributes of other objects, and private modules of Keras."""
    tree = ast.parse(source)
    attributes = {
        (node.attr, "super()" in ast.unparse(node.value))
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }
    # Those of another object of a class of this file.
    own = {
        node.name
        for cls in ast.walk(tree)
        if isinstance(cls, ast.ClassDef)
        for node in cls.body
        if isinstance(node, ast.FunctionDef)
    }
    found = {
        name
        for name, inherited in attributes
        if name not in DOCUMENTED and (inherited or name not in own)
    }
    modules = {name for name in imported(source) if name.startswith(("keras.src", "keras._"))}
    spelled = {"keras.src"} if "keras.src" in source else set()
    return found | modules | spelled


def violations(path: str, source: str) -> list[str]:
    """The imports and private names of a file that break a rule, each with the rule."""
    package, *inside = Path(path).with_suffix("").parts
    found = []
    for name in sorted(imported(source)):
        first, *rest = name.split(".")
        target = rest[0] if first == "unroll" and rest else ""
        if first in PACKAGES:
            found.append(f"{name}: import it as unroll.{first}")
        if package in ("tests", "benchmarks"):
            continue
        if name.startswith("."):
            found.append(f"{name}: imports are absolute")
        if first in ("tests", "benchmarks"):
            found.append(f"{name}: tests and benchmarks are not part of the packages")
        if package in ("layers", "pipelines") and target in PACKAGES and target != package:
            found.append(f"{name}: {package} must not import {target}")
        if package == "apps" and target == "apps" and len(inside) > 1:
            part, other = inside[0], rest[1] if len(rest) > 1 else ""
            allowed = {"core": ("core",), "shared": ("core", "shared")}
            if other not in allowed.get(part, ("core", "shared", part)):
                found.append(f"{name}: {part} must not import {other}")
        if package == "apps" and "examples" in inside and first == "unroll":
            found.append(f"{name}: a client of an export does not have this project")
        if package == "layers":
            backend = BACKENDS.get(first)
            if backend and not path.endswith(f"_{backend}.py"):
                found.append(f"{name}: belongs in a file named *_{backend}.py")
            if not backend and first and first not in OF_LAYERS:
                found.append(f"{name}: layers need only Keras and NumPy")
    if package in PACKAGES and path not in PRIVATE:
        found += [f"{name}: is private" for name in sorted(private_names(source))]
    return found


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """The files that each file imports. The packages that contain a module do not count."""

    def file_of(name: str) -> str | None:
        path = name.removeprefix("unroll.").replace(".", "/")
        return next((p for p in (f"{path}.py", f"{path}/__init__.py") if p in sources), None)

    graph = {}
    for path, source in sources.items():
        names = [name for name in imported(source) if name.startswith("unroll.")]
        files = {file_of(name) or file_of(name.rpartition(".")[0]) for name in names}
        graph[path] = files - {None}
    return graph


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """A cycle for each import that closes one."""
    found, done = [], set()

    def visit(path: str, trail: list[str]) -> None:
        if path in trail:
            found.append([*trail[trail.index(path) :], path])
        elif path not in done:
            for other in sorted(graph[path]):
                visit(other, [*trail, path])
            done.add(path)

    for path in sorted(graph):
        visit(path, [])
    return found


SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
}
OF_PACKAGES = {path: text for path, text in SOURCES.items() if path.split("/")[0] in PACKAGES}


@pytest.mark.parametrize(
    ("folder", "least"),
    [
        ("layers", 30),
        ("pipelines", 30),
        ("apps", 60),
        ("apps/core", 15),
        ("apps/shared", 5),
        ("apps/sentiment", 6),
        ("unroll", 2),
        ("tests", 40),
        ("benchmarks", 8),
    ],
)
def test_there_are_files_to_check(folder, least):
    assert sum(path.startswith(f"{folder}/") for path in SOURCES) >= least


@pytest.mark.parametrize("path", SOURCES)
def test_a_file_keeps_the_rules(path):
    assert violations(path, SOURCES[path]) == []


def test_no_files_import_each_other():
    graph = import_graph(OF_PACKAGES)
    assert sum(map(len, graph.values())) > len(graph)
    assert "layers/recurrent/recurrence.py" in graph["layers/recurrent/cell.py"]
    assert cycles(graph) == []


def test_files_with_private_names_exist_and_use_them():
    for path in PRIVATE:
        assert private_names(SOURCES[path])


@pytest.mark.parametrize(
    ("path", "source", "rule"),
    [
        ("layers/a.py", "import layers", "unroll.layers"),
        ("apps/a/app.py", "from pipelines import text", "unroll.pipelines"),
        ("tests/apps/test_a.py", "def f():\n    import apps.core", "unroll.apps"),
        ("benchmarks/a.py", "from layers.recurrent import LSTM", "unroll.layers"),
        ("unroll/a.py", "from apps import core", "unroll.apps"),
        ("layers/a.py", "from . import b", "absolute"),
        ("layers/a.py", "import unroll.pipelines.text", "must not import pipelines"),
        ("layers/a.py", "def f():\n    from unroll.apps.core import cli", "must not import apps"),
        ("layers/a.py", "from unroll import pipelines", "must not import pipelines"),
        ("pipelines/a.py", "from unroll.layers import LSTM", "must not import layers"),
        ("pipelines/datasets/a.py", "from unroll.apps import sentiment", "must not import apps"),
        ("apps/sentiment/app.py", "from unroll.apps.vqa import app", "must not import vqa"),
        ("apps/sentiment/app.py", "from unroll.apps import vqa", "must not import vqa"),
        ("apps/core/cli.py", "import unroll.apps.sentiment.app", "must not import sentiment"),
        ("apps/core/cli.py", "from unroll.apps.shared import images", "must not import shared"),
        ("apps/shared/a.py", "from unroll.apps.vqa import app", "must not import vqa"),
        ("apps/core/cli.py", "from tests.apps import toy", "not part of the packages"),
        ("apps/a/examples/serving.py", "from unroll.apps.core import x", "a client"),
        ("layers/recurrent/a.py", "import tensorflow as tf", "_tensorflow.py"),
        ("layers/a_jax.py", "from tensorflow.python import ops", "_tensorflow.py"),
        ("layers/a.py", "from jax import numpy", "_jax.py"),
        ("layers/a.py", "import torch", "_torch.py"),
        ("layers/a.py", "def f():\n    import tf2onnx", "_tensorflow.py"),
        ("layers/a.py", "import scipy.special", "only Keras and NumPy"),
        ("layers/a.py", "def f():\n    from tensorflow_text import x", "only Keras and NumPy"),
        ("layers/a.py", "from keras.src.layers import rnn", "private"),
        ("layers/a.py", "from keras import src\nx = 'keras.src'", "private"),
        ("pipelines/a.py", "import keras\nkeras.src.backend", "private"),
        ("apps/a/app.py", "def f(model):\n    model._symbolic_build()", "_symbolic_build"),
        (
            "apps/a/app.py",
            "class A:\n    def _clip(self):\n        super()._clip()",
            "_clip: is private",
        ),
    ],
)
def test_a_violation_is_found(path, source, rule):
    found = violations(path, source)
    assert len(found) >= 1
    assert any(rule in each for each in found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("apps/a/app.py", "from unroll import layers, pipelines\nfrom unroll.apps.core import x"),
        ("apps/a/app.py", "from unroll.apps.a import metrics\nimport tensorflow as tf"),
        ("apps/a/app.py", "from unroll.apps.shared import images"),
        (
            "apps/shared/a.py",
            "from unroll.apps.core import results\nfrom unroll.apps.shared import b",
        ),
        ("apps/demo.py", "from unroll.apps.sentiment.app import examples"),
        ("apps/a/examples/litert.py", "import numpy as np"),
        ("layers/a_tensorflow.py", "import tensorflow as tf\nfrom unroll.layers import b"),
        ("layers/a.py", "import math\nimport keras\nimport numpy as np"),
        ("layers/a.py", "class A:\n    def _f(self, other):\n        return self._g + other._f()"),
        ("layers/recurrent/keras_private.py", "from keras.src.layers import rnn"),
        ("tests/apps/test_a.py", "from unroll.apps import vqa\nfrom tests.apps import toy"),
    ],
)
def test_what_is_allowed_is_not_a_violation(path, source):
    assert violations(path, source) == []


def test_a_cycle_is_found():
    sources = {
        "layers/__init__.py": "from unroll.layers.a import A",
        "layers/a.py": "from unroll.layers.b import B",
        "layers/b.py": "def f():\n    from unroll.layers import a",
        "layers/c.py": "from unroll.layers.a import A",
        "layers/d.py": "from unroll import layers",
    }
    graph = import_graph(sources)
    assert graph["layers/d.py"] == {"layers/__init__.py"}
    assert cycles(graph) == [["layers/a.py", "layers/b.py", "layers/a.py"]]
    through_package = sources | {"layers/b.py": "from unroll.layers import A"}
    assert cycles(import_graph(through_package)) == [
        ["layers/__init__.py", "layers/a.py", "layers/b.py", "layers/__init__.py"]
    ]
    assert cycles(import_graph(sources | {"layers/b.py": "import keras"})) == []
