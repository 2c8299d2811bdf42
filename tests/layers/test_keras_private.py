"""Keras still has the private parts that `layers/recurrent/keras_private.py` uses.

A failure here names what a new version of Keras has changed.
"""

import re
from pathlib import Path

import keras
import pytest

import unroll.layers
from tests.layers.case import SEQUENCES, U
from unroll import layers
from unroll.layers.recurrent.keras_private import DropoutRNNCell


@pytest.mark.parametrize(
    "name",
    [
        "get_dropout_mask",
        "get_recurrent_dropout_mask",
        "reset_dropout_mask",
        "reset_recurrent_dropout_mask",
    ],
)
def test_dropout_cell_has_the_method(name):
    assert callable(getattr(DropoutRNNCell, name, None)), f"DropoutRNNCell.{name} is missing"


def test_keras_rnn_resets_the_dropout_masks_after_each_batch():
    cell = layers.LSTMCell(U, dropout=0.5, recurrent_dropout=0.5)
    rnn = keras.layers.RNN(cell)
    rnn(SEQUENCES.astype("float32"), training=True)
    assert cell._dropout_mask is None
    assert cell._recurrent_dropout_mask is None


def test_no_other_file_imports_private_keras():
    root = Path(unroll.layers.__file__).parent
    files = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if re.search(r"\bkeras\.src\b|\bkeras\._", path.read_text(encoding="utf-8"))
    }
    assert files == {"recurrent/keras_private.py"}
