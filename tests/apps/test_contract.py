"""The contract of all apps: the protocol, the files, the recorded results."""

import ast
import dataclasses
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import tensorflow as tf

from unroll import apps
from unroll.apps.core import options, protocol, results
from unroll.apps.core import runs as run_folders
from unroll.apps.core.config import TrainingConfig, monitor_direction
from unroll.apps.core.protocol import hook
from unroll.pipelines import datasets

FOLDER = Path(apps.__file__).parent
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/app.py"))
FILES = (
    "__init__.py",
    "app.py",
    "metrics.py",
    "serving.py",
    "report.py",
    "examples/litert.py",
    "examples/serving.py",
    "README.md",
    "results.json",
    "results.md",
)
VERB_OPTIONS = (
    options.EvaluateOptions,
    options.PredictOptions,
    options.ReportOptions,
    options.ExportOptions,
    options.DemoOptions,
)
APPS = [importlib.import_module(f"unroll.apps.{name}.app") for name in NAMES]
# The number of arguments of optional functions.
HOOKS = {
    "axes": 1, "shared": 1, "start_options": 1, "callbacks": 2, "export_files": 1,
    "parse_inputs": 1, "plot": 2, "stream": 2, "combine": 1, "converse": 1,
    "ensemble": 1, "page": 1, "request": 2,
}  # fmt: skip


@pytest.fixture(scope="module", params=APPS, ids=NAMES)
def app(request) -> ModuleType:
    return request.param


def folder_of(app) -> Path:
    return Path(app.__file__).parent


def test_there_are_apps():
    assert len(NAMES) >= 6
    assert "sentiment" in NAMES


def missing_or_different(app) -> list[str]:
    """The names that an app lacks, and the functions with other arguments than the protocol's."""
    found = [name for name in protocol.REQUIRED if not hasattr(app, name)]
    for name, expected in {**protocol.REQUIRED, **HOOKS}.items():
        if expected is None or not (function := getattr(app, name, None)):
            continue
        arguments = tuple(inspect.signature(function).parameters)
        if (len(arguments) if name in HOOKS else arguments) != expected:
            found.append(f"{name}({', '.join(arguments)})")
        if not inspect.getdoc(function):
            found.append(f"{name} has no docstring")
    return found


def test_an_app_defines_the_names_of_the_protocol(app):
    assert missing_or_different(app) == []
    parameters = inspect.signature(app.load).parameters
    assert parameters["assets"].default is None
    assert parameters["training"].default is False


def test_an_app_that_breaks_the_protocol_is_found():
    everything = {name: lambda: None for name in protocol.REQUIRED}
    broken = SimpleNamespace(**everything, plot=lambda result: None)
    del broken.METRICS
    found = missing_or_different(broken)
    assert "METRICS" in found
    assert "plot(result)" in found
    assert "load()" in found
    assert "examples has no docstring" in found


def test_the_arguments_of_every_hook_are_checked():
    assert set(HOOKS) == set(protocol.OPTIONAL) - {
        *("Search", "OWN_FILES", "ACCEPTS_A_FILE", "PART")
    }


def test_the_configuration_is_a_frozen_dataclass(app):
    assert issubclass(app.Config, TrainingConfig)
    with pytest.raises(dataclasses.FrozenInstanceError):
        app.Config().seed = 1
    assert app.Config() == app.Config()
    search = hook(app, "Search")
    assert search is None or issubclass(app.Config, search)
    own = hook(app, "OWN_FILES")
    assert own is None or isinstance(own, app.Config)
    part = hook(app, "PART")
    assert (part is None) == (hook(app, "combine") is None)
    assert part is None or part in {field.name for field in dataclasses.fields(app.Config)}


def fields_without_comment(source: str) -> list[str]:
    """The fields of the class in a source that have no comment in the line above."""
    lines = source.splitlines()
    (cls,) = ast.parse(source).body
    return [
        field.target.id
        for field in cls.body
        if isinstance(field, ast.AnnAssign) and not lines[field.lineno - 2].strip().startswith("#")
    ]


def test_every_field_has_a_help_text(app):
    classes = [cls for cls in app.Config.__mro__ if dataclasses.is_dataclass(cls)]
    assert {app.Config, TrainingConfig} <= set(classes)
    for cls in classes:
        assert fields_without_comment(inspect.getsource(cls)) == []


def test_a_field_without_a_help_text_is_found():
    source = "class Config(Base):\n    # why\n    a: int = 1\n    b: int = 2\n"
    assert fields_without_comment(source) == ["b"]


