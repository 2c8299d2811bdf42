"""The wheel, its dependencies, and imports in environments that lack some of them."""

import ast
import csv
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Inside the project's own packages, at run time.
PACKAGES = ("layers", "pipelines", "apps", "unroll")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The Python of an environment with the wheel, and the dependencies of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    site = sysconfig.get_path("purelib", "venv", {"base": str(folder)})
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", site]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


@pytest.fixture
def user_folder(tmp_path) -> Path:
    """A folder with modules of a user that have the names of the packages."""
    (tmp_path / "layers.py").write_text("MINE = True\n")
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "__init__.py").write_text("MINE = True\n")
    return tmp_path


def run(python, *arguments: str, cwd: Path, **environment: str) -> str:
    """Runs Python and returns its standard output."""
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | environment
    done = subprocess.run(
        [str(python), *arguments], cwd=cwd, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_wheel_contains_all_that_a_user_needs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    expected = {
        name if name.startswith("unroll/") else f"unroll/{name}"
        for name in tracked
        if (ROOT / name).exists()
    }
    assert {"unroll/apps/vqa/README.md", "unroll/apps/vqa/results.json"} <= expected
    assert expected <= names
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"unroll"}


# Five commands in one process, which imports TensorFlow once. The export is checked in another.
VERBS = """
import sys

import layers, apps
import unroll.layers
from unroll.__main__ import main

assert layers.MINE and apps.MINE
print(unroll.layers.__file__)
small = ["--generated-size=0.02", "--epochs=1", "--units=4", "--embedding-dim=4"]
for arguments in (
    ["train", *small, "--run=run"],
    ["evaluate", "run"],
    ["card", "run"],
    ["export", "run"],
    ["evaluate", "run", "--record"],
):
    sys.argv = ["unroll", "sentiment", *arguments]
    code = main()
    if code:
        sys.exit(code)
    print("=====")
"""


def test_an_installed_app_works_next_to_a_user_s_own_modules(installed, user_folder):
    assert "sentiment" in run(installed, "-m", "unroll", cwd=user_folder)
    (user_folder / "verbs.py").write_text(VERBS)
    done = subprocess.run(
        [str(installed), "verbs.py"], cwd=user_folder, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr[-2000:]
    *_, message = [line for line in done.stderr.splitlines() if line.startswith("unroll: ")]
    assert "installed copy" in message
    trained, figures, card, exported = done.stdout.split("=====\n")[:4]
    assert card == "run/README.md\n"
    assert "## Limits" in (user_folder / "run" / "README.md").read_text()
    path, *_ = trained.splitlines()
    assert Path(path).is_relative_to(installed.parent.parent)
    assert trained.splitlines()[-1] == "run"
    assert json.loads(figures)["examples"] == 20
    folder = user_folder / exported.splitlines()[-1]
    assert (folder / "saved_model.pb").is_file()
    assert (folder / "model.tflite").is_file()


def test_bare_imports_say_what_to_write(tmp_path):
    for name in ("layers", "pipelines", "apps"):
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert f"ImportError: Import this package as `unroll.{name}`" in done.stderr


# Blocks the import of some packages, and trains a layer.
WITHOUT = """
import sys


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Blocked())

import keras
import numpy as np
from unroll import layers

model = keras.Sequential([layers.LSTM(4), keras.layers.Dense(1)])
model.compile("sgd", "mse", run_eagerly=keras.backend.backend() == "tensorflow")
model.fit(np.ones((4, 5, 3)), np.ones((4, 1)), verbose=0)
assert not {blocked!r} & {{name.partition(".")[0] for name in sys.modules}}
print(keras.backend.backend())
"""
# Loads a model without TensorFlow.
LOADS = """
import sys

import unroll

assert not {"tensorflow", "keras", "numpy", "unroll.apps"} & set(sys.modules)
sys.modules["tensorflow"] = None
try:
    unroll.load("a_folder")
except ModuleNotFoundError as error:
    print(error)
"""


def test_importing_unroll_imports_nothing_and_load_says_which_extra_is_missing(tmp_path):
    assert run(sys.executable, "-c", LOADS, cwd=tmp_path) == (
        "unroll.load needs the package tensorflow: pip install 'unroll-keras[apps]'.\n"
    )


APPS = {"tensorflow_text", "tensorflow_datasets", "tyro", "matplotlib", "sklearn"}


@pytest.mark.parametrize(
    ("backend", "blocked"), [("tensorflow", APPS), ("jax", APPS | {"tensorflow"})]
)
def test_layers_need_keras_numpy_and_a_backend_only(backend, blocked, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WITHOUT.format(blocked=blocked))
    output = run(sys.executable, str(script), cwd=tmp_path, KERAS_BACKEND=backend)
    assert output.split()[-1] == backend


def test_the_command_says_which_extra_is_missing(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nsys.modules['tyro'] = None\n"
        "from unroll.__main__ import main\nsys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "unroll: the apps need the package tyro: pip install 'unroll-keras[apps]'.\n"
    )


def third_party(folder: str) -> set[str]:
    """The top-level names of the third-party modules that the files of a folder import."""
    names = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"unroll"}


def declared(*extras: str) -> set[str]:
    """The normalized names of the declared dependencies."""
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][e] for e in extras)]
    names = (re.match(r"[\w.-]+", line).group() for lines in lists for line in lines)
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


def provided(*extras: str) -> set[str]:
    """The top-level modules of the declared dependencies."""
    records = (importlib.metadata.distribution(n).read_text("RECORD") for n in declared(*extras))
    paths = (row[0] for record in records for row in csv.reader(record.splitlines()))
    return {path.partition("/")[0].removesuffix(".py") for path in paths}


@pytest.mark.parametrize("folder", ["pipelines", "apps"])
def test_what_is_imported_is_declared(folder):
    imported = third_party(folder)
    assert "keras" in imported or "tensorflow" in imported
    assert imported - provided("apps", "demo", "onnx") == set()


@pytest.mark.exhaustive
def test_layers_import_backends_besides_keras_and_numpy_only():
    # `NGramLanguageModel.from_kenlm` and `onnx_tensorflow.convert` say how to install the others.
    optional = {"tensorflow", "jax", "torch", "kenlm", "onnx", "tf2onnx"}
    assert third_party("layers") <= {"keras", "numpy", *optional}
