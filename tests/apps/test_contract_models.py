"""The contract of all apps: data, model, service, predictions, fine-tuning."""

import dataclasses
import importlib
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.text import Text

from tests.pipelines.datasets.helpers import write_own_files
from unroll import apps
from unroll.apps.core import results, transfer
from unroll.apps.core.protocol import Data, Report, Service, Trained, hook
from unroll.pipelines import datasets, word_vectors

NAMES = sorted(path.parent.name for path in Path(apps.__file__).parent.glob("*/app.py"))
APPS = [importlib.import_module(f"unroll.apps.{name}.app") for name in NAMES]
# A network whose training step would be small, and a short search.
SMALL = {
    "batch_size": 4,
    "beam_width": 2,
    "depth": 1,
    "filters": 4,
    "image_size": 16,
    "linear_start": 0.0,  # it ends in training; without, the scores are all equal
    "num_return_sequences": 2,
    "restarts": 1,
    "stages": 1,
    "temperature": 0.0,  # random texts depend on the order of the vocabulary
    "units": 8,
}
# The name is that of an option of slot_filling, too.
SMALL_WINDOWS = {"context": 48}


def small_config(app: ModuleType, **options):
    """The first preset, for a small network and dataset."""
    fields = {field.name for field in dataclasses.fields(app.Config)}
    small = {name: value for name, value in SMALL.items() if name in fields}
    if "horizon" in fields:
        small |= SMALL_WINDOWS
    first = next(iter(app.PRESETS.values()))
    return dataclasses.replace(first, **({"generated_size": 1e-3} | small | options))


def small_assets(config, assets: dict) -> dict:
    """The assets for the network of a configuration."""
    if not getattr(config, "frames", 0):
        return assets
    shape = [config.frames, *assets["images"]["shape"]]
    images = {"kind": "image", "shape": shape}
    return {**assets, "images": images, "frame_labels": ["left", "right", "up"]}


@pytest.fixture(scope="module", params=APPS, ids=NAMES)
def app(request) -> ModuleType:
    return request.param


@pytest.fixture(scope="module")
def trained(app, tmp_path_factory) -> Trained:
    """An untrained small model, with the assets of a small dataset."""
    config = small_config(app)
    with pytest.MonkeyPatch.context() as patch:
        # A generated dataset needs no published file.
        patch.setenv("UNROLL_MANUAL_DIR", str(tmp_path_factory.mktemp("empty")))
        assets = app.load(config, ()).assets
    return Trained(config, assets, app.build(config, assets))


@pytest.fixture(scope="module")
def service(app, trained) -> Service:
    return app.serve(trained)


@pytest.fixture(scope="module")
def predict(app, trained, service) -> Callable[[], list[dict]]:
    """The predictions of `trained` for one example, by a service that is traced once."""

    def predict() -> list[dict]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(app, "serve", lambda _: service)
            return app.predict(trained, app.examples()[:1])

    return predict


def folder_of(app) -> Path:
    return Path(app.__file__).parent


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


OWN_FILES = {
    "forecasting": "series",
    "image_captioning": "captions",
    "key_terms": "key_terms",
    "language_model": "plain_text",
    "reading_comprehension": "stories",
    "sentiment": "text_classification",
    "slot_filling": "tagging",
    "speech_ctc": "speech",
    "translation": "translation",
    "vqa": "visual_questions",
    "word_vectors": "plain_text",
}


def test_no_asset_has_what_only_other_splits_have(app, tmp_path):
    """Words, characters, labels and answers that are planted in the other splits."""
    folder = tmp_path / "own"
    folder.mkdir()
    words = {"train": "ababa", "valid": "qqab", "test": "qqba"}
    write_own_files(folder, OWN_FILES[folder_of(app).name], words)
    config = small_config(app, data=str(folder), generated_size=1.0)
    assets = app.load(config, ()).assets.values()
    entries = [line for asset in assets if isinstance(asset, list) for line in asset]
    assert any("a" in line for line in entries)
    assert [line for line in entries if "q" in line] == []


# The tests of their pipelines read the examples, which takes seconds.
WITH_LARGE_EXAMPLES = {
    "forecasting",
    "image_captioning",
    "reading_comprehension",
    "speech_ctc",
    "translation",
}


def apps_in_ci(names: set[str]):
    """All apps as parameters, of which `make test` has these."""
    return pytest.mark.parametrize(
        "app",
        [
            pytest.param(app, id=name, marks=[] if name in names else pytest.mark.exhaustive)
            for app, name in zip(APPS, NAMES, strict=True)
        ],
        indirect=True,
        scope="module",
    )


@apps_in_ci(set(NAMES) - WITH_LARGE_EXAMPLES)
def test_only_the_requested_split_is_read(app, trained, read):
    data = app.load(trained.config, ("valid",), trained.assets)
    assert set(data.splits) == {"valid"}
    assert set(read) == {"valid"}
    assert data.assets is trained.assets or data.assets == trained.assets


@apps_in_ci({"reading_comprehension", "sentiment", "slot_filling"})
def test_a_split_is_scored_and_reported(app, trained):
    first = app.load(trained.config, ("valid",), trained.assets)["valid"].take(1)
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
    "epoch_windows": 7,
    "flip": True,
    "frequency_mask": 5,
    "gain": 6.0,
    "jit": True,
    "max_length": 3,
    "noise": 0.1,
    "speed": 0.2,
    "static_shapes": True,
    "stride": 2,
    "time_mask": 5,
    "translate": 3,
    "zoom": 0.3,
    # The recordings of long transcripts have too few frames.
    "convolutions": 4,
}


