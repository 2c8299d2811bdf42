"""Words of the validation split that training does not know are counted, once."""

import importlib

import numpy as np
import pytest
import tensorflow as tf

from tests.parameters import first_of
from tests.pipelines.datasets.helpers import write_own_files
from unroll.apps.shared.unknown_words import report_unknown
from unroll.pipelines import errors

# The kind of the files, options that differ from an app's own, and what is said of the split
# "valid", where "pear" is unknown.
APPS = {
    "sentiment": ("text_classification", {}, "33.3 % of words are unknown (20 of 60)"),
    "image_captioning": ("captions", {"image_size": 8}, "100.0 % of words are unknown (20 of 20)"),
    "language_model": ("plain_text", {}, "50.0 % of words are unknown (200 of 400)"),
    "reading_comprehension": ("stories", {}, "16.7 % of words are unknown (20 of 120)"),
    "slot_filling": ("tagging", {}, "100.0 % of words are unknown (20 of 20)"),
    "vqa": ("visual_questions", {"image": "none"}, "25.0 % of words are unknown (20 of 80)"),
}


@pytest.fixture(autouse=True)
def nothing_is_said_before():
    errors.report_once.cache_clear()


@pytest.mark.parametrize("name", first_of(APPS))
def test_the_unknown_words_of_your_own_files_are_counted(name, tmp_path, capsys):
    kind, options, said = APPS[name]
    write_own_files(tmp_path, kind, {"train": "plum", "valid": "pear"})
    app = importlib.import_module(f"unroll.apps.{name}.app")
    config = app.Config(data=str(tmp_path), **options)
    data = app.load(config, ("train", "valid"), training=True)
    assert f"unroll: valid: {said}." in capsys.readouterr().err.splitlines()
    errors.report_once.cache_clear()
    app.load(config, ("valid",), data.assets)
    assert "unknown (" not in capsys.readouterr().err  # it is said at training


def test_padding_is_no_word(capsys):
    rows = {"a": np.array([[3, 1, 0], [1, 4, 5]]), "b": np.array([[1], [2]])}
    dataset = tf.data.Dataset.from_tensor_slices((rows, [0, 1])).batch(1)
    for _ in range(2):  # said once
        report_unknown("valid", dataset, "a")
    report_unknown("valid", dataset, "a", "b", special=4, what="characters")
    report_unknown("valid", dataset, "b", unknown=7)
    report_unknown("valid", dataset.take(0), "a")
    assert capsys.readouterr().err.splitlines() == [
        "unroll: valid: 40.0 % of words are unknown (2 of 5).",
        "unroll: valid: 60.0 % of characters are unknown (3 of 5).",
    ]
