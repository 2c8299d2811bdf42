"""Every folder of `apps` with an `app.py` is an app: all the names, the right types."""

import ast
import dataclasses
import importlib
import inspect
import re
from pathlib import Path

import pytest

from unroll import apps
from unroll.apps.core import options, results
from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.protocol import Data, Service

FOLDER = Path(apps.__file__).parent
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/app.py"))
FUNCTIONS = {
    "load": ["config", "assets"],
    "build": ["config", "assets"],
    "score": ["model", "assets", "dataset"],
    "baseline": ["config", "data", "split"],
    "predict": ["model", "assets", "inputs"],
    "show": ["result"],
    "serve": ["model", "assets"],
}


@pytest.fixture(params=NAMES)
def app(request):
    return importlib.import_module(f"unroll.apps.{request.param}.app")


def folder_of(app) -> Path:
    return Path(app.__file__).parent


def fields_without_comment(source: str) -> list[str]:
    """The fields of `Config` in a source that have no comment in the line above."""
    lines = source.splitlines()
    [config] = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "Config"
    )
    return [
        field.target.id
        for field in config.body
        if isinstance(field, ast.AnnAssign) and not lines[field.lineno - 2].strip().startswith("#")
    ]


def test_there_are_apps():
    assert "sentiment" in NAMES


def test_config_is_a_frozen_dataclass(app):
    assert issubclass(app.Config, TrainingConfig)
    with pytest.raises(dataclasses.FrozenInstanceError):
        app.Config().seed = 1
    assert app.Config() == app.Config()


def test_every_field_has_a_comment(app):
    assert fields_without_comment(Path(app.__file__).read_text("utf-8")) == []


def test_a_field_without_a_comment_is_found():
    source = "class Config(Base):\n    # why\n    a: int = 1\n    b: int = 2\n"
    assert fields_without_comment(source) == ["b"]


def test_the_options_of_train_hide_no_field(app):
    own = {field.name for field in dataclasses.fields(app.Config)}
    assert not own & {field.name for field in dataclasses.fields(options.TrainOptions)}


def test_presets_are_named_after_their_data_and_the_first_is_generated(app, monkeypatch, tmp_path):
    for name, preset in app.PRESETS.items():
        assert isinstance(preset, app.Config)
        assert preset.data == name
    first = next(iter(app.PRESETS))
    assert app.Config().data == first
    # What is generated needs no file of anybody's.
    monkeypatch.setenv("UNROLL_MANUAL_DIR", str(tmp_path))
    data = app.load(app.PRESETS[first])
    assert isinstance(data, Data)
    assert None not in (data.train, data.valid, data.test)
    assert any(data.assets.values())
    for lines in data.assets.values():
        assert all(isinstance(line, str) for line in lines)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_take_what_core_gives(app, name):
    function = getattr(app, name)
    assert list(inspect.signature(function).parameters)[: len(FUNCTIONS[name])] == FUNCTIONS[name]
    assert inspect.getdoc(function)
    assert list(inspect.signature(app.load).parameters.values())[1].default is None


def test_serving_has_a_default_and_litert_is_one_of_its_functions(app):
    config = app.Config()
    assets = app.load(config).assets
    service = app.serve(app.build(config, assets), assets)
    assert isinstance(service, Service)
    assert "serving_default" in service.functions
    assert service.litert is None or service.litert in service.functions
    for name, inputs in service.requests(app.EXAMPLES).items():
        assert [spec.name for spec in service.functions[name].input_signature] == list(inputs)


def test_examples_and_published_figures(app):
    assert isinstance(app.EXAMPLES, list)
    assert app.EXAMPLES
    assert {name.partition(", ")[0] for name in app.PUBLISHED} <= set(app.PRESETS)
    for published in app.PUBLISHED.values():
        assert published["source"]
        assert any(isinstance(value, float) for value in published.values())


def test_the_file_is_short_and_says_what_the_app_is(app):
    text = Path(app.__file__).read_text("utf-8")
    assert len(text.splitlines()) <= 280
    first = ast.get_docstring(ast.parse(text)).splitlines()[0]
    assert len(first) <= 100


def test_the_readme_s_table_is_that_of_the_results(app):
    readme = (folder_of(app) / "README.md").read_text("utf-8")
    [inside] = re.findall(f"{results.MARKS[0]}\n(.*?){results.MARKS[1]}", readme, re.DOTALL)
    rows = results.read(folder_of(app))
    assert inside.strip() == (results.table(rows) if rows else "")


def test_the_rows_are_of_the_presets_and_whole(app):
    rows = results.read(folder_of(app))
    places = [(row["data"], row["variant"], row["split"]) for row in rows]
    assert len(set(places)) == len(places)
    for row in rows:
        assert row["data"] in app.PRESETS
        assert row["examples"] > 0
        assert row["baseline"]["what"]
        assert set(row["metrics"]) & set(row["baseline"])
        for metric in row["metrics"].values():
            assert (metric["std"] is None) == (metric["runs"] == 1)
        assert row["command"].startswith(f"unroll {folder_of(app).name} train --data=")
