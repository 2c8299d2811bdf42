"""Stacks of recurrent layers, in one or both directions."""

import keras
from keras import ops

from unroll.layers.dtype_policies import with_policy


@keras.saving.register_keras_serializable(package="unroll")
class Stack(keras.layers.Layer):
    """A stack of recurrent layers, optionally bidirectional and with skip connections.

    Deep: Graves, Mohamed and Hinton 2013, "Speech recognition with deep recurrent neural networks";
    bidirectional: Schuster and Paliwal 1997; residual: Wu et al. 2016, "Google's neural machine
    translation system"; dense: Huang et al. 2017, "Densely connected convolutional networks". With
    the layers f_1, ..., f_K and the input x_0:

        no skip    x_k = f_k(x_{k-1})
        residual   x_k = f_k(x_{k-1}) + x_{k-1}, if both have the same size
        dense      x_k = f_k([x_0; ...; x_{k-1}]), and the output is [x_1; ...; x_K]

    Args:
        layers: the recurrent layers (of this package, or `keras.layers.RNN` and its subclasses),
            the first one first. The stack makes copies of them that return sequences and states.
            A layer that was created without a `dtype` gets the dtype policy of the stack.
        bidirectional: whether each layer reads in both directions and concatenates the outputs.
        skip: `None`, `"residual"` or `"dense"`.
        dropout: the fraction of the features to drop between two layers.
        seed: the random seed of the dropout.
        return_state: whether to return the final states too.

    Call arguments:
        sequences: `[B, T, D]`.
        initial_state: a list of states in the order in which they are returned; zeros by default.
        mask: `[B, T]`, boolean. A step where it is False changes no state. Its output is zero with
            `bidirectional`, and that of the step before otherwise.
        training: whether dropout applies.
        sequences_mask: set by Keras; pass `mask` instead.

    Returns:
        `[B, T, units of the last layer]`, doubled with `bidirectional`; the outputs of all layers
        with the dense skip. With `return_state` a tuple of that and the final states of all layers,
        the first layer first, the forward states of a layer before the backward ones.

    Raises:
        ValueError: if `layers` is empty or has a layer that is not recurrent or goes backwards, if
            `skip` or `dropout` is not one of these values, or if the number of initial states is
            wrong.

    >>> import numpy as np
    >>> from unroll.layers import LSTM, Stack
    >>> Stack([LSTM(8), LSTM(8)], bidirectional=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 16])

    Differs from the papers: nothing.
    """

    def __init__(
        self,
        layers: list[keras.layers.RNN],
        bidirectional: bool = False,
        skip: str | None = None,
        dropout: float = 0.0,
        seed: int | None = None,
        return_state: bool = False,
        **kwargs,
    ):
        label = type(self).__name__
        if not layers:
            raise ValueError(f"{label}: layers must have at least one layer, got {layers!r}.")
        for layer in layers:
            if not isinstance(layer, keras.layers.RNN):
                raise ValueError(
                    f"{label}: layers must be recurrent (keras.layers.RNN), got {layer!r}."
                )
            if layer.go_backwards:  # its outputs would not be in the order of the mask
                raise ValueError(
                    f"{label}: layers must have go_backwards=False, got {layer.name!r}: "
                    "use bidirectional=True, or reverse the sequences."
                )
        if skip not in (None, "residual", "dense"):
            raise ValueError(f"{label}: skip must be None, 'residual' or 'dense', got {skip!r}.")
        if not 0 <= dropout <= 1:
            raise ValueError(f"{label}: dropout must be in [0, 1], got {dropout!r}.")
        super().__init__(**kwargs)
        self.bidirectional = bidirectional
        self.skip = skip
        self.dropout = dropout
        self.seed = seed
        self.return_state = return_state
        self.layers = [self._copy(layer, k) for k, layer in enumerate(layers)]
        self.drop = keras.layers.Dropout(dropout, seed=seed, dtype=self.dtype_policy)
        self.supports_masking = True

    def _copy(self, layer, k):
        config = {**layer.get_config(), "name": f"layer_{k}"}
        config |= {"return_sequences": True, "return_state": True}
        copy = with_policy(type(layer).from_config(config), self.dtype_policy)
        if not self.bidirectional:
            return copy
        return keras.layers.Bidirectional(copy, dtype=self.dtype_policy, name=f"layer_{k}")

    def build(self, input_shape):
        shape = tuple(input_shape)
        width = 0
        for layer in self.layers:
            layer.build(shape)
            out = layer.compute_output_shape(shape)[0][-1]
            width = shape[-1] if self.skip == "dense" else 0
            shape = (*shape[:-1], out + width)

    def call(self, sequences, initial_state=None, mask=None, training=False, sequences_mask=None):
        # Keras fills `mask` if the sequences are the only tensor argument, else `sequences_mask`.
        mask = sequences_mask if mask is None else mask
        expected = sum(self._state_count(layer) for layer in self.layers)
        if initial_state is not None and len(initial_state) != expected:
            raise ValueError(
                f"{self.name} takes {expected} initial states, got {len(initial_state)}."
            )
        x = sequences  # [B, T, D]
        if mask is not None and self.skip:
            # Whatever a masked step contains, it affects neither outputs nor gradients.
            x = ops.where(ops.expand_dims(ops.cast(mask, "bool"), -1), x, 0.0)
        collected, states = [], []
        for k, layer in enumerate(self.layers):
            if k:
                x = self.drop(x, training=training)
            given = None
            if initial_state is not None:
                count = self._state_count(layer)
                given, initial_state = initial_state[:count], initial_state[count:]
            y, *new = layer(x, initial_state=given, mask=mask, training=training)  # [B, T, U]
            states.extend(new)
            collected.append(y)
            if self.skip == "dense":
                x = ops.concatenate([x, y], axis=-1)
            elif self.skip == "residual" and x.shape[-1] == y.shape[-1]:
                x = x + y
            else:
                x = y
        outputs = ops.concatenate(collected, axis=-1) if self.skip == "dense" else x
        return (outputs, *states) if self.return_state else outputs

    def _state_count(self, layer) -> int:
        return (
            2 * len(layer.forward_layer.state_size) if self.bidirectional else len(layer.state_size)
        )

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        shape = tuple(sequences_shape)
        shapes = [layer.compute_output_shape(shape) for layer in self.layers]
        widths = [s[0][-1] for s in shapes]
        width = sum(widths) if self.skip == "dense" else widths[-1]
        outputs = (*shape[:-1], width)
        if not self.return_state:
            return outputs
        return (outputs, *(state for s in shapes for state in s[1:]))

    def compute_mask(self, inputs, mask=None):
        if not self.return_state:
            return mask
        return [mask] + [None] * sum(self._state_count(layer) for layer in self.layers)

    def get_config(self):
        plan = [layer.forward_layer if self.bidirectional else layer for layer in self.layers]
        return {
            **super().get_config(),
            "layers": [keras.saving.serialize_keras_object(layer) for layer in plan],
            "bidirectional": self.bidirectional,
            "skip": self.skip,
            "dropout": self.dropout,
            "seed": self.seed,
            "return_state": self.return_state,
        }

    @classmethod
    def from_config(cls, config):
        layers = [keras.saving.deserialize_keras_object(layer) for layer in config["layers"]]
        return cls(**{**config, "layers": layers})
