"""The contract of all apps: the protocol, the files, the recorded results."""

import ast
import dataclasses
import importlib
import inspect
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.text import Text

from unroll import apps
from unroll.apps.core import options, protocol, results, transfer
from unroll.apps.core import runs as run_folders
from unroll.apps.core.config import TrainingConfig, monitor_direction
from unroll.apps.core.protocol import Data, Report, Service, Trained, hook
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
)
APPS = [importlib.import_module(f"unroll.apps.{name}.app") for name in NAMES]
# The number of arguments of optional functions.
HOOKS = {"axes": 1, "callbacks": 2, "parse_inputs": 1, "plot": 2, "stream": 2, "combine": 1}


@pytest.fixture(scope="module", params=APPS, ids=NAMES)
def app(request) -> ModuleType:
    return request.param


@pytest.fixture(scope="module")
def trained(app, tmp_path_factory) -> Trained:
    """The untrained model of the first preset, with the assets of a small dataset."""
    config = dataclasses.replace(next(iter(app.PRESETS.values())), generated_size=1e-3)
    if hasattr(config, "linear_start"):  # it ends in training; without, the scores are all equal
        config = dataclasses.replace(config, linear_start=0.0)
    with pytest.MonkeyPatch.context() as patch:
        # A generated dataset needs no published file.
        patch.setenv("UNROLL_MANUAL_DIR", str(tmp_path_factory.mktemp("empty")))
        assets = app.load(config, ()).assets
    return Trained(config, assets, app.build(config, assets))


