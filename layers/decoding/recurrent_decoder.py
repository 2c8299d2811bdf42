"""A recurrent decoder: a state, and the words so far, to the next word."""

import keras
from keras import ops

from unroll.layers.operations import argmax, require_size
from unroll.layers.recurrent.recurrence import scan


@keras.saving.register_keras_serializable(package="unroll")
class RecurrentDecoder(keras.layers.Layer):
    """Recurrent cells that write a sequence of words, each after those before it.

    The language model of Mikolov et al. 2010 and the decoder of Sutskever, Vinyals and Le 2014,
    "Sequence to sequence learning with neural networks". With E the embedding of words and s_t the
    states of the cells, the output of the last of which is h_t:

        s_t = cells(E y_{t-1}, s_{t-1})
        logits = W_o h_t + b_o, or E^T h_t + b_o where they are tied

    With `first_input` x the states before the first word are cells(x, s): the picture that starts
    Show and Tell (Vinyals et al. 2015, equations 10 and 11).

    Args:
        vocabulary_size: V.
        embedding_dim: of E.
        cells: the recurrent cells, from the bottom up, without dropout of their own.
        tie_weights: whether the output uses E (Press and Wolf 2017); h must then have its size.
        dropout: the share of E y and of h to drop in training.
        scheduled_sampling: the probability, in training, that a step reads the likeliest word of
            the step before instead of the given one (Bengio et al. 2015). It is the start value of
            the variable `sampling_probability`, which a schedule may assign; no gradient flows
            through the choice.
        seed: of dropout and sampling.

    Call arguments:
        tokens: `[B, T]`, integers: what each step reads, the start symbol first.
        initial_state: list of the cells' states, `[B, size]` each (`cell_state_sizes`); zeros by
            default.
        first_input: `[B, embedding_dim]`, what the cells read before the tokens.
        training: whether dropout and scheduled sampling apply.

    Returns:
        The logits `[B, T, V]`.

    Raises:
        ValueError: if an argument is none of the above, or the initial states do not fit.

    >>> import keras, numpy as np
    >>> from unroll import layers
    >>> decoder = layers.RecurrentDecoder(50, 8, cells=[layers.LSTMCell(16)])
    >>> picture = np.ones((2, 8), "float32")
    >>> decoder(np.ones((2, 4), "int32"), first_input=picture).shape
    TensorShape([2, 4, 50])
    >>> states = decoder.initial_states(2, first_input=picture)
    >>> layers.greedy(decoder.step_function(), states, start=1, end=2, max_length=7).tokens.shape
    TensorShape([2, 7])

    Differs from the papers: nothing.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_dim: int,
        cells: list,
        tie_weights: bool = False,
        dropout: float = 0.0,
        scheduled_sampling: float = 0.0,
        seed: int | None = None,
        **kwargs,
    ):
        require_size("vocabulary_size", vocabulary_size)
        require_size("embedding_dim", embedding_dim)
        if not cells:
            raise ValueError(f"{type(self).__name__} needs at least one cell, got none.")
        for cell in cells:
            if getattr(cell, "dropout", 0) or getattr(cell, "recurrent_dropout", 0):
                raise ValueError(
                    f"the cells of a decoder have no dropout of their own, {cell.name} has: "
                    "use the decoder's."
                )
        if not 0 <= scheduled_sampling <= 1:
            raise ValueError(f"scheduled_sampling must lie in [0, 1], got {scheduled_sampling!r}.")
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.embedding_dim = embedding_dim
        self.cells = list(cells)
        self.tie_weights = tie_weights
        self.dropout = dropout
        self.scheduled_sampling = scheduled_sampling
        self.seed = seed
        policy = self.dtype_policy
        self.embedding = keras.layers.Embedding(
            vocabulary_size, embedding_dim, dtype=policy, name="embedding"
        )
        self.drop = keras.layers.Dropout(dropout, seed=seed, dtype=policy)
        if scheduled_sampling:
            self.seed_generator = keras.random.SeedGenerator(seed)

    @property
    def cell_state_sizes(self) -> list[int]:
        """The sizes of the cells' states, from the bottom up."""
        return [
            size
            for cell in self.cells
            for size in (
                cell.state_size if hasattr(cell.state_size, "__len__") else [cell.state_size]
            )
        ]

    @property
    def _step_layers(self) -> list:
        """The layers that a step in training runs through."""
        return self.cells

    def build(self, tokens_shape):
        self._build_words(tokens_shape, self._build_cells(self.embedding_dim))

    def _build_cells(self, width: int) -> int:
        """Builds the cells for inputs of this width; returns that of their output."""
        for cell in self.cells:
            build_once(cell, (None, width))
            width = cell.output_size
        return width

    def _build_words(self, tokens_shape, width: int):
        """Builds what turns words into vectors, and vectors of this width into logits."""
        if self.tie_weights and width != self.embedding_dim:
            raise ValueError(
                f"tie_weights=True needs outputs of the embedding's size, {self.embedding_dim}, got "
                f"{width}."
            )
        self.embedding.build(tokens_shape)
        self.output_kernel = None
        if not self.tie_weights:
            self.output_kernel = self.add_weight(
                name="output_kernel",
                shape=(width, self.vocabulary_size),
                initializer="glorot_uniform",
            )
        self.output_bias = self.add_weight(
            name="output_bias", shape=(self.vocabulary_size,), initializer="zeros"
        )
        self.sampling_probability = None
        if self.scheduled_sampling:
            self.sampling_probability = self.add_weight(
                name="sampling_probability",
                shape=(),
                initializer=keras.initializers.Constant(self.scheduled_sampling),
                trainable=False,
            )
        self.built = True

    def initial_states(self, batch_size, initial_state=None, first_input=None) -> list:
        """The states before the first word, `[B, size]` each.

        Args:
            batch_size: B, where there is no initial state.
            initial_state, first_input: as in the call.
        """
        sizes = self.cell_state_sizes
        if initial_state is None:
            states = [ops.zeros((batch_size, n), self.compute_dtype) for n in sizes]
        else:
            states = [ops.cast(s, self.compute_dtype) for s in initial_state]
            found = [s.shape[-1] for s in states]
            if found != sizes:
                raise ValueError(
                    f"{self.name} takes initial states of the sizes {sizes}, got {found}. A Dense "
                    "layer makes an encoder's states fit."
                )
        if first_input is not None:
            _, states = self._run_cells(ops.cast(first_input, self.compute_dtype), states)
        return states

    def step(self, tokens, states):
        """One step, as in the search of a sequence.

        Args:
            tokens: `[N]`, integers: the words before.
            states: as `initial_states` and this method return them.

        Returns:
            A tuple of the logits `[N, V]`, the new states and None, for there are no weights.
        """
        h, states = self._run_cells(self.embedding(tokens), list(states))
        return self._logits(h), states, None

    def step_function(self):
        """`step`, as a search takes it: `(tokens, states) -> (logits, states, None)`."""
        return self.step

    def call(self, tokens, initial_state=None, first_input=None, training=False):
        states = self.initial_states(ops.shape(tokens)[0], initial_state, first_input)

        def advance(x, states, constants):
            h, states = self._run_cells(x, states)
            return (h,), states

        (features,) = self._unroll(tokens, states, advance, (), training)
        return self._logits(features)

    def _unroll(self, tokens, states, advance, constants, training) -> tuple:
        """The outputs of all steps, `[B, T, ...]` each, the first of which becomes logits.

        `advance(x [B, E], states, constants)` is one step, and gives the outputs and new states.
        """
        x = self.drop(self.embedding(tokens), training=training)  # [B, T, E]
        xs = [ops.transpose(x, (1, 0, 2))]
        sampled = bool(training and self.scheduled_sampling)
        if sampled:
            shape = ops.shape(xs[0])[:2]
            draws = keras.random.uniform((*shape, 1), seed=self.seed_generator)
            replaced = draws < ops.cast(self.sampling_probability, draws.dtype)  # [T, B, 1]
            xs.append(ops.cast(replaced, self.compute_dtype))
            # The first step has no word before it: it reads the start symbol with any draw.
            no_word = ops.zeros((ops.shape(tokens)[0], 1), self.compute_dtype)
            states = [*states, no_word, xs[0][0]]

        def step(carry, given, constants):
            x, *carry = (given[0], *carry)
            if sampled:
                *carry, any_before, own = carry
                x = ops.where(given[1] * any_before > 0, own, x)
            outputs, new = advance(x, carry, constants)
            if sampled:
                likeliest = argmax(self._logits(outputs[0]))
                own = ops.stop_gradient(self.embedding(likeliest))
                new += [ops.ones_like(any_before), own]
            return tuple(new), outputs

        # Of what a step does not read the loop would add up gradients of zero.
        read = self.weights if sampled else [w for x in self._step_layers for w in x.weights]
        _, outputs = scan(step, states, xs, constants, read)
        features, *others = (ops.transpose(output, (1, 0, 2)) for output in outputs)
        return (self.drop(features, training=training), *others)

    def _run_cells(self, h, states) -> tuple:
        """One step of all cells, `[N, W]`, to the output of the last and the new states."""
        new = []
        for cell in self.cells:
            own, states = states[: count_states(cell)], states[count_states(cell) :]
            h, own = cell(h, own)  # [N, U]
            new += list(own) if isinstance(own, (list, tuple)) else [own]
        return h, new

    def _logits(self, features):
        kernel = self.output_kernel
        kernel = ops.transpose(self.embedding.embeddings) if kernel is None else kernel
        kernel = ops.cast(kernel, self.compute_dtype)
        return ops.matmul(features, kernel) + ops.cast(self.output_bias, self.compute_dtype)

    def compute_mask(self, *arguments, **options):
        return None

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "embedding_dim": self.embedding_dim,
            "cells": [plan(cell) for cell in self.cells],
            "tie_weights": self.tie_weights,
            "dropout": self.dropout,
            "scheduled_sampling": self.scheduled_sampling,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object
        return cls(**{**config, "cells": [deserialize(cell) for cell in config["cells"]]})


def build_once(layer, *shapes):
    """Builds a layer, unless somebody did."""
    if not layer.built:
        layer.build(*shapes)


def count_states(cell) -> int:
    """How many states a cell has."""
    return len(cell.state_size) if hasattr(cell.state_size, "__len__") else 1


def plan(layer) -> dict:
    """How to make a layer like this one, without the shapes that it was built for."""
    serialized = keras.saving.serialize_keras_object(layer)
    return {key: x for key, x in serialized.items() if key != "build_config"}
