"""Long short-term memory."""

import keras
from keras import initializers, ops

from unroll.layers.backend import sigmoid_gradient, tanh_gradient
from unroll.layers.initializers import clone_initializer
from unroll.layers.operations import require_size
from unroll.layers.recurrent.cell import GatedCell, forwarded
from unroll.layers.recurrent.layer import RecurrentLayer
from unroll.layers.recurrent.recurrence import StepWithGradient, recurrence


class LSTMStep(StepWithGradient):
    """The step of an `LSTMCell` whose activations are tanh and the logistic function.

    Args:
        cell: the cell.
    """

    needs_state_gradients = False

    def __init__(self, cell):
        super().__init__(cell.step)
        self.cell = cell

    def run(self, z, states, weights):
        return self.cell.step_and_activations(z, states, *weights)

    def gradient(self, stored, states, weights, d_new):
        i, f, g, o, t = stored
        d_h, d_c = d_new
        d_o = sigmoid_gradient(o, d_h * t)
        d_c = d_c + tanh_gradient(t, d_h * o)
        d_i = sigmoid_gradient(i, d_c * g)
        d_f = sigmoid_gradient(f, d_c * states[1])
        d_g = tanh_gradient(g, d_c * i)
        return ops.concatenate([d_i, d_f, d_g, d_o], axis=-1), (None, d_c * f)

    def weight_gradients(self, stored, states, weights, d_z, d_new):
        return ()