@pytest.fixture(scope="module")
def predictions(app, trained) -> list[dict]:
    return app.predict(trained, app.examples()[:1])


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


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The splits that are read, in order."""
    names = []
    splits = datasets.splits

    def recorded(builder, wanted=None):
        names.extend(wanted)
        return splits(builder, wanted)

    monkeypatch.setattr(datasets, "splits", recorded)
    return names


def test_assets_are_built_from_training_data_only(app, trained, read):
    data = app.load(trained.config, ())
    assert isinstance(data, Data)
    assert data.splits == {}
    assert set(read) <= {"train"}
    assert set(data.assets) == set(trained.assets)
    assert data.assets
    for name, asset in data.assets.items():
        assert re.fullmatch("[a-z_]+", name)
        assert isinstance(asset, (list, dict, bytes)) or asset.dtype.kind in "biufU"
        if isinstance(asset, list):
            assert all(isinstance(line, str) for line in asset)
        if isinstance(asset, dict):
            assert json.loads(json.dumps(asset)) == asset


def test_only_the_requested_split_is_read_and_it_is_scored(app, trained, read):
    data = app.load(trained.config, ("valid",), trained.assets)
    assert set(data.splits) == {"valid"}
    assert set(read) == {"valid"}
    assert data.assets is trained.assets or data.assets == trained.assets
    first = data["valid"].take(1)
    figures = app.score(trained, first)
    assert figures["examples"] > 0
    assert set(app.METRICS) & set(figures)
    # Other datasets can have other headline figures.
    recorded = {name for row in results.read(folder_of(app)) for name in row["metrics"]}
    source = (folder_of(app) / "metrics.py").read_text("utf-8")
    assert all(f'"{name}"' in source for name in set(app.METRICS) - set(figures) - recorded)
    made = app.report(trained, first)
    assert isinstance(made, Report)
    assert made.text.strip()
    assert all(re.fullmatch("[a-z0-9_-]+", name) for name in made.figures)


# What changes, cuts or drops the examples of training.
AUGMENTATION = {
    "captions_per_image": 1,
    "color_jitter": 0.3,
    "flip": True,
    "frequency_mask": 5,
    "gain": 6.0,
    "jit": True,
    "max_length": 3,
    "noise": 0.1,
    "speed": 0.2,
    "static_shapes": True,
    "time_mask": 5,
    "translate": 3,
    "zoom": 0.3,
    # The recordings of long transcripts have too few frames.
    "convolutions": 4,
}


# Options that change which weights there are, or what their axes are.
NETWORKS = {
    "image_captioning": [{}, {"attention": "after"}, {"attention": "none"}, {"frames": 2}],
    "language_model": [{}, {"tie_weights": True}],
    "reading_comprehension": [
        {"restarts": 2},
        {"tying": "layer_wise"},
        {"facts": "recurrent"},
        {"model": "recurrent"},
    ],
    "sentiment": [
        {},
        {"encoding": "one_hot", "depth": 2, "skip": "dense"},
        {"encoding": "one_hot", "bidirectional": False, "segment_length": 5},
    ],
    "slot_filling": [{}, {"characters": "recurrent", "context": "gate"}],
    "speech_ctc": [{"units": 8}],
    "vqa": [{"history": True, "hidden_layer": True}],
}
SMALL = {"depth": 1, "filters": 4, "image_size": 16, "stages": 1, "units": 8, "restarts": 1}


def small_config(app, trained, options: dict):
    fields = {field.name for field in dataclasses.fields(app.Config)}
    small = {name: value for name, value in SMALL.items() if name in fields}
    return dataclasses.replace(trained.config, **(small | options))


def small_assets(config, assets: dict) -> dict:
    """The assets for the network of a configuration."""
    found = dict(assets)
    if frames := getattr(config, "frames", 0):
        found["frame_labels"] = ["left", "right", "up"]
    if found.get("images", {}).get("kind") == "image":
        side = config.image_size
        shape = [frames, side, side, 3] if frames else [side, side, 3]
        found["images"] = {"kind": "image", "shape": shape}
    return found


def undeclared_axes(axes: dict, models: list[keras.Model], assets: list[dict]) -> list[str]:
    """The axes of weights that grow with an asset, but are not declared so.

    The lists of the second assets are longer than the first, by different numbers of entries.
    """
    first, second = map(transfer.by_name, models)
    lists = [name for name, asset in assets[0].items() if isinstance(asset, list)]
    growth = {name: len(assets[1][name]) - len(assets[0][name]) for name in lists}
    found = []
    for name, weight in first.items():
        declared = transfer.axes_of(name, axes) or (None,) * len(weight.shape)
        for k, (small, large) in enumerate(zip(weight.shape, second[name].shape, strict=True)):
            asset = declared[k][0] if isinstance(declared[k], tuple) else declared[k]
            if large - small != growth.get(asset, 0):
                found.append(f"{name}, axis {k}: {asset}")
    return found


def with_more_entries(assets: dict) -> dict:
    lists = [name for name, asset in assets.items() if isinstance(asset, list)]
    more = {
        name: [*assets[name], *(f"{'B-' if name == 'tags' else ''}new{i}" for i in range(3 + k))]
        for k, name in enumerate(lists)
        if assets[name]
    }
    return {**assets, **more}


def test_all_axes_that_an_asset_indexes_are_declared(app, trained):
    options = NETWORKS[folder_of(app).name]
    for each in options:
        config = small_config(app, trained, each)
        assets = small_assets(config, trained.assets)
        both = [assets, with_more_entries(assets)]
        models = [app.build(config, own) for own in both]
        axes = app.axes(config)
        assert undeclared_axes(axes, models, both) == []
        for pattern, declared in axes.items():
            # A declaration that is missing, or of another axis or asset, is found.
            names = [n for n in transfer.by_name(models[0]) if re.fullmatch(pattern, n)]
            missing = {key: value for key, value in axes.items() if key != pattern}
            wrong = {**missing, pattern: ("nothing",) * len(declared)}
            for planted in (missing, wrong):
                assert len(undeclared_axes(planted, models, both)) >= len(names)


def permuted(assets: dict, axes: dict) -> dict:
    """The same entries in another order. Special tokens, which have fixed ids, stay in front."""
    found = dict(assets)
    for name in set(itertools.chain(*axes.values())) & assets.keys():
        asset = assets[name]
        fixed = sum(re.fullmatch(r"\[\w+\]|<\w+>", entry) is not None for entry in asset)
        found[name] = [*asset[:fixed], *reversed(asset[fixed:])]
        assert found[name] != asset or len(asset) < 2
    return found


def assert_same_predictions(found, expected) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_same_predictions(found[name], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same_predictions(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-4)
    else:
        assert found == expected


def test_a_model_that_starts_from_a_run_predicts_the_same(app, trained, predictions):
    """Also if the entries of all vocabularies and labels have another order."""
    axes = app.axes(trained.config)
    assets = permuted(trained.assets, axes)
    model = app.build(trained.config, assets)
    carried = transfer.carry((model, axes, assets), (trained.model, axes, trained.assets))
    assert not carried.fresh
    assert carried.matched
    assert all(have == total for have, total in carried.entries.values())
    started = dataclasses.replace(trained, assets=assets, model=model)
    assert_same_predictions(app.predict(started, app.examples()[:1]), predictions)


def rows(dataset: tf.data.Dataset) -> list[tuple]:
    """The examples of batches, without padding."""
    found = []
    for features, labels in dataset.as_numpy_iterator():
        batch = [*tf.nest.flatten(features), *tf.nest.flatten(labels)]
        for k in range(len(batch[0])):
            found.append([np.trim_zeros(part[k].ravel()).tolist() for part in batch])
    return found


def test_the_training_split_is_evaluated_as_it_is(app, trained):
    assert set(AUGMENTATION) <= {f.name for each in APPS for f in dataclasses.fields(each.Config)}
    fields = {field.name for field in dataclasses.fields(app.Config)}
    changed = {name: value for name, value in AUGMENTATION.items() if name in fields}
    config = dataclasses.replace(trained.config, batch_size=5, **changed)
    for_training = app.load(config, ("train",), trained.assets, training=True)["train"]
    evaluated = app.load(config, ("train",), trained.assets)["train"]
    first = rows(evaluated)
    assert first == rows(evaluated)
    raw = datasets.load(config.data, "train", size=config.generated_size)
    if folder_of(app).name == "language_model":  # an example is a token of one long text
        text = b"".join(piece["text"] for piece in raw.as_numpy_iterator())
        tokens = len(text.split()) + text.count(b"\n")
        assert sum((labels >= 0).sum() for _, labels in evaluated.as_numpy_iterator()) == tokens
    else:
        assert len(first) == len(raw)
    plain = dataclasses.replace(trained.config, batch_size=5)
    assert sorted(first) == sorted(rows(app.load(plain, ("train",), trained.assets)["train"]))
    assert rows(for_training) != first


def test_a_service_has_a_default_function_and_requests_for_each(app, trained):
    service = app.serve(trained)
    assert isinstance(service, Service)
    assert "serving_default" in service.functions
    assert service.litert is None or service.litert in service.functions
    requests = service.requests(app.examples()[:1])
    assert set(requests) == set(service.functions)
    for name, inputs in requests.items():
        assert [spec.name for spec in service.functions[name].input_signature] == list(inputs)


def test_predict_is_pure_and_its_results_can_be_shown(
    app, trained, predictions, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    inputs = app.examples()[:1]
    outputs = app.predict(trained, inputs)
    assert len(outputs) == len(inputs)
    assert json.loads(json.dumps(outputs)) == outputs
    assert predictions == outputs
    assert isinstance(app.show(outputs[0]), (str, Text))
    assert list(tmp_path.iterdir()) == []
    if plot := hook(app, "plot"):
        plot(outputs[0], tmp_path / "result.png")
        assert [path.name for path in tmp_path.iterdir()] == ["result.png"]
        assert (tmp_path / "result.png").read_bytes().startswith(b"\x89PNG")


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
