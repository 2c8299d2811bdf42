"""The protocol of the apps: hooks, and services as functions."""

import dataclasses
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf

from tests.apps import toy
from unroll.apps.core import protocol
from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.protocol import Data, Page, Service, Trained, hook, once, query, with_inputs


def test_hooks_have_defaults():
    app = ModuleType("app")
    defaults = {name: hook(app, name) for name in protocol.OPTIONAL}
    names = ("Search", "OWN_FILES", "plot", "stream", "shared", "PART", "combine", "ensemble")
    for name in (*names, "converse"):
        assert defaults.pop(name) is None
    assert defaults.pop("ACCEPTS_A_FILE") is False
    assert defaults.pop("axes")(TrainingConfig()) == {}
    assert defaults.pop("start_options")(TrainingConfig()) == {}
    assert defaults.pop("callbacks")(TrainingConfig(), []) == []
    assert defaults.pop("export_files")(None) == {}
    assert defaults.pop("parse_inputs")(("a", "b")) == ["a", "b"]
    assert defaults.pop("request")(None, ["a", "b"])["text"].tolist() == ["a", "b"]
    assert defaults.pop("page")(None) == Page({"text": "text"})
    assert defaults == {}


def test_what_is_made_once_is_made_for_each_model():
    calls = []

    @once
    def make(trained: Trained) -> int:
        """Counts its calls."""
        calls.append(trained)
        return len(calls)

    first = Trained(None, {}, None)
    assert [make(first), make(first), make(dataclasses.replace(first)), make(first)] == [1, 1, 2, 1]
    assert make.__doc__ == "Counts its calls."


def test_an_app_overrides_a_hook():
    assert hook(toy, "Search") is toy.Search
    app = ModuleType("app")
    app.PART = "task"
    assert hook(app, "PART") == "task"


def test_an_unknown_hook_is_a_defect():
    with pytest.raises(KeyError):
        hook(toy, "plots")


def test_splits_are_read_by_name():
    data = Data({"test": "batches"}, {})
    assert data["test"] == "batches"
    with pytest.raises(KeyError):
        data["train"]


def test_a_function_of_a_dict_gets_named_arguments():
    specs = {"ids": tf.TensorSpec([None], tf.int32), "scale": tf.TensorSpec([], tf.float32)}
    function = with_inputs(
        lambda given: {"y": tf.cast(given["ids"], tf.float32) * given["scale"]}, specs
    )
    assert [spec.name for spec in function.input_signature] == ["ids", "scale"]
    by_name = function(scale=tf.constant(2.0), ids=tf.constant([1, 3]))
    by_position = function(tf.constant([1, 3]), tf.constant(2.0))
    assert by_name["y"].numpy().tolist() == by_position["y"].numpy().tolist() == [2, 6]


def test_a_query_returns_plain_values_by_input_in_batches():
    sizes = []

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serving_default(text):
        return {
            "text": text,
            "pieces": tf.strings.unicode_split(text, "UTF-8").to_tensor(""),
            "length": tf.strings.length(text, "UTF8_CHAR"),
        }

    def requests(batch):
        sizes.append(len(batch))
        return {"serving_default": {"text": np.array(batch, object)}}

    service = Service({"serving_default": serving_default}, requests)
    results = query(service, ["aé", "b", "ccc"], batch_size=2)
    assert sizes == [2, 1]
    assert results == [
        {"text": "aé", "pieces": ["a", "é"], "length": 2},
        {"text": "b", "pieces": ["b", ""], "length": 1},
        {"text": "ccc", "pieces": ["c", "c", "c"], "length": 3},
    ]
    assert type(results[0]["length"]) is int
    assert query(service, []) == []
