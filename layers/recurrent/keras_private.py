"""The private part of Keras that the recurrent layers need. No other file uses any.

`DropoutRNNCell`: `keras.layers.RNN` resets the dropout masks of a cell after each batch only if the
cell is an instance of this class.

`tests/layers/test_keras_private.py` fails if Keras removes it or stops using it.
"""

import keras

try:
    from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell
except ImportError as error:
    raise ImportError(
        f"Keras {keras.__version__} has no keras.src.layers.rnn.dropout_rnn_cell.DropoutRNNCell: "
        "unroll.layers supports Keras 3.13 to 3.15."
    ) from error

__all__ = ["DropoutRNNCell"]
