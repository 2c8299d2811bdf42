"""The private parts of Keras that the recurrent layers need. No other file uses any.

- `DropoutRNNCell`: `keras.layers.RNN` resets the dropout masks of a cell after each batch only if
  the cell is an instance of this class.
- `RNN._maybe_config_dropout_masks`: it samples dropout masks at inference too, which leaves random
  operations in an exported model.
- `RNN.inner_loop`: the loop over time, which `RecurrentLayer` replaces.

`tests/layers/test_keras_private.py` fails if Keras removes one of them or stops calling it.
"""

import keras

try:
    from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell
except ImportError as error:
    raise ImportError(
        f"Keras {keras.__version__} has no keras.src.layers.rnn.dropout_rnn_cell.DropoutRNNCell: "
        "unroll.layers supports Keras 3.13 to 3.15."
    ) from error

__all__ = ["DropoutRNNCell", "OwnLoopRNN"]


class OwnLoopRNN(keras.layers.RNN):
    """A `keras.layers.RNN` with a loop of its own, which also samples the dropout masks."""

    def _maybe_config_dropout_masks(self, cell, input_sequence, input_state):
        pass

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """The last output `[B, U]`, all outputs `[B, T, U]` and the list of final states."""
        raise NotImplementedError
