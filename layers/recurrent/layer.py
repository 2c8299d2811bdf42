"""The base class of recurrent layers: states, masks, dropout, the time loop."""

import contextlib
import inspect

import keras
from keras import ops

from unroll.layers.backend import fused_supports_jit, split_batch, steps_at_once, traced_format
from unroll.layers.operations import time_major
from unroll.layers.recurrent import fused
from unroll.layers.recurrent.base_cell import BaseCell


class RecurrentLayer(keras.layers.RNN):
    """Base class of recurrent layers: a `keras.layers.RNN` that runs its cell by `recurrence`.

    A subclass sets `cell_class`, a subclass of `RecurrentCell` or `LinearRecurrentCell` (which show
    examples), and may
    write out the arguments of its cell in a constructor of its own. On a CPU the two halves of a
    batch run in parallel, because the product of one step is too small for more than one core.

    Args:
        units: U, the size of the output.
        activity_regularizer: of the output.
        return_sequences: whether to return the output of every step instead of the last one.
        return_state: whether to return the final states too.
        go_backwards: whether to read the sequence from its end. The outputs are in the order of
            reading.
        stateful: whether each batch starts from the final states of the one before. A batch may
            have fewer sequences than the first one: those continue the first sequences of it.
        use_cudnn: whether to run on a fused kernel of the backend (cuDNN, oneDNN) instead of the
            loop. `"auto"` does so if the backend has one with the equations, activations and
            dropout of the layer, and with derivatives of any order. True requires it, and False
            forbids it. Masks of any kind are allowed. On JAX and TensorFlow only True selects a
            kernel, and a SavedModel made on TensorFlow then needs a GPU.
        unroll, implementation: accepted as in Keras's layers, without effect.
        zero_output_for_mask: whether the output of a masked step is zero instead of the output of
            the step before.
        **kwargs: the other arguments of the cell, and `name`, `dtype` and `trainable` of
            `keras.layers.Layer`.

    Call arguments:
        sequences: `[B, T, D]`.
        initial_state: list of `[B, U]`; zeros by default.
        mask: `[B, T]`, boolean. A step where it is False changes no state. By default the mask that
            Keras carries on the sequences.
        training: whether dropout applies.
        sequences_mask: set by Keras; pass `mask` instead.

    Returns:
        `[B, U]`, or `[B, T, U]` with `return_sequences`. With `return_state` a tuple of that and
        the final states.

    Raises:
        ValueError: as `RecurrentCell`, if `use_cudnn` is not one of these values, or is True where
            there is no fused kernel, if the number or the shapes of the initial states are not
            those of the cell, or if a stateful layer gets more sequences than it has states for.
    """

    cell_class: type[BaseCell]

    def __init__(
        self,
        units: int,
        *,
        activity_regularizer=None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: bool | str = "auto",
        zero_output_for_mask: bool = False,
        **kwargs,
    ):
        kwargs.pop("implementation", None)
        if use_cudnn not in ("auto", True, False):
            raise ValueError(
                f"{type(self).__name__}: use_cudnn must be 'auto', True or False, "
                f"got {use_cudnn!r}."
            )
        names = _constructor_arguments(self.cell_class)
        of_the_cell = {k: kwargs.pop(k) for k in list(kwargs) if k in names}
        of_both = {k: kwargs[k] for k in ("dtype", "trainable") if k in kwargs}
        with self._errors_name_the_layer():
            cell = self.cell_class(units, name="cell", **of_both, **of_the_cell)
        super().__init__(
            cell,
            activity_regularizer=activity_regularizer,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )
        self.use_cudnn = use_cudnn
        if use_cudnn is True and not fused_supports_jit():
            self.supports_jit = False
        self.without_effect = {"unroll": unroll}
        self.input_spec = keras.layers.InputSpec(ndim=3)

    @contextlib.contextmanager
    def _errors_name_the_layer(self):
        """A `ValueError` of the cell names the layer instead, which is what the user wrote."""
        try:
            yield
        except ValueError as error:
            message = str(error).removeprefix(f"{self.cell_class.__name__}: ")
            error.args = (f"{type(self).__name__}: {message}",)
            raise

    @property
    def units(self) -> int:
        return self.cell.units

    def build(self, sequences_shape, initial_state_shape=None):
        with self._errors_name_the_layer():
            if not self.cell.built:
                self.cell.build((sequences_shape[0], *sequences_shape[2:]))
                self.cell.built = True
            self.state_size = list(self.cell.state_size)  # a size may depend on that of the input
            super().build(sequences_shape, initial_state_shape)

    def call(self, sequences, initial_state=None, mask=None, training=False, sequences_mask=None):
        # Keras fills `mask` if the sequences are the only tensor argument, else `sequences_mask`.
        mask = sequences_mask if mask is None else mask
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        sequences = ops.cast(sequences, self.compute_dtype)
        if mask is not None:
            mask = ops.cast(mask, "bool")
            # Whatever a masked step contains, it affects neither outputs nor gradients.
            sequences = ops.where(ops.expand_dims(mask, -1), sequences, 0.0)
        states = self._initial_states(sequences, initial_state)
        last_output, outputs, states = self.inner_loop(sequences, states, mask, training)
        if self.stateful:
            self._store(states)
        output = outputs if self.return_sequences else last_output
        return (output, *states) if self.return_state else output

    def _initial_states(self, sequences, given) -> list:
        """The states before the first step, `[B, size]` each."""
        batch = ops.shape(sequences)[0]
        if given is not None:
            states = list(given) if isinstance(given, (list, tuple)) else [given]
            self._assert_states_fit(states, sequences.shape[0])
        elif self.stateful:
            self._assert_batch_fits(sequences)
            # A copy, because the variables are assigned to before a gradient is taken.
            states = [ops.copy(s)[:batch] for s in self.states]
        else:
            states = self.get_initial_state(batch)
        return [ops.cast(s, self.compute_dtype) for s in states]

    def _store(self, states):
        """Keeps the final states of a stateful layer; rows beyond the batch do not change."""
        for variable, state in zip(self.states, states, strict=True):
            rest = ops.convert_to_tensor(variable)[ops.shape(state)[0] :]
            variable.assign(ops.concatenate([ops.cast(state, rest.dtype), rest], axis=0))

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """The last output `[B, U]`, all outputs `[B, T, U]` and the final states."""
        cell = self.cell
        dropout_mask = None
        if training and cell.dropout:
            step = ops.zeros((ops.shape(sequences)[0], sequences.shape[2]), sequences.dtype)
            sequences = sequences * ops.expand_dims(cell.get_dropout_mask(step), 1)
        if training and cell.recurrent_dropout:
            dropout_mask = cell.get_recurrent_dropout_mask(initial_state[0])
        kernel_mask = cell.get_recurrent_weight_mask() if training else None
        noise = cell.noise(sequences) if training else None
        cell.reset_dropout_mask()
        cell.reset_recurrent_dropout_mask()
        with cell.masking_recurrent_kernel(kernel_mask):
            outputs, states = self._run(sequences, initial_state, mask, dropout_mask, noise)
        last_output = cell.read_out(states[0])
        outputs = cell.read_out(outputs)
        if mask is not None and self.zero_output_for_mask:
            outputs = ops.where(ops.expand_dims(mask, -1), outputs, 0.0)
        if self.go_backwards:
            outputs = ops.flip(outputs, axis=1)
        return last_output, outputs, states

    def _run(self, sequences, states, mask, dropout_mask, noise):
        """The first state after each step, `[B, T, U]`, and the final states."""
        cell = self.cell
        obstacle = fused.obstacle(cell, self.use_cudnn, (sequences, *states), dropout_mask)
        if obstacle is None:
            return fused.run(cell, sequences, states, mask, self.go_backwards)
        if self.use_cudnn is True and traced_format() is None:
            raise ValueError(f"{self.name}: use_cudnn is True, but {obstacle}.")
        batch = (sequences, states, mask, dropout_mask, noise)
        parts = [self._over_time(*part) for part in split_batch(batch, cell.multiply_adds)]
        outputs = _concatenate([h for h, _ in parts])
        return outputs, [_concatenate(s) for s in zip(*(s for _, s in parts), strict=True)]

    def _over_time(self, sequences, states, mask, dropout_mask, noise):
        """As `_run`, by the loop, for a part of the batch."""
        length = sequences.shape[1]
        steps = steps_at_once() or length
        if not length or length <= steps:
            return self._over_steps(sequences, states, mask, dropout_mask, noise)
        starts, collected = range(0, length, steps), []
        for t in reversed(starts) if self.go_backwards else starts:
            part = slice(t, t + steps)
            kept, drawn = (None if x is None else x[:, part] for x in (mask, noise))
            outputs, states = self._over_steps(
                sequences[:, part], states, kept, dropout_mask, drawn
            )
            collected.append(outputs)
        if self.go_backwards:
            collected.reverse()
        return ops.concatenate(collected, axis=1), states

    def _over_steps(self, sequences, states, mask, dropout_mask, noise):
        """As `_over_time`, with the projected inputs of all steps in memory."""
        options = {} if noise is None else {"noise": ops.transpose(noise, (1, 0, 2))}
        outputs, states = self.cell.over_time(
            ops.transpose(sequences, (1, 0, 2)),  # [T, B, D]
            states,
            None if mask is None else time_major(mask),
            dropout_mask,
            self.go_backwards,
            **options,
        )
        return ops.transpose(outputs, (1, 0, 2)), states

    def _assert_batch_fits(self, sequences):
        batch, rows = sequences.shape[0], self.states[0].shape[0]
        if batch is not None and batch > rows:
            raise ValueError(
                f"{self.name} is stateful and has states for {rows} sequences, got a batch of "
                f"{batch}."
            )

    def _assert_states_fit(self, states, batch):
        given = [tuple(s.shape) for s in states]
        expected = [(batch, size) for size in self.state_size]
        if len(given) != len(expected) or any(
            len(a) != 2 or any(m != n and None not in (m, n) for m, n in zip(a, b, strict=True))
            for a, b in zip(given, expected, strict=True)
        ):
            raise ValueError(
                f"{self.name} takes initial states of the shapes {expected}, got {given}."
            )

    def get_config(self):
        config, cell = super().get_config(), self.cell.get_config()
        for name in ("name", "dtype", "trainable"):  # the layer has its own
            cell.pop(name)
        config.pop("cell")
        return {**config, **self.without_effect, "use_cudnn": self.use_cudnn, **cell}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _constructor_arguments(cell_class: type) -> set[str]:
    """The names of the arguments of a cell, without those of `keras.layers.Layer`."""
    names = set()
    for base in cell_class.__mro__:
        if base is keras.layers.Layer:
            break
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()
            names |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
    return names - {"self"}


def _concatenate(parts):
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)
