"""A residual block around a recurrent layer."""

import keras
from keras import activations, ops

from unroll.layers.dtype_policies import with_policy
from unroll.layers.masks import zero_masked
from unroll.layers.operations import add_bias, cast_to, full_precision, require_size, time_major
from unroll.layers.recurrent.base_cell import require_rates
from unroll.layers.recurrent.steps import Steps

NORMALIZATIONS = {
    "rms": keras.layers.RMSNormalization,
    "layer": keras.layers.LayerNormalization,
}


@keras.saving.register_keras_serializable(package="unroll")
class ResidualBlock(keras.layers.Layer):
    """A recurrent layer with what surrounds it in deep models: stack several of these blocks.

    De et al. 2024, "Griffin: mixing gated linear recurrences with local attention for efficient
    language models", sections 2.1 to 2.3; Gu and Dao 2023, "Mamba: linear-time sequence modeling
    with selective state spaces", section 3.4. With the input x:

        n = norm(x)
        u = n W_u + b_u                                       with `input_units`, else n
        c_t = sum_k K_k * u_{t - kernel_size + 1 + k} + b_c   with `kernel_size`, else u
        y = layer(c)
        y = y * activation(n W_g + b_g)                       if `gated`
        x = x + dropout(y W_o + b_o)

    and with `expansion`, for F = round(expansion * D):

        p, q = norm(x) W_1 + b_1, each with F columns
        x = x + dropout((activation(p) * q) W_2 + b_2)

    Steps that are masked are not part of the sequence: the convolution reads the last steps that
    are not masked, whatever is between them.

    Args:
        layer: the recurrent layer (of this package, or `keras.layers.RNN` and its subclasses). The
            block makes a copy of it that returns sequences and states. A layer that was created
            without a `dtype` gets the dtype policy of the block.
        input_units: the number of features that the input is projected to before the convolution,
            or None for no projection. It is for layers that work on the features of their input
            one by one.
        kernel_size: the number of steps that the causal depthwise convolution reads, at least 2, or
            None for no convolution.
        gated: whether a gate multiplies the output of the recurrent layer.
        expansion: the size of the feed-forward part in relation to that of the input, or None for
            no such part.
        activation: of the gate and of the feed-forward part.
        normalization: `"rms"` (Zhang and Sennrich 2019) or `"layer"` (Ba et al. 2016).
        epsilon: the number that the normalization adds to the mean square or to the variance.
        dropout: the fraction of the features to drop before each of the two sums.
        seed: the random seed of the dropout.
        return_state: whether to return the final states too.

    Call arguments:
        sequences: `[B, T, D]`.
        initial_state: a list of states in the order in which they are returned; zeros by default.
        mask: `[B, T]`, boolean. A step where it is False changes no state, and its output is zero.
        training: whether dropout applies.
        sequences_mask: set by Keras; pass `mask` instead.

    Returns:
        `[B, T, D]`. With `return_state` a tuple of that and the final states: with a convolution
        its last inputs, `[B, (kernel_size - 1) * features]`, the oldest first, and then those of
        the layer.

    Raises:
        ValueError: if `layer` is not recurrent, goes backwards or is stateful, if another argument
            is not one of these values, or if the number of initial states is wrong.

    >>> import numpy as np
    >>> from unroll.layers import MLSTM, ResidualBlock
    >>> block = ResidualBlock(MLSTM(8, heads=2), expansion=2)
    >>> block(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 3])

    Differs from the papers: the parts are those of Griffin, which has GELU as the activation, a
    block diagonal gate, and an expansion of 3. Mamba applies an activation after the convolution,
    too, and has no feed-forward part.
    """

    def __init__(
        self,
        layer: keras.layers.RNN,
        input_units: int | None = None,
        kernel_size: int | None = 4,
        gated: bool = True,
        expansion: float | None = None,
        activation="silu",
        normalization: str = "rms",
        epsilon: float = 1e-6,
        dropout: float = 0.0,
        seed: int | None = None,
        return_state: bool = False,
        **kwargs,
    ):
        label = type(self).__name__
        if not isinstance(layer, keras.layers.RNN):
            raise ValueError(f"{label}: layer must be recurrent (keras.layers.RNN), got {layer!r}.")
        for name in ("go_backwards", "stateful"):
            if getattr(layer, name):
                raise ValueError(
                    f"{label}: layer must have {name}=False, got {layer.name!r} with True."
                )
        if input_units is not None:
            input_units = require_size(f"{label}: input_units", input_units)
        if kernel_size is not None:
            kernel_size = require_size(f"{label}: kernel_size", kernel_size, minimum=2)
        if expansion is not None and not expansion > 0:
            raise ValueError(f"{label}: expansion must be above 0 or None, got {expansion!r}.")
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"{label}: normalization must be one of {tuple(NORMALIZATIONS)}, got "
                f"{normalization!r}."
            )
        require_rates(label, dropout=dropout)
        super().__init__(**kwargs)
        self.input_units = input_units
        self.kernel_size = kernel_size
        self.gated = gated
        self.expansion = expansion
        self.activation = activations.get(activation)
        self.normalization = normalization
        self.epsilon = epsilon
        self.dropout = dropout
        self.seed = seed
        self.return_state = return_state
        self.norm = self._normalization("norm")
        self.feed_forward_norm = self._normalization("feed_forward_norm") if expansion else None
        self.drop = keras.layers.Dropout(dropout, seed=seed, dtype=self.dtype_policy)
        config = {**layer.get_config(), "return_sequences": True, "return_state": True}
        copy = type(layer).from_config({**config, "name": "layer"})
        self.layer = with_policy(copy, self.dtype_policy)
        self.supports_masking = True

    def _normalization(self, name: str):
        return NORMALIZATIONS[self.normalization](
            epsilon=self.epsilon, dtype=self.dtype_policy, name=name
        )

    def build(self, sequences_shape):
        batch, time, size = sequences_shape
        self._size = size
        features = size if self.input_units is None else self.input_units
        self.norm.build(sequences_shape)
        self.layer.build((batch, time, features))
        units = self.layer.compute_output_shape((batch, time, features))[0][-1]
        if self.input_units is not None:
            self.input_weights = self._add_weights("input", (size, features))
        if self.kernel_size is not None:
            self.convolution_weights = self._add_weights(
                "convolution", (self.kernel_size, features)
            )
        if self.gated:
            self.gate_weights = self._add_weights("gate", (size, units))
        self.output_weights = self._add_weights("output", (units, size))
        if self.expansion:
            self.feed_forward_norm.build(sequences_shape)
            inner = max(1, round(self.expansion * size))
            self.feed_forward_weights = (
                self._add_weights("feed_forward", (size, 2 * inner)),
                self._add_weights("feed_forward_output", (inner, size)),
            )

    def _add_weights(self, name: str, shape) -> tuple:
        """A kernel of this shape, and its bias."""
        return (
            self.add_weight(shape=shape, name=f"{name}_kernel", initializer="glorot_uniform"),
            self.add_weight(shape=shape[1:], name=f"{name}_bias", initializer="zeros"),
        )

    def call(self, sequences, initial_state=None, mask=None, training=False, sequences_mask=None):
        # Keras fills `mask` if the sequences are the only tensor argument, else `sequences_mask`.
        mask = sequences_mask if mask is None else mask
        states = None if initial_state is None else list(initial_state)
        expected = len(self._state_sizes(sequences.shape[-1]))
        if states is not None and len(states) != expected:
            raise ValueError(f"{self.name} takes {expected} initial states, got {len(states)}.")

        def run(u):  # [B, T, features]
            window = []
            if self.kernel_size is not None:
                given = None if states is None else states.pop(0)
                u, *window = self._convolved(u, given, mask)
            y, *final = self.layer(u, initial_state=states, mask=mask, training=training)
            return y, [*window, *final]

        # Whatever a masked step contains, it affects neither outputs nor gradients.
        x, final = self._around(run, zero_masked(sequences, mask), training)
        x = zero_masked(x, mask)
        return (x, *final) if self.return_state else x

    def step(self, inputs, states) -> tuple:
        """One step, without a loop and without dropout.

        Args:
            inputs: `[B, D]`.
            states: as returned by the call with `return_state`, zeros before a sequence.

        Returns:
            The outputs `[B, D]`, and the list of the new states.
        """
        states = list(states)

        def run(u):  # [B, features]
            window = []
            if self.kernel_size is not None:
                kernel, bias = (
                    full_precision(ops.convert_to_tensor(w)) for w in self.convolution_weights
                )
                shape = (-1, self.kernel_size - 1, u.shape[-1])
                before = ops.reshape(cast_to(states.pop(0), u.dtype), shape)
                rows = ops.concatenate([before, u[:, None]], axis=1)  # [B, kernel_size, features]
                u = cast_to(ops.sum(full_precision(rows) * kernel, axis=1) + bias, u.dtype)
                window = [ops.reshape(rows[:, 1:], (-1, shape[1] * shape[2]))]
            y, final = self.layer.cell(u, states)
            return y, [*window, *final]

        return self._around(run, inputs, training=False)

    def _around(self, run, x, training) -> tuple:
        """The equations around the convolution and the recurrent layer, which `run` computes.

        Args:
            run: maps `[..., features]` to `[..., U]` and the final states.
            x: `[..., D]`.

        Returns:
            The outputs `[..., D]`, and the final states.
        """
        n = u = self.norm(x)
        if self.input_units is not None:
            u = projected(u, self.input_weights)
        y, final = run(u)
        if self.gated:
            y = y * self.activation(projected(n, self.gate_weights))
        x = x + self.drop(projected(y, self.output_weights), training=training)
        if self.expansion:
            first, second = self.feed_forward_weights
            p, q = ops.split(projected(self.feed_forward_norm(x), first), 2, axis=-1)
            x = x + self.drop(projected(self.activation(p) * q, second), training=training)
        return x, final

    def _convolved(self, u, window, mask):
        """The convolution, `[B, T, features]`, and its last inputs."""
        before, (kernel, bias) = self.kernel_size - 1, self.convolution_weights
        batch, time, features = (*ops.shape(u)[:2], u.shape[-1])
        if window is None:
            window = ops.zeros((batch, before * features), dtype=u.dtype)
        window = ops.reshape(cast_to(window, u.dtype), (batch, before, features))
        u, window = (ops.transpose(x, (1, 0, 2)) for x in (u, window))  # time first
        steps = Steps(u, None if mask is None else time_major(mask))
        rows, last = steps.extended(u, window)  # [T + kernel_size - 1, B, features]
        rows, weights = full_precision(rows), full_precision(ops.convert_to_tensor(kernel))
        c = sum(weights[k] * rows[k : k + time] for k in range(self.kernel_size))
        c = cast_to(c + full_precision(ops.convert_to_tensor(bias)), u.dtype)
        c = c if mask is None else steps.at(c, steps.before())
        last = ops.reshape(ops.transpose(last, (1, 0, 2)), (batch, before * features))
        return ops.transpose(c, (1, 0, 2)), last

    @property
    def state_size(self) -> list[int]:
        """The sizes of the states of a block that is built."""
        return self._state_sizes(self._size)

    def _state_sizes(self, size: int) -> list[int]:
        """The sizes of the states, for an input of this size."""
        features = size if self.input_units is None else self.input_units
        window = [] if self.kernel_size is None else [(self.kernel_size - 1) * features]
        return [*window, *self.layer.state_size]

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        shape = tuple(sequences_shape)
        if not self.return_state:
            return shape
        return (shape, *((shape[0], size) for size in self._state_sizes(shape[-1])))

    def compute_mask(self, inputs, mask=None):
        if not self.return_state:
            return mask
        return [mask] + [None] * len(self._state_sizes(inputs.shape[-1]))

    def get_config(self):
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "input_units": self.input_units,
            "kernel_size": self.kernel_size,
            "gated": self.gated,
            "expansion": self.expansion,
            "activation": activations.serialize(self.activation),
            "normalization": self.normalization,
            "epsilon": self.epsilon,
            "dropout": self.dropout,
            "seed": self.seed,
            "return_state": self.return_state,
        }

    @classmethod
    def from_config(cls, config):
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})


def projected(x, weights):
    """x W + b, for a pair of W and b."""
    kernel, bias = weights
    return add_bias(ops.matmul(x, kernel), bias)
