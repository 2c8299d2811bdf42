"""Distribution strategies: they agree with one device, on every app."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from tests.apps.distributed import Trainer, cluster_of_two, train_together
from tests.apps.test_contract import NAMES
from unroll.apps.core import distribution
from unroll.apps.core.errors import UsageError


@pytest.fixture(scope="module")
def two_devices() -> Iterator[Trainer]:
    """A process with two logical devices."""
    with Trainer(devices=2) as trainer:
        yield trainer


@pytest.fixture(scope="module")
def workers() -> Iterator[list[Trainer]]:
    """Two processes that train together."""
    first, second = cluster_of_two()
    with Trainer(tf_config=first) as one, Trainer(tf_config=second) as two:
        yield [one, two]


# Models that are traced in little time, with all kinds of inputs, outputs and losses.
SMALL = {
    "image_captioning": ["--image-size=16", "--stages=1", "--filters=4"],
    "key_terms": ["--characters=none"],
    "reading_comprehension": ["--hops=1"],
    "slot_filling": ["--characters=none"],
    "speech_ctc": ["--mels=8", "--speed=0", "--noise=0", "--time-mask=0", "--frequency-mask=0"],
    "vqa": ["--image-size=16", "--stages=1", "--filters=4", "--glimpses=1", "--question=max"],
}


def small(name: str) -> list[str]:
    """Options of a short training of an app."""
    fixed = ["--generated-size=0.001", "--epochs=1", "--monitor=loss"]
    return [
        *fixed,
        *SMALL.get(name, ()),
        "--embedding-dim=4" if name == "word_vectors" else "--units=4",
    ]


# A bucket of 31 leaves a batch of one example: one replica gets none of it. The clipping is active
# in each step, so that clipping the gradient of each replica would give other losses.
OPTIONS = ["--no-normalize", "--dropout=0", "--clip-norm=0.05", "--batch-size=31", "--epochs=3"]


@pytest.fixture(scope="module")
def one_device(two_devices, tmp_path_factory) -> list[dict]:
    """The history of the default strategy."""
    path = tmp_path_factory.mktemp("default")
    return two_devices.train(path, *OPTIONS, strategy="default")["history"]


def assert_close(history, expected):
    assert len(history) == len(expected) == 3
    for name in ("loss", "val_loss"):
        values, others = ([epoch[name] for epoch in each] for each in (history, expected))
        np.testing.assert_allclose(values, others, atol=5e-3)


EACH_APP = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "sentiment" else pytest.mark.exhaustive)
        for name in NAMES
    ],
)


def test_mirrored_gives_the_losses_of_one_device(tmp_path, two_devices, one_device):
    result = two_devices.train(tmp_path, *OPTIONS, strategy="mirrored")
    assert_close(result["history"], one_device)


def state(path):
    with np.load(path / "state.npz") as file:
        return {name: file[name] for name in file.files if name != "progress"}


def test_mirrored_resumes(tmp_path, two_devices):
    uninterrupted, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    options = ["--batch-size=31", "--epochs=2"]
    two_devices.train(uninterrupted, *options, strategy="mirrored", copy=resumed)
    two_devices.train(resumed, *options, strategy="mirrored", resume=True)
    expected, variables = state(uninterrupted), state(resumed)
    assert expected.keys() == variables.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(variables[name], value, atol=1e-6, err_msg=name)


@EACH_APP
def test_every_app_trains_on_mirrored_devices(tmp_path, two_devices, name):
    job = {"app": f"unroll.apps.{name}.app", "validate": False}  # the toy app is validated
    result = two_devices.train(tmp_path, *small(name), strategy="mirrored", **job)
    [figures] = result["history"]
    assert np.isfinite(figures["loss"])
    assert {"best.weights.h5", "state.npz"} <= {path.name for path in tmp_path.iterdir()}


def test_workers_agree_with_each_other_and_with_one_device(tmp_path, workers, one_device):
    paths = [tmp_path / "chief", tmp_path / "other"]
    chief, other = train_together(workers, paths, *OPTIONS)
    assert chief == other
    assert_close(chief["history"], one_device)
    assert {"best.weights.h5", "state.npz", "history.json"} <= {p.name for p in paths[0].iterdir()}
    assert list(paths[1].iterdir()) == []


@EACH_APP
def test_every_app_trains_in_two_processes(tmp_path, workers, name):
    paths = [tmp_path / "chief", tmp_path / "other"]
    job = {"app": f"unroll.apps.{name}.app", "validate": False}
    chief, other = train_together(workers, paths, *small(name), **job)
    assert chief == other
    [figures] = chief["history"]
    assert np.isfinite(figures["loss"])
    assert {"best.weights.h5", "state.npz"} <= {path.name for path in paths[0].iterdir()}


@pytest.mark.parametrize("name", ["two", ""])
def test_an_unknown_strategy_is_refused(name):
    with pytest.raises(UsageError, match="must be one of default, mirrored, multiworker, tpu"):
        distribution.strategy(name)


def test_a_missing_tpu_is_one_line():
    with pytest.raises(UsageError, match=r"^--strategy=tpu finds no TPU: [^\n]+$"):
        distribution.strategy("tpu")


@pytest.mark.parametrize(
    "given",
    [
        None,
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "boss", "index": 0}}',
    ],
)
def test_a_broken_tf_config_is_one_line(monkeypatch, given):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if given is not None:
        monkeypatch.setenv("TF_CONFIG", given)
    for function in (distribution.strategy, distribution.is_chief):
        with pytest.raises(UsageError, match="needs the environment variable TF_CONFIG"):
            function("multiworker")


@pytest.mark.parametrize(
    ("cluster", "task", "chief"),
    [
        (["worker"], ("worker", 0), True),
        (["worker"], ("worker", 1), False),
        (["chief", "worker"], ("worker", 0), False),
        (["chief", "worker"], ("chief", 0), True),
    ],
)
def test_only_the_chief_writes(monkeypatch, cluster, task, chief):
    spec = {job: ["a:1", "b:2"] for job in cluster}
    config = {"cluster": spec, "task": {"type": task[0], "index": task[1]}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert distribution.is_chief("multiworker") is chief
    assert distribution.is_chief("mirrored") is True
