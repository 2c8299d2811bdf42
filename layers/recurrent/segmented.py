"""Long sequences read in segments."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="unroll")
class Segmented(keras.layers.Wrapper):
    """Runs a recurrent layer on segments of a sequence, each on its own and all at once.

    Johnson and Zhang 2016, "Supervised and semi-supervised text categorization using LSTM for
    region embeddings", section 2.2: a document is chopped into segments, read in parallel from the
    same first state, and pooled over as a whole. What a long document loses in memory it gains in
    speed, for the time loop is only as long as a segment.

    Args:
        layer: a layer from `[B, T, D]` to `[B, T, U]`, such as `Stack` or a recurrent layer with
            `return_sequences`.
        length: of a segment, in steps.

    Call arguments:
        sequences: `[B, T, D]`, of any T.
        mask: `[B, T]`, boolean, handed on to the layer.
        training: handed on to the layer.

    Returns:
        `[B, T, U]`.

    Raises:
        ValueError: if `length` is below one.

    >>> import numpy as np
    >>> from unroll.layers import LSTM, Segmented
    >>> Segmented(LSTM(4, return_sequences=True), 5)(np.zeros((2, 12, 3), "float32")).shape
    TensorShape([2, 12, 4])

    Differs from the paper: segments do not overlap.
    """

    def __init__(self, layer, length, **kwargs):
        if not isinstance(length, int) or length < 1:
            raise ValueError(f"length must be an integer of at least 1, got {length!r}.")
        super().__init__(layer, **kwargs)
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