# Options that change which weights there are, or what their axes are.
NETWORKS = {
    "forecasting": [
        {"series_embedding_dim": 2},
        {"model": "autoregressive", "output": "normal", "series_embedding_dim": 2},
    ],
    "image_captioning": [{}, {"attention": "after"}, {"attention": "none"}, {"frames": 2}],
    "key_terms": [{}, {"model": "attention", "characters": "none"}],
    "language_model": [{}, {"tie_weights": True}, {"residual_blocks": True}],
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
    "translation": [{}, {"tied": "none"}],
    "vqa": [{"history": True, "hidden_layer": True}],
    "word_vectors": [{}, {"ngram_buckets": 20}],
}


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
        config = small_config(app, **each)
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
        fixed = sum(re.fullmatch(r"\[\w+\]|</?\w+>", entry) is not None for entry in asset)
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


# The others take long: their predictions are searches, tags of a CRF, or of several models.
@apps_in_ci({"sentiment", "word_vectors"})
def test_a_model_that_starts_from_a_run_predicts_the_same(app, trained, predict):
    """Also if the entries of all vocabularies and labels have another order."""
    axes = app.axes(trained.config)
    assets = permuted(trained.assets, axes)
    model = app.build(trained.config, assets)
    carried = transfer.carry((model, axes, assets), (trained.model, axes, trained.assets))
    assert not carried.fresh
    # One entry has no other order.
    assert carried.matched or all(total == 1 for _, total in carried.entries.values())
    assert all(have == total for have, total in carried.entries.values())
    started = dataclasses.replace(trained, assets=assets, model=model)
    assert_same_predictions(app.predict(started, app.examples()[:1]), predict())


def rows(dataset: tf.data.Dataset) -> list[tuple[bytes, ...]]:
    """The examples of batches, without padding."""
    found = []
    for batch in dataset.as_numpy_iterator():
        parts = [part.reshape(len(part), -1) for part in tf.nest.flatten(batch)]
        found += zip(*([_content(row) for row in part] for part in parts), strict=True)
    return found


def _content(row: np.ndarray) -> bytes:
    """What a row has without zeros or empty strings around it."""
    content = b"\1".join(row.tolist()).strip(b"\1") if row.dtype == object else row.tobytes()
    return content.strip(b"\0")


@apps_in_ci({"language_model", "slot_filling", "vqa"})
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
    # See `pipelines.batching.OPTIONS`.
    made = (for_training, evaluated, raw)
    assert all(each.options().autotune.enabled is False for each in made)
    if folder_of(app).name == "language_model":  # an example is a token of one long text
        text = b"".join(piece["text"] for piece in raw.as_numpy_iterator())
        tokens = len(text.split()) + text.count(b"\n")
        assert sum((labels >= 0).sum() for _, labels in evaluated.as_numpy_iterator()) == tokens
    elif folder_of(app).name == "word_vectors":  # an example is a block of one long text
        text = b"".join(piece["text"] for piece in raw.as_numpy_iterator())
        ids = word_vectors.text_of(evaluated, config.window)
        assert (ids != word_vectors.END).sum() == len(text.split())
    elif folder_of(app).name == "forecasting":  # an example is a window of a series
        lengths = [len(example["times"]) for example in raw.as_numpy_iterator()]
        window = config.context + config.horizon
        assert len(first) == sum(length - window + 1 for length in lengths)
    else:
        assert len(first) == len(raw)
    plain = dataclasses.replace(trained.config, batch_size=5)
    assert sorted(first) == sorted(rows(app.load(plain, ("train",), trained.assets)["train"]))
    assert rows(for_training) != first


def test_a_service_has_a_default_function_and_requests_for_each(app, service):
    assert isinstance(service, Service)
    assert "serving_default" in service.functions
    functions = {**service.functions, **service.litert}
    requests = service.requests(app.examples()[:1])
    assert set(requests) == set(functions)
    for name, inputs in requests.items():
        assert [spec.name for spec in functions[name].input_signature] == list(inputs)


@apps_in_ci({"key_terms", "speech_ctc", "vqa"})
def test_inputs_without_steps_are_answered(app, service):
    requests = service.requests(app.examples()[:2])
    for name, function in service.functions.items():
        specs = {spec.name: spec for spec in function.input_signature}
        if all(None not in spec.shape[1:] for spec in specs.values()):
            continue  # texts and files
        inputs = {}
        for key, value in requests[name].items():
            dynamic = [size is None for size in specs[key].shape]
            shape = [0 if k and dynamic[k] else size for k, size in enumerate(value.shape)]
            inputs[key] = value if value.dtype == object else np.zeros(shape, value.dtype)
        rows = {len(value) for value in inputs.values()}
        outputs = function(**{key: tf.constant(value) for key, value in inputs.items()})
        assert {len(value) for value in outputs.values()} == rows, name


@apps_in_ci({"slot_filling", "vqa"})
def test_predict_is_pure_and_its_results_can_be_shown(app, predict, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outputs = predict()
    assert len(outputs) == 1
    assert json.loads(json.dumps(outputs)) == outputs
    assert predict() == outputs
    assert isinstance(app.show(outputs[0]), (str, Text))
    assert list(tmp_path.iterdir()) == []
    if plot := hook(app, "plot"):
        plot(outputs[0], tmp_path / "result.png")
        assert [path.name for path in tmp_path.iterdir()] == ["result.png"]
        assert (tmp_path / "result.png").read_bytes().startswith(b"\x89PNG")