@keras.saving.register_keras_serializable(package="unroll")
class LSTMCell(GatedCell):
    """One step of an LSTM with a forget gate.

    Hochreiter and Schmidhuber 1997, "Long short-term memory". The forget gate is from Gers,
    Schmidhuber and Cummins 2000, "Learning to forget":

        i, f, o = sigmoid(x W + h R + b), each with its own columns
        g = tanh(x W + h R + b)
        c' = f * c + i * g
        h' = o * tanh(c')

    The columns of the weights are in the order i, f, g, o, as in `keras.layers.LSTMCell`:
    `set_weights` copies weights between the two.

    With `projection`, h has P units (Sak, Senior and Beaufays 2014, "Long short-term memory based
    recurrent neural network architectures for large vocabulary speech recognition", the recurrent
    projection layer). R is then `[P, 4 U]`, and V is `projection_kernel`, `[U, P]`:

        h' = (o * tanh(c')) V

    With zoneout (Krueger et al. 2017, "Zoneout: regularizing RNNs by randomly preserving hidden
    activations"), each unit of a state keeps its value with the given probability in training. At
    inference the new state is the mean. With c' and h' from the equations above:

        c'' = d_c * c + (1 - d_c) * c'
        h'' = d_h * h + (1 - d_h) * h'

    where d is 0 or 1 for each unit, sequence and step in training, and the probability at
    inference.

    The states are h, `[B, P]` or `[B, U]`, and c, `[B, U]`. With a projection, a limit of c or
    zoneout, there is no fused kernel (`use_cudnn`): the layer runs, and is exported, as a loop.

    Args:
        unit_forget_bias: whether the bias of the forget gate starts at one (Jozefowicz et al.
            2015).
        projection: P, the size of h and of the output; by default U, without V.
            `kernel_initializer` is also the initializer of V.
        projection_clip: the largest absolute value of h after the projection.
        cell_clip: the largest absolute value of c', before the output is computed from it.
        zoneout_cell, zoneout_hidden: the probabilities with which a unit of c, and one of h, keeps
            its value in a step.
        The others are those of `GatedCell`.

    Raises:
        ValueError: if `projection` is not an integer of at least 1, a limit is not above 0, there
            is a `projection_clip` without a `projection`, or a probability is not in [0, 1].
            Also if a cell with zoneout is called in training by another loop than that of its layer
            (`LSTM`), such as `keras.layers.RNN`: the layer draws the random numbers of all steps
            before the loop.

    Differs from the papers: there is no non-recurrent projection. Differs from Keras: recurrent
    dropout uses one mask for all gates.
    """

    gates = 4
    states = 2
    forget_gate = 1  # its index among the gates

    def __init__(
        self,
        units: int,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        *,
        recurrent_weight_dropout: float = 0.0,
        projection: int | None = None,
        projection_clip: float | None = None,
        cell_clip: float | None = None,
        zoneout_cell: float = 0.0,
        zoneout_hidden: float = 0.0,
        **kwargs,
    ):
        super().__init__(
            **forwarded(
                locals(),
                "unit_forget_bias",
                "projection",
                "projection_clip",
                "cell_clip",
                "zoneout_cell",
                "zoneout_hidden",
            )
        )
        label = type(self).__name__
        if projection is not None:
            projection = require_size(f"{label}: projection", projection)
        elif projection_clip is not None:
            raise ValueError(f"{label}: projection_clip needs a projection, got {projection_clip}.")
        for name, limit in (("projection_clip", projection_clip), ("cell_clip", cell_clip)):
            if limit is not None and not limit > 0:
                raise ValueError(f"{label}: {name} must be above 0, got {limit!r}.")
        for name, rate in (("zoneout_cell", zoneout_cell), ("zoneout_hidden", zoneout_hidden)):
            if not 0 <= rate <= 1:
                raise ValueError(f"{label}: {name} must be in [0, 1], got {rate!r}.")
        self.unit_forget_bias = unit_forget_bias
        self.projection = projection
        self.projection_clip = projection_clip
        self.cell_clip = cell_clip
        self.zoneout_cell = zoneout_cell
        self.zoneout_hidden = zoneout_hidden
        self.output_size = projection or units
        self.state_size = [self.output_size, units]

    def build(self, input_shape):
        super().build(input_shape)
        self.projection_kernel = None
        if self.projection is not None:
            self.projection_kernel = self.add_weight(
                shape=(self.units, self.projection),
                name="projection_kernel",
                initializer=clone_initializer(self.kernel_initializer),
            )

    def initial_bias(self, shape, dtype=None):
        bias = super().initial_bias(shape, dtype)
        if not self.unit_forget_bias:
            return bias
        parts = ops.split(bias, self.gates)
        parts[self.forget_gate] = initializers.Ones()(parts[0].shape, dtype=dtype)
        return ops.concatenate(parts)

    @property
    def is_plain(self) -> bool:
        """Whether the equations are those above, with tanh and the logistic function."""
        own = (self.projection, self.cell_clip, self.zoneout_cell, self.zoneout_hidden)
        return self.has_default_activations and not any(own)

    @property
    def fused_kernel(self):
        return "lstm" if self.is_plain else None

    @property
    def step_with_gradient(self):
        return LSTMStep(self) if self.is_plain else None

    @property
    def multiply_adds(self):
        return super().multiply_adds + self.units * (self.projection or 0)

    def step(self, z, states, *weights):
        return self.step_and_activations(z, states, *weights)[0]

    def step_and_activations(self, z, states):
        """The new states, and the activations from which they are computed.

        The latter are what the gradient of the step needs: those of the gates in the order of the
        columns, and tanh(c').
        """
        _, c = states
        i, f, g, o = ops.split(z, 4, axis=-1)  # [..., U] each
        gate, activation = self.recurrent_activation, self.activation
        i, f, g, o = gate(i), gate(f), activation(g), gate(o)
        c = self.clip(f * c + i * g)  # [..., U]
        t = activation(c)
        return (o * t, c), (i, f, g, o, t)

    def clip(self, c):
        """c within the limits of `cell_clip`: each `step` of the family applies it to c'."""
        return c if self.cell_clip is None else ops.clip(c, -self.cell_clip, self.cell_clip)

    def loop_weights(self, dropout_mask=None):
        weights = self.step_weights(dropout_mask)
        return weights if self.projection is None else (*weights, self.projection_kernel)

    def loop_step(self, z, states, *weights, kept=None):
        """`step`, and then the projection and zoneout.

        Args:
            z, states, *weights: as in `step`; with a projection, V is the last of the weights.
            kept: d for h and for c; by default the probabilities.
        """
        if self.projection is not None:
            *weights, projection_kernel = weights
        h, c = self.step(z, states, *weights)
        if self.projection is not None:
            h = ops.matmul(h, projection_kernel)  # [..., P]
        if self.projection_clip is not None:
            h = ops.clip(h, -self.projection_clip, self.projection_clip)
        if not self.has_zoneout:
            return h, c
        kept = kept or (self.zoneout_hidden, self.zoneout_cell)
        rows = zip(kept, states, (h, c), strict=True)
        return tuple(d * before + (1 - d) * after for d, before, after in rows)

    @property
    def has_zoneout(self) -> bool:
        return bool(self.zoneout_cell or self.zoneout_hidden)

    def noise(self, sequences):
        """d for the units of h and c, at each step of a training batch."""
        if not self.has_zoneout:
            return None
        shape, rates = ops.shape(sequences)[:2], (self.zoneout_hidden, self.zoneout_cell)
        kept = [
            keras.random.uniform((*shape, size), seed=self.seed_generator, dtype="float32") < rate
            for size, rate in zip(self.state_size, rates, strict=True)
        ]
        return ops.cast(ops.concatenate(kept, axis=-1), self.compute_dtype)  # [B, T, P + U]

    def over_time(self, inputs, states, mask, dropout_mask, reverse, noise=None):
        if noise is None:
            return super().over_time(inputs, states, mask, dropout_mask, reverse)
        x, added = self.project(inputs), self.added_columns
        start, end = x.shape[-1], x.shape[-1] + noise.shape[-1]  # the columns of the noise in z

        def step(z, states, *weights):
            kept = ops.split(z[..., start:end], [self.state_size[0]], axis=-1)
            if end == z.shape[-1]:
                z = z[..., :start]
            else:
                z = ops.concatenate([z[..., :start], z[..., end:]], axis=-1)
            return self.loop_step(z, states, *weights, kept=kept)

        return recurrence(
            step,
            ops.concatenate([x, noise], axis=-1),
            states,
            self.loop_kernel,
            self.loop_weights(dropout_mask),
            added_columns=start if added is None else added,
            mask=mask,
            dropout_mask=dropout_mask,
            reverse=reverse,
        )

    def call(self, inputs, states, training=False):
        if training and self.has_zoneout:
            raise ValueError(
                f"{self.name}: in training, zoneout needs the layer of the cell, such as LSTM, "
                "which draws the random numbers of all steps before its loop; this is a call of "
                f"the cell {type(self).__name__} in another loop."
            )
        return super().call(inputs, states, training)

    def get_config(self):
        return {
            **super().get_config(),
            "unit_forget_bias": self.unit_forget_bias,
            "projection": self.projection,
            "projection_clip": self.projection_clip,
            "cell_clip": self.cell_clip,
            "zoneout_cell": self.zoneout_cell,
            "zoneout_hidden": self.zoneout_hidden,
        }


@keras.saving.register_keras_serializable(package="unroll")
class LSTM(RecurrentLayer):
    """An LSTM over time, with the arguments and weights of `keras.layers.LSTM`.

    `LSTMCell` has the equations. `RecurrentLayer` describes the call and the arguments that the
    cell does not have; `unroll` has no effect.

    >>> import numpy as np
    >>> from unroll.layers import LSTM
    >>> LSTM(8, return_sequences=True)(np.zeros((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    cell_class = LSTMCell

    def __init__(
        self,
        units: int,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: bool | str = "auto",
        zero_output_for_mask: bool = False,
        *,
        recurrent_weight_dropout: float = 0.0,
        projection: int | None = None,
        projection_clip: float | None = None,
        cell_clip: float | None = None,
        zoneout_cell: float = 0.0,
        zoneout_hidden: float = 0.0,
        **kwargs,
    ):
        super().__init__(**forwarded(locals()))
