"""A recurrent decoder that attends to a memory."""

import keras
from keras import ops

from layers.attention.base import Attention
from layers.operations import argmax
from layers.recurrent.base import require_size
from layers.recurrent.recurrence import scan

ORDERS = ("before", "after")


@keras.saving.register_keras_serializable(package="unroll")
class AttentionDecoder(keras.layers.Layer):
    """Recurrent cells that write a sequence of words while they look at a memory.

    With E the embedding of words, s_t the states of the cells and a(q) what the attention returns
    for the query q:

        attend="before" (Bahdanau, Cho and Bengio 2015, sections 3.1 and A.2.2)
            c_t = a(h_{t-1}), with h the first state of the last cell
            s_t = cells([E y_{t-1}; c_t], s_{t-1})
            r_t = tanh(W_r [h_t; c_t; E y_{t-1}] + b_r)
        attend="after" (Luong, Pham and Manning 2015, sections 3.1 and 3.3)
            s_t = cells([E y_{t-1}; r_{t-1}], s_{t-1}), which is input feeding
            r_t = a(h_t)
        logits = W_o r_t + b_o, or E^T r_t + b_o where they are tied

    The context stands last in what the first cell reads: give a `ContextLSTMCell` the
    `context_size` of the memory (before) or of the attentional vector (after), and it enters
    through weights of its own.

    Args:
        vocabulary_size: V.
        embedding_size: of E; with attend="before" the size of r too.
        cells: the recurrent cells, from the bottom up, without dropout of their own.
        attention: a `BahdanauAttention` or `LuongAttention`. With attend="after" it needs an
            attentional vector.
        attend: `"before"` the cells or `"after"`.
        tied: whether the output uses E (Press and Wolf 2017); r must then have its size.
        dropout: the share of E y and of r (with "before": of what r is made from) to drop in
            training.
        scheduled_sampling: the probability, in training, that a step reads the likeliest word of
            the step before instead of the given one (Bengio et al. 2015). It is the start value of
            the variable `sampling_probability`, which a schedule may assign; no gradient flows
            through the choice.
        seed: of dropout and sampling.

    Call arguments:
        tokens: `[B, T]`, integers: what each step reads, the start symbol first.
        memory: `[B, S, D]`.
        initial_state: list of the cells' states, `[B, size]` each (`cell_state_sizes`), for
            instance the encoder's; zeros by default.
        mask: `[B, S]`, boolean, of the memory.
        training: whether dropout and scheduled sampling apply.

    Returns:
        A tuple of the logits `[B, T, V]` and the weights of the attention `[B, T, S]`.

    Raises:
        ValueError: if an argument is none of the above, or the initial states do not fit.

    >>> import keras, numpy as np
    >>> import layers
    >>> decoder = layers.AttentionDecoder(
    ...     vocabulary_size=50,
    ...     embedding_size=8,
    ...     cells=[layers.ContextLSTMCell(16, context_size=6)],
    ...     attention=layers.BahdanauAttention(10),
    ... )
    >>> encoded = np.ones((2, 5, 6), "float32")
    >>> logits, weights = decoder(np.ones((2, 4), "int32"), encoded)
    >>> logits.shape, weights.shape
    (TensorShape([2, 4, 50]), TensorShape([2, 4, 5]))
    >>> step, states = decoder.stepper(encoded), decoder.first_states(encoded)
    >>> layers.beam_search(step, states, start=1, end=2, max_length=7, best=3).tokens.shape
    TensorShape([2, 3, 7])

    Differs from the papers: r is a tanh layer and not Bahdanau's maxout; the first state is the
    caller's affair.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        cells: list,
        attention: Attention,
        attend: str = "before",
        tied: bool = False,
        dropout: float = 0.0,
        scheduled_sampling: float = 0.0,
        seed: int | None = None,
        **kwargs,
    ):
        require_size("vocabulary_size", vocabulary_size)
        require_size("embedding_size", embedding_size)
        if not cells:
            raise ValueError("AttentionDecoder needs at least one cell, got none.")
        for cell in cells:
            if getattr(cell, "dropout", 0) or getattr(cell, "recurrent_dropout", 0):
                raise ValueError(
                    f"the cells of a decoder have no dropout of their own, {cell.name} has: "
                    "use the decoder's."
                )
        if not isinstance(attention, Attention):
            raise ValueError(f"attention must be an attention layer, got {attention!r}.")
        if attend not in ORDERS:
            raise ValueError(f"attend must be before or after, got {attend!r}.")
        if attend == "after" and getattr(attention, "score", None) is None:
            raise ValueError("attend='after' is Luong's, and needs a LuongAttention with units.")
        if attend == "after" and attention.units is None:
            raise ValueError(
                "attend='after' needs an attentional vector: give the attention units."
            )
        if attend == "after" and tied and attention.units != embedding_size:
            raise ValueError(
                f"tied=True needs an attentional vector of the embedding's size, {embedding_size}, "
                f"got {attention.units}."
            )
        if not 0 <= scheduled_sampling <= 1:
            raise ValueError(f"scheduled_sampling must lie in [0, 1], got {scheduled_sampling!r}.")
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.embedding_size = embedding_size
        self.cells = list(cells)
        self.attention = attention
        self.attend = attend
        self.tied = tied
        self.dropout = dropout
        self.scheduled_sampling = scheduled_sampling
        self.seed = seed
        policy = self.dtype_policy
        self.embedding = keras.layers.Embedding(
            vocabulary_size, embedding_size, dtype=policy, name="embedding"
        )
        self.readout = None
        if attend == "before":
            self.readout = keras.layers.Dense(
                embedding_size, activation="tanh", dtype=policy, name="readout"
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
    def _counts_steps(self) -> bool:
        return getattr(self.attention, "window", None) == "local_m"

    def build(self, tokens_shape, memory_shape):
        self.embedding.build(tokens_shape)
        top = self.cells[-1]
        if self.attend == "before":
            self._build(self.attention, (None, self.cell_state_sizes[-_count(top)]), memory_shape)
        vector = self.attention.vector_size(memory_shape[-1])
        width = self.embedding_size + vector
        for cell in self.cells:
            self._build(cell, (None, width))
            width = cell.output_size
        if self.attend == "before":
            self.readout.build((None, width + vector + self.embedding_size))
        else:
            self._build(self.attention, (None, width), memory_shape)
        size = self.embedding_size if self.attend == "before" else vector
        self.output_kernel = None
        if not self.tied:
            self.output_kernel = self.add_weight(
                name="output_kernel",
                shape=(size, self.vocabulary_size),
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

    @staticmethod
    def _build(layer, *shapes):
        if not layer.built:
            layer.build(*shapes)

    def first_states(self, memory, initial_state=None) -> list:
        """The states before the first step.

        Args:
            memory: `[B, S, D]`, which tells the batch size.
            initial_state: as in the call.

        Returns:
            A list of `[B, size]`: the cells' states, with attend="after" the attentional vector,
            and with a local-m window the number of steps.
        """
        sizes = self.cell_state_sizes
        batch = ops.shape(memory)[0]
        if initial_state is None:
            states = [ops.zeros((batch, n), self.compute_dtype) for n in sizes]
        else:
            states = [ops.cast(s, self.compute_dtype) for s in initial_state]
            found = [s.shape[-1] for s in states]
            if found != sizes:
                raise ValueError(
                    f"{self.name} takes initial states of the sizes {sizes}, got {found}. A Dense "
                    "layer makes an encoder's states fit."
                )
        if self.attend == "after":
            states.append(ops.zeros((batch, self.attention.units), self.compute_dtype))
        if self._counts_steps:
            states.append(ops.zeros((batch, 1), self.compute_dtype))
        return states

    def step(self, tokens, states, memory, keys=None, mask=None):
        """One step, as in the search of a sequence.

        Args:
            tokens: `[N]`, integers: the words before.
            states: as `first_states` and this method return them.
            memory: `[B, S, D]`, where N is B, or a multiple of it: then the rows of one memory
                stand together.
            keys: `attention.prepare(memory)`; made anew by default.
            mask: `[B, S]`, boolean.

        Returns:
            A tuple of the logits `[N, V]`, the new states and the weights `[N, S]`.
        """
        keys = self.attention.prepare(memory) if keys is None else keys
        memory = ops.cast(memory, self.compute_dtype)
        features, states, weights = self._advance(
            self.embedding(tokens), list(states), memory, keys, mask
        )
        return self._logits(features), states, weights

    def stepper(self, memory, mask=None):
        """`step` with the memory given, for a search.

        It is called `(tokens, states) -> (logits, states, weights)`. The keys are prepared once.
        """
        keys = self.attention.prepare(memory)
        return lambda tokens, states: self.step(tokens, states, memory, keys, mask)

    def call(self, tokens, memory, initial_state=None, mask=None, training=False):
        keys = self.attention.prepare(memory)
        x = self.drop(self.embedding(tokens), training=training)  # [B, T, E]
        xs = [ops.transpose(x, (1, 0, 2))]
        states = self.first_states(memory, initial_state)
        sampled = bool(training and self.scheduled_sampling)
        if sampled:
            shape = ops.shape(xs[0])[:2]
            draws = keras.random.uniform((*shape, 1), seed=self.seed_generator)
            replaced = draws < ops.cast(self.sampling_probability, draws.dtype)  # [T, B, 1]
            xs.append(ops.cast(replaced, self.compute_dtype))
            # The first step has no word before it: it reads the start symbol with any draw.
            states.append(ops.zeros((ops.shape(memory)[0], 1), self.compute_dtype))
            states.append(xs[0][0])

        def step(carry, given, constants):
            x, *carry = (given[0], *carry)
            if sampled:
                *carry, any_before, own = carry
                x = ops.where(given[1] * any_before > 0, own, x)
            features, new, weights = self._advance(x, carry, *constants, mask)
            if sampled:
                likeliest = argmax(self._logits(features))
                own = ops.stop_gradient(self.embedding(likeliest))
                new += [ops.ones_like(any_before), own]
            return tuple(new), (features, weights)

        _, (features, weights) = scan(
            step, states, xs, (ops.cast(memory, self.compute_dtype), keys), self.weights
        )
        features = self.drop(ops.transpose(features, (1, 0, 2)), training=training)
        return self._logits(features), ops.transpose(weights, (1, 0, 2))

    def _advance(self, x, states, memory, keys, mask):
        """From the embedded words `[N, E]` to what the logits are made of."""
        count = None
        if self._counts_steps:
            *states, count = states
        fed = states.pop() if self.attend == "after" else None
        if fed is None:
            query = states[-_count(self.cells[-1])]
            fed, weights = self._attend(query, memory, keys, mask, count)
        h, new = ops.concatenate([x, fed], axis=-1), []
        for cell in self.cells:
            own, states = states[: _count(cell)], states[_count(cell) :]
            h, own = cell(h, own)  # [N, U]
            new += list(own) if isinstance(own, (list, tuple)) else [own]
        if self.attend == "before":
            features = ops.concatenate([h, fed, x], axis=-1)
        else:
            features, weights = self._attend(h, memory, keys, mask, count)
            new.append(features)
        if count is not None:
            new.append(count + 1)
        return features, new, weights

    def _attend(self, query, memory, keys, mask, count):
        # Several rows to one memory are several queries of it, so that no memory is repeated.
        queries = ops.reshape(query, (ops.shape(memory)[0], -1, query.shape[-1]))  # [B, W, Q]
        options = {}
        if count is not None:
            options["position"] = ops.reshape(count, (ops.shape(memory)[0], -1))
        vectors, weights = self.attention(queries, memory, keys=keys, mask=mask, **options)
        rows = (-1, vectors.shape[-1])
        width = ops.shape(weights)[-1]
        return ops.reshape(vectors, rows), ops.reshape(weights, (-1, width))

    def _logits(self, features):
        if self.readout is not None:
            features = self.readout(features)
        kernel = self.output_kernel
        kernel = ops.transpose(self.embedding.embeddings) if kernel is None else kernel
        kernel = ops.cast(kernel, self.compute_dtype)
        return ops.matmul(features, kernel) + ops.cast(self.output_bias, self.compute_dtype)

    def compute_mask(self, *arguments, **options):
        return [None, None]

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "embedding_size": self.embedding_size,
            "cells": [_plan(cell) for cell in self.cells],
            "attention": _plan(self.attention),
            "attend": self.attend,
            "tied": self.tied,
            "dropout": self.dropout,
            "scheduled_sampling": self.scheduled_sampling,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object
        cells = [deserialize(cell) for cell in config["cells"]]
        return cls(**{**config, "cells": cells, "attention": deserialize(config["attention"])})


def _count(cell) -> int:
    """How many states a cell has."""
    return len(cell.state_size) if hasattr(cell.state_size, "__len__") else 1


def _plan(layer) -> dict:
    """How to make a layer like this one, without the shapes that it was built for."""
    serialized = keras.saving.serialize_keras_object(layer)
    return {key: x for key, x in serialized.items() if key != "build_config"}