def test_no_field_has_the_name_of_an_option(app):
    def names(cls):
        return {field.name for field in dataclasses.fields(cls)}

    assert not names(app.Config) & names(options.TrainOptions)
    if search := hook(app, "Search"):
        for cls in VERB_OPTIONS:
            assert not names(search) & names(cls)


def test_presets_are_named_after_their_data_and_the_first_is_generated(app):
    for name, preset in app.PRESETS.items():
        assert isinstance(preset, app.Config)
        assert preset.data == name
    first = next(iter(app.PRESETS))
    assert first in datasets.GENERATED
    assert app.Config().data == first


def test_figures_have_a_direction_and_presets_monitor_one(app):
    assert 1 <= len(app.METRICS) <= 4
    assert {*app.METRICS.values(), *app.MONITORS.values()} <= {"max", "min"}
    for preset in app.PRESETS.values():
        assert monitor_direction(app, preset.monitor) in ("max", "min")


def test_published_figures_have_a_source(app):
    assert {name.partition(", ")[0] for name in app.PUBLISHED} <= set(app.PRESETS)
    for published in app.PUBLISHED.values():
        assert published["source"]
        assert any(isinstance(value, float) for value in published.values())


def test_examples_are_raw_inputs(app):
    first, second = app.examples(), app.examples()
    assert isinstance(first, list)
    assert first
    assert first is not second
    assert not any(tf.is_tensor(part) for part in tf.nest.flatten(first))


IMPORTS = """
import importlib, sys
import tensorflow as tf

def ran_an_operation():
    # TensorFlow refuses this setting as soon as its runtime has started.
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads + 1)
    except RuntimeError:
        return True
    return False

for name in sys.argv[1:]:
    importlib.import_module(name)
    print(name, ran_an_operation())
"""
PLANTED = "import tensorflow as tf\n\n{}\n"
TABLE = "tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(['a'], [1]), 0)"


def test_importing_an_app_runs_no_operation(tmp_path):
    (tmp_path / "planted.py").write_text(PLANTED.format(f"TABLE = {TABLE}"))
    modules = [f"unroll.apps.{name}.app" for name in NAMES]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, *modules, "planted"],
        cwd=FOLDER.parent,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    ran = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines())
    assert ran == {**dict.fromkeys(modules, "False"), "planted": "True"}


@pytest.mark.parametrize("name", FILES)
def test_an_app_has_the_files_of_the_house(app, name):
    assert (folder_of(app) / name).is_file()


def test_the_first_line_of_an_app_says_what_it_is(app):
    assert 0 < len(inspect.getdoc(app).splitlines()[0]) <= 100


def test_the_tables_are_those_of_the_results(app):
    rows = results.read(folder_of(app))
    readme = (folder_of(app) / "README.md").read_text("utf-8")
    [inside] = re.findall(f"{results.MARKS[0]}\n(.*?){results.MARKS[1]}", readme, re.DOTALL)
    assert inside.strip() == results.tables(app, rows).strip()
    details = (folder_of(app) / "results.md").read_text("utf-8")
    assert details == results.details(app, rows)


def test_the_rows_of_the_results_are_complete(app):
    rows = results.read(folder_of(app))
    keys = [(row["data"], row["variant"], row["split"]) for row in rows]
    assert len(set(keys)) == len(keys)
    fields = {field.name for field in dataclasses.fields(app.Config)}
    for row in rows:
        assert row["data"] in app.PRESETS
        assert row["examples"] > 0
        assert row["baseline"]["what"]
        assert set(row["metrics"]) & set(row["baseline"])
        assert set(row["metrics"]) & set(app.METRICS)
        for metric in row["metrics"].values():
            assert (metric["std"] is None) == (metric["runs"] == 1)
        assert set(row["config"]) <= fields
        assert row["command"].startswith(f"unroll {folder_of(app).name} train --data=")


def test_the_rows_of_the_results_name_a_commit_of_the_repository_or_none(app):
    commits = {row["commit"] for row in results.read(folder_of(app))} - {None}
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in commits)
    if run_folders.git_commit() is None:
        pytest.skip("this is not a checkout")
    if run_folders._git("rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("a shallow clone lacks most commits")
    assert [commit for commit in commits if not run_folders.has_commit(commit)] == []


@pytest.mark.parametrize("script", ["litert", "serving"])
def test_example_scripts_import_nothing_of_this_project(app, script):
    allowed = {
        "litert": {"ai_edge_litert", "numpy", "PIL", "soundfile"},
        "serving": {"numpy", "tensorflow", "tensorflow_text"},
    }[script] | set(sys.stdlib_module_names)
    source = (Path(app.__file__).parent / "examples" / f"{script}.py").read_text("utf-8")
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "unroll").partition(".")[0])
    assert names
    assert names <= allowed
