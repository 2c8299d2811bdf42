"""Recurrent layers on segments of a sequence."""

import keras
from keras import ops

from unroll.layers.dtype_policies import with_policy
from unroll.layers.operations import require_size


@keras.saving.register_keras_serializable(package="unroll")
class Segmented(keras.layers.Wrapper):
    """Runs a recurrent layer on the segments of a sequence, in parallel.

    Johnson and Zhang 2016, "Supervised and semi-supervised text categorization using LSTM for
    region embeddings", section 2.2: a document is divided into segments, all of which start from
    the same state. Pool over the whole output. The loop has only as many steps as a segment, so a
    long document takes less time; no state passes from one segment to the next.

    Args:
        layer: a layer from `[B, T, D]` to `[B, T, U]`, such as `Stack` or a recurrent layer with
            `return_sequences`. Created without a `dtype`, it gets the dtype policy of this layer.
        length: the number of steps of a segment.

    Call arguments:
        sequences: `[B, T, D]`, of any T.
        mask: `[B, T]`, boolean; passed on to the layer.
        training: passed on to the layer.

    Returns:
        `[B, T, U]`.

    Raises:
        ValueError: if `length` is not an integer of at least 1.

    >>> import numpy as np
    >>> from unroll.layers import LSTM, Segmented
    >>> Segmented(LSTM(4, return_sequences=True), 5)(np.zeros((2, 12, 3), "float32")).shape
    TensorShape([2, 12, 4])

    Differs from the paper: segments do not overlap.
    """

    def __init__(self, layer, length: int, **kwargs):
        length = require_size(f"{type(self).__name__}: length", length)
        super().__init__(with_policy(layer, kwargs.get("dtype")), **kwargs)
        self.length = length
        self.supports_masking = True

    def build(self, input_shape):
        self.layer.build((None, self.length, input_shape[-1]))

    def call(self, sequences, mask=None, training=False):
        batch, time = ops.shape(sequences)[0], ops.shape(sequences)[1]
        if mask is None:
            mask = ops.ones((batch, time), dtype="bool")
        missing = -time % self.length
        count = (time + missing) // self.length
        padding = ops.zeros((batch, missing, sequences.shape[-1]), dtype=sequences.dtype)
        folded = ops.reshape(
            ops.concatenate([sequences, padding], axis=1),
            (batch * count, self.length, sequences.shape[-1]),
        )  # [B * segments, length, D]
        nothing = ops.zeros((batch, missing), dtype="bool")
        folded_mask = ops.reshape(
            ops.concatenate([ops.cast(mask, "bool"), nothing], axis=1), (batch * count, self.length)
        )
        outputs = self.layer(folded, mask=folded_mask, training=training)
        outputs = ops.reshape(outputs, (batch, count * self.length, outputs.shape[-1]))
        return outputs[:, :time]  # [B, T, U]

    def compute_output_shape(self, sequences_shape):
        return self.layer.compute_output_shape(sequences_shape)

    def compute_mask(self, inputs, mask=None):
        return mask

    def get_config(self):
        return {**super().get_config(), "length": self.length}
