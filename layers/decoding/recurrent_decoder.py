"""A recurrent decoder without attention."""

from collections.abc import Callable

import keras
from keras import ops

from unroll.layers.checkpoints import load_own_variables, serialize_unbuilt
from unroll.layers.dtype_policies import own_policy, part_policy, policy_of_parts, with_policy
from unroll.layers.operations import add_bias, argmax, require_size
from unroll.layers.recurrent.recurrence import scan


@keras.saving.register_keras_serializable(package="unroll")
class RecurrentDecoder(keras.layers.Layer):
    """Recurrent cells that predict each token of a sequence from the tokens before it.

    The language model of Mikolov et al. 2010, "Recurrent neural network based language model", and
    the decoder of Sutskever, Vinyals and Le 2014, "Sequence to sequence learning with neural
    networks". With the embedding E, the states s_t of the cells and the output h_t of the last
    cell:

        s_t = cells(E y_{t-1}, s_{t-1})
        logits = W_o h_t + b_o, or E^T h_t + b_o with tied weights

    With `first_input` x the states before the first token are cells(x, s), as for the image
    features of Vinyals et al. 2015, "Show and tell", equations 10 and 11.

    Args:
        vocabulary_size: V.
        embedding_dim: the size of an embedded token.
        cells: list of recurrent cells, from the bottom up, without dropout of their own. They have
            the dtype policy of the decoder: a cell that was created without a `dtype` is created
            again with that policy.
        tie_weights: whether the output uses E (Press and Wolf 2017). The size of h_t must then be
            `embedding_dim`.
        dropout: the dropout rate of the embedded tokens and of h_t.
        output_dropout: another dropout rate for h_t; None for that of the embedded tokens.
        scheduled_sampling: the probability, in training, that a step reads the most probable token
            of the previous step instead of the given token (Bengio et al. 2015). It is the initial
            value of the variable `sampling_probability`, which a callback can assign. No gradient
            flows through the choice. A checkpoint with the variable loads into a decoder without
            it, and vice versa.
        seed: the seed of dropout and scheduled sampling.
        embeddings_initializer: the initializer of E.
        cell_dropout: the dropout rate between two cells, of the same units at each step of a
            sequence (Gal and Ghahramani 2016).

    Call arguments:
        tokens: `[B, T]`, integers, what each step reads: the start symbol and the tokens before.
        initial_state: list of the states of the cells, `[B, size]` each (see `cell_state_sizes`);
            zeros by default.
        first_input: `[B, embedding_dim]`, an input that the cells read before the tokens.
        training: whether to apply dropout and scheduled sampling.

    Returns:
        The logits, `[B, T, V]`. They carry the mask that the tokens carry.

    Raises:
        ValueError: if an argument is out of its range, a cell has dropout or a dtype policy other
            than that of the decoder, `tie_weights` does not fit the size of the cells, or the
            initial states do not fit the cells.

    >>> import keras, numpy as np
    >>> from unroll import layers
    >>> decoder = layers.RecurrentDecoder(50, 8, cells=[layers.LSTMCell(16)])
    >>> image = np.ones((2, 8), "float32")
    >>> decoder(np.ones((2, 4), "int32"), first_input=image).shape
    TensorShape([2, 4, 50])
    >>> states = decoder.initial_states(2, first_input=image)
    >>> result = layers.greedy(decoder.step_function(), states, start=1, end=2, max_length=7)
    >>> result.tokens.shape
    TensorShape([2, 7])

    Differs from the papers: nothing.
    """

    quantizable = ("embedding",)

    def __init__(
        self,
        vocabulary_size: int,
        embedding_dim: int,
        cells: list,
        tie_weights: bool = False,
        dropout: float = 0.0,
        scheduled_sampling: float = 0.0,
        seed: int | None = None,
        output_dropout: float | None = None,
        embeddings_initializer="uniform",
        cell_dropout: float = 0.0,
        **kwargs,
    ):
        vocabulary_size = require_size("vocabulary_size", vocabulary_size)
        embedding_dim = require_size("embedding_dim", embedding_dim)
        if not cells:
            raise ValueError(f"{type(self).__name__} needs at least one cell, got {cells!r}.")
        for cell in cells:
            dropout_rates = ("dropout", "recurrent_dropout", "recurrent_weight_dropout")
            for rate in (*dropout_rates, "zoneout_cell", "zoneout_hidden"):
                if getattr(cell, rate, 0):
                    raise ValueError(
                        f"{type(self).__name__} takes cells without dropout and zoneout, got "
                        f"{cell.name!r} with {rate}. Use the argument dropout instead."
                    )
        for name, rate in (
            ("dropout", dropout),
            ("output_dropout", output_dropout),
            ("cell_dropout", cell_dropout),
            ("scheduled_sampling", scheduled_sampling),
        ):
            if rate is not None and not 0 <= rate <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {rate!r}.")
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.embedding_dim = embedding_dim
        self.cells = [self.with_own_policy(cell) for cell in cells]
        self.tie_weights = tie_weights
        self.dropout = dropout
        self.scheduled_sampling = scheduled_sampling
        self.seed = seed
        self.output_dropout = output_dropout
        self.cell_dropout = cell_dropout
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        options = {
            "embeddings_initializer": self.embeddings_initializer,
            "dtype": part_policy(self, "embedding"),
            "name": "embedding",
        }
        if tie_weights:  # the class that Keras quantizes for both uses
            self.embedding = keras.layers.ReversibleEmbedding(
                vocabulary_size, embedding_dim, reverse_dtype=self.compute_dtype, **options
            )
        else:
            self.embedding = keras.layers.Embedding(vocabulary_size, embedding_dim, **options)
        self.embedding.supports_masking = True  # no warning where the tokens carry a mask
        policy = own_policy(self.dtype_policy)
        self.drop = self.drop_output = keras.layers.Dropout(dropout, seed=seed, dtype=policy)
        if output_dropout is not None:
            self.drop_output = keras.layers.Dropout(output_dropout, seed=seed, dtype=policy)
        self.drop_between = None
        if cell_dropout and len(self.cells) > 1:
            self.drop_between = keras.layers.Dropout(cell_dropout, seed=seed, dtype=policy)
        self.output_kernel = self.output_bias = self.sampling_probability = None
        if scheduled_sampling:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def with_own_policy(self, layer):
        """A layer to use in this one, with the same dtype policy; see `with_policy`."""
        layer, policy = with_policy(layer, self.dtype_policy), own_policy(self.dtype_policy)
        if own_policy(layer.dtype_policy) != policy:
            raise ValueError(
                f"{type(self).__name__} has the dtype policy {policy.name!r}, got {layer.name!r} "
                f"with {layer.dtype_policy.name!r}. Create both with the same dtype."
            )
        return layer

    @property
    def cell_state_sizes(self) -> list[int]:
        """The sizes of the states of all cells, from the bottom up."""
        return [size for cell in self.cells for size in state_sizes(cell)]

    def build(self, tokens_shape):
        self.build_output(tokens_shape, self.build_cells(self.embedding_dim))

    def build_cells(self, input_size: int) -> int:
        """Builds the cells for inputs of this size; returns the size of their output."""
        size = input_size
        for cell in self.cells:
            build_once(cell, (None, size))
            size = cell.output_size
        return size

    def build_output(self, tokens_shape, size: int):
        """Builds the embedding, and the logits from vectors of this size."""
        if self.tie_weights and size != self.embedding_dim:
            raise ValueError(
                f"{type(self).__name__} with tie_weights=True needs outputs of the size of the "
                f"embedding, {self.embedding_dim}, got {size}."
            )
        self.embedding.build(tokens_shape)
        if not self.tie_weights:
            self.output_kernel = self.add_weight(
                name="output_kernel",
                shape=(size, self.vocabulary_size),
                initializer="glorot_uniform",
            )
        self.output_bias = self.add_weight(
            name="output_bias", shape=(self.vocabulary_size,), initializer="zeros"
        )
        if self.scheduled_sampling:
            self.sampling_probability = self.add_weight(
                name="sampling_probability",
                shape=(),
                initializer=keras.initializers.Constant(self.scheduled_sampling),
                trainable=False,
            )
        self.built = True

    def initial_states(self, batch_size, initial_state=None, first_input=None) -> list:
        """The states before the first token.

        Args:
            batch_size: B, used if `initial_state` is None.
            initial_state, first_input: as in the call.

        Returns:
            A list of `[B, size]`.
        """
        sizes = self.cell_state_sizes
        if initial_state is None:
            states = [ops.zeros((batch_size, n), self.compute_dtype) for n in sizes]
        else:
            states = [ops.cast(s, self.compute_dtype) for s in initial_state]
            given = [s.shape[-1] for s in states]
            if given != sizes:
                raise ValueError(
                    f"{type(self).__name__} needs initial states of the sizes {sizes}, got "
                    f"{given}. A Dense layer converts the states of an encoder."
                )
        if first_input is not None:
            _, states = self.run_cells(ops.cast(first_input, self.compute_dtype), states)
        return states

    def step(self, tokens, states):
        """One step of a search.

        Args:
            tokens: `[N]`, integers, the previous tokens.
            states: list of states, as `initial_states` and this method return them.

        Returns:
            A tuple of the logits `[N, V]`, the new states, and None in place of attention weights.
        """
        h, states = self.run_cells(self.embedding(tokens), list(states))
        return self.logits(h), states, None

    def step_function(self) -> Callable:
        """`step`, as `greedy`, `sample` and `beam_search` take it."""
        return self.step

    def call(self, tokens, initial_state=None, first_input=None, training=False):
        states = self.initial_states(ops.shape(tokens)[0], initial_state, first_input)
        kept = self.kept_units(ops.shape(tokens)[0], training)

        def advance(x, states, constants):
            h, states = self.run_cells(x, states, kept)
            return (h,), states

        (outputs,) = self.run_steps(advance, tokens, states, (), self.cells, training)
        return self.logits(outputs)

    def run_steps(
        self,
        advance: Callable,
        tokens,
        states: list,
        constants,
        step_layers: list,
        training,
        inputs: tuple = (),
    ) -> tuple:
        """Runs all steps of teacher forcing.

        Args:
            advance: one step, `(x [B, E], states, constants, *inputs) -> (outputs, states)`. The
                logits are made from the first of the outputs.
            tokens: `[B, T]`, integers.
            states: list of states, `[B, ...]` each.
            constants: tensors that are the same at each step.
            step_layers: the layers that `advance` uses.
            training: whether to apply dropout and scheduled sampling.
            inputs: what else each step takes, `[T, B, ...]` each.

        Returns:
            A tuple of the outputs, `[B, T, ...]` each, with dropout on the first.
        """
        x = self.drop(self.embedding(tokens), training=training)  # [B, T, E]
        xs = [ops.transpose(x, (1, 0, 2)), *inputs]  # [T, B, E]
        samples = bool(training and self.scheduled_sampling)
        if samples:
            xs.append(self._random_choices(ops.shape(xs[0])[:2]))
            # The first step has no previous token: it always reads the start symbol.
            batch = ops.shape(tokens)[0]
            has_previous = ops.zeros((batch, 1), self.compute_dtype)
            previous = ops.zeros((batch, self.embedding_dim), self.compute_dtype)
            states = [*states, has_previous, previous]

        def step(carry, xs, constants):
            if not samples:
                outputs, states = advance(xs[0], list(carry), constants, *xs[1:])
                return tuple(states), outputs
            x, *inputs, is_replaced = xs
            *states, has_previous, previous = carry
            x = ops.where(is_replaced * has_previous > 0, previous, x)
            outputs, states = advance(x, states, constants, *inputs)
            likeliest = argmax(self.logits(outputs[0]))
            previous = ops.stop_gradient(self.embedding(likeliest))
            return (*states, ops.ones_like(has_previous), previous), outputs

        # The gradient takes time for each of these weights: leave out those that no step reads.
        read = self.weights if samples else [w for layer in step_layers for w in layer.weights]
        _, outputs = scan(step, states, xs, constants, read)
        first, *others = (ops.transpose(output, (1, 0, 2)) for output in outputs)
        return (self.drop_output(first, training=training), *others)

    def _random_choices(self, shape):
        """Which steps read the most probable previous token, `[T, B, 1]`, one or zero."""
        numbers = keras.random.uniform((*shape, 1), seed=self.seed_generator)
        chosen = numbers < ops.cast(self.sampling_probability, numbers.dtype)
        return ops.cast(chosen, self.compute_dtype)

    def kept_units(self, batch_size, training) -> list:
        """What the input of each cell is multiplied by in all steps, `[B, size]`, or None."""
        if self.drop_between is None or not training:
            return [None] * len(self.cells)
        sizes = [cell.output_size for cell in self.cells[:-1]]
        ones = [ops.ones((batch_size, size), self.compute_dtype) for size in sizes]
        return [None, *(self.drop_between(each, training=True) for each in ones)]

    def run_cells(self, x, states: list, kept: list | None = None) -> tuple:
        """One step of all cells.

        Args:
            x: `[N, size]`, the input of the first cell.
            states: list of the states of all cells.
            kept: as `kept_units` returns it; None without dropout.

        Returns:
            A tuple of the output of the last cell, `[N, U]`, and the list of the new states.
        """
        new_states = []
        for cell, units in zip(self.cells, kept or [None] * len(self.cells), strict=True):
            count = len(state_sizes(cell))
            own, states = states[:count], states[count:]
            if keras.tree.is_nested(cell.state_size):
                own = keras.tree.pack_sequence_as(cell.state_size, own)
            x, own = cell(x if units is None else x * units, own)  # [N, U]
            new_states += keras.tree.flatten(own)
        return x, new_states

    def logits(self, outputs):
        """The logits `[..., V]` of outputs `[..., U]`."""
        if self.tie_weights:
            logits = self.embedding(outputs, reverse=True)
        else:
            logits = ops.matmul(outputs, ops.cast(self.output_kernel, self.compute_dtype))
        return add_bias(ops.cast(logits, self.compute_dtype), self.output_bias)

    def compute_output_shape(self, tokens_shape):
        return (*tokens_shape, self.vocabulary_size)

    def compute_mask(self, tokens, mask=None):
        return mask

    def load_own_variables(self, store):
        weights = [w for w in self.own_trainable_weights() if w is not None]
        load_own_variables(self, store, weights, self.sampling_probability)

    def own_trainable_weights(self) -> list:
        """The trainable weights that are not part of a sublayer, in the order of their creation."""
        return [self.output_kernel, self.output_bias]

    def get_config(self):
        return {
            **super().get_config(),
            "dtype": keras.dtype_policies.serialize(policy_of_parts(self, self.quantizable)),
            "vocabulary_size": self.vocabulary_size,
            "embedding_dim": self.embedding_dim,
            "cells": [serialize_unbuilt(cell) for cell in self.cells],
            "tie_weights": self.tie_weights,
            "dropout": self.dropout,
            "scheduled_sampling": self.scheduled_sampling,
            "seed": self.seed,
            "output_dropout": self.output_dropout,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "cell_dropout": self.cell_dropout,
        }

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object
        return cls(**{**config, "cells": [deserialize(cell) for cell in config["cells"]]})


def build_once(layer: keras.layers.Layer, *shapes):
    """Builds a layer that is not built yet."""
    if not layer.built:
        layer.build(*shapes)


def state_sizes(cell) -> list[int]:
    """The sizes of the states of a cell, which may be declared as one integer, or nested."""
    return keras.tree.flatten(cell.state_size)
