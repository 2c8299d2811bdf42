"""A recurrent decoder with attention."""

from collections.abc import Callable

import keras
from keras import ops

from unroll.layers.attention.base import Attention
from unroll.layers.decoding.recurrent_decoder import (
    RecurrentDecoder,
    build_once,
    serialize_unbuilt,
    state_sizes,
)


@keras.saving.register_keras_serializable(package="unroll")
class AttentionDecoder(RecurrentDecoder):
    """A `RecurrentDecoder` that attends to a memory at each step.

    With the embedding E, the states s_t of the cells and the result a(q) of the attention for the
    query q:

        attend="before" (Bahdanau, Cho and Bengio 2015, sections 3.1 and A.2.2)
            c_t = a(h_{t-1}), where h is the first state of the last cell
            s_t = cells([E y_{t-1}; c_t], s_{t-1})
            r_t = tanh(W_r [h_t; c_t; E y_{t-1}] + b_r)
        attend="after" (Luong, Pham and Manning 2015, sections 3.1 and 3.3)
            s_t = cells([E y_{t-1}; r_{t-1}], s_{t-1}), with input feeding
            r_t = a(h_t)
        logits = W_o r_t + b_o, or E^T r_t + b_o with tied weights

    With `gated` the context is multiplied by a scalar gate (Xu et al. 2015, "Show, attend and
    tell", section 4.2.1): c_t = sigmoid(w h_{t-1} + b) a(h_{t-1}).

    The first cell reads the context (or r_{t-1}) after the embedded token. A `ContextLSTMCell` with
    the `context_size` of the memory (or of r) has separate weights for it.

    Args:
        vocabulary_size: V.
        embedding_dim: the size of an embedded token, and with attend="before" of r_t.
        cells: list of recurrent cells, from the bottom up, without dropout of their own.
        attention: a `BahdanauAttention`, a `LuongAttention` or another subclass of
            `unroll.layers.attention.Attention`. With attend="after" it must be a `LuongAttention`
            with `units`.
        attend: `"before"` or `"after"`, whether to attend before or after the cells.
        gated: whether a gate scales the context; only with attend="before".
        tie_weights: whether the output uses E (Press and Wolf 2017). The size of r_t must then be
            `embedding_dim`.
        dropout: the dropout rate of the embedded tokens, and of r_t (attend="after") or its inputs
            (attend="before").
        scheduled_sampling: the probability, in training, that a step reads the most probable token
            of the previous step, as in `RecurrentDecoder`.
        seed: the seed of dropout and scheduled sampling.

    Call arguments:
        tokens: `[B, T]`, integers, what each step reads: the start symbol and the tokens before.
        memory: `[B, S, D]`.
        initial_state: list of the states of the cells, `[B, size]` each (see `cell_state_sizes`),
            for instance those of an encoder; zeros by default.
        mask: `[B, S]`, boolean, the mask of the memory. A position where it is False gets the
            weight zero.
        training: whether to apply dropout and scheduled sampling.

    Returns:
        A tuple of the logits `[B, T, V]` and the attention weights `[B, T, S]`.

    Raises:
        ValueError: if an argument is out of its range, `attention` or `gated` does not fit
            `attend`, a cell has dropout, `tie_weights` does not fit the size of r_t, or the initial
            states do not fit the cells.

    >>> import keras, numpy as np
    >>> from unroll import layers
    >>> decoder = layers.AttentionDecoder(
    ...     vocabulary_size=50,
    ...     embedding_dim=8,
    ...     cells=[layers.ContextLSTMCell(16, context_size=6)],
    ...     attention=layers.BahdanauAttention(10),
    ... )
    >>> memory = np.ones((2, 5, 6), "float32")
    >>> logits, weights = decoder(np.ones((2, 4), "int32"), memory)
    >>> logits.shape, weights.shape
    (TensorShape([2, 4, 50]), TensorShape([2, 4, 5]))
    >>> step_function, states = decoder.step_function(memory), decoder.initial_states(memory)
    >>> result = layers.beam_search(
    ...     step_function, states, start=1, end=2, max_length=7, num_return_sequences=3
    ... )
    >>> result.tokens.shape
    TensorShape([2, 3, 7])

    Differs from the papers: r_t is a tanh layer instead of Bahdanau's maxout, and the layer does
    not compute the initial state from the memory.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_dim: int,
        cells: list,
        attention: Attention,
        attend: str = "before",
        gated: bool = False,
        tie_weights: bool = False,
        dropout: float = 0.0,
        scheduled_sampling: float = 0.0,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(
            vocabulary_size,
            embedding_dim,
            cells,
            tie_weights=tie_weights,
            dropout=dropout,
            scheduled_sampling=scheduled_sampling,
            seed=seed,
            **kwargs,
        )
        self._check(attention, attend, gated)
        self.attention = attention
        self.attend = attend
        self.gated = gated
        policy = self.dtype_policy
        self.readout = self.gate = None
        if attend == "before":
            self.readout = keras.layers.Dense(
                embedding_dim, activation="tanh", dtype=policy, name="readout"
            )
        if gated:
            self.gate = keras.layers.Dense(1, activation="sigmoid", dtype=policy, name="gate")

    @staticmethod
    def _check(attention, attend: str, gated: bool):
        if not isinstance(attention, Attention):
            raise ValueError(
                "attention must be a BahdanauAttention, a LuongAttention or another subclass of "
                f"Attention, got {attention!r}."
            )
        if attend not in ("before", "after"):
            raise ValueError(f"attend must be 'before' or 'after', got {attend!r}.")
        if attend == "after":
            has_score = getattr(attention, "score", None) is not None
            if not has_score or attention.units is None:
                raise ValueError(
                    "attention must be a LuongAttention with units if attend='after', got "
                    f"{type(attention).__name__}{' with units=None' if has_score else ''}."
                )
            if gated:
                raise ValueError("gated=True needs attend='before', got attend='after'.")

    @property
    def _counts_steps(self) -> bool:
        return getattr(self.attention, "window", None) == "local_m"

    def build(self, tokens_shape, memory_shape):
        vector_size = self.attention.output_size(memory_shape[-1])
        hidden_size = self.build_cells(self.embedding_dim + vector_size)
        if self.attend == "before":
            query_size = state_sizes(self.cells[-1])[0]
            build_once(self.attention, (None, query_size), memory_shape)
            if self.gated:
                self.gate.build((None, query_size))
            self.readout.build((None, hidden_size + vector_size + self.embedding_dim))
            self.build_output(tokens_shape, self.embedding_dim)
        else:
            build_once(self.attention, (None, hidden_size), memory_shape)
            self.build_output(tokens_shape, vector_size)

    def initial_states(self, memory, initial_state=None) -> list:
        """The states before the first token.

        Args:
            memory: `[B, S, D]`.
            initial_state: as in the call.

        Returns:
            A list of `[B, size]`: the states of the cells, with attend="after" the attentional
            vector, and with a local-m window the number of steps.
        """
        states = super().initial_states(ops.shape(memory)[0], initial_state)
        # If several rows share one memory, there are more states than memories.
        rows = ops.shape(states[0])[0]
        if self.attend == "after":
            states.append(ops.zeros((rows, self.attention.units), self.compute_dtype))
        if self._counts_steps:
            states.append(ops.zeros((rows, 1), self.compute_dtype))
        return states

    def step(self, tokens, states, memory, keys=None, mask=None):
        """One step of a search.

        Args:
            tokens: `[N]`, integers, the previous tokens.
            states: list of states, as `initial_states` and this method return them.
            memory: `[B, S, D]`. N is B or a multiple of it; the rows of one memory are consecutive.
            keys: the result of `attention.compute_keys(memory)`; computed by default.
            mask: `[B, S]`, boolean.

        Returns:
            A tuple of the logits `[N, V]`, the new states and the attention weights `[N, S]`.
        """
        keys = self.attention.compute_keys(memory) if keys is None else keys
        memory = ops.cast(memory, self.compute_dtype)
        embedded = self.embedding(tokens)
        outputs, states, weights = self._advance(embedded, list(states), memory, keys, mask)
        return self.logits(outputs), states, weights

    def step_function(self, memory, mask=None) -> Callable:
        """`step` with a memory, as `greedy`, `sample` and `beam_search` take it.

        It is called as `(tokens, states) -> (logits, states, weights)`. The keys of the memory are
        computed once.
        """
        keys = self.attention.compute_keys(memory)
        return lambda tokens, states: self.step(tokens, states, memory, keys, mask)

    def call(self, tokens, memory, initial_state=None, mask=None, training=False):
        keys = self.attention.compute_keys(memory)
        memory = ops.cast(memory, self.compute_dtype)

        def advance(x, states, constants):
            outputs, states, weights = self._advance(x, states, *constants, mask)
            return (outputs, weights), states

        states = self.initial_states(memory, initial_state)
        step_layers = [*self.cells, self.attention, *([self.gate] if self.gated else [])]
        outputs, weights = self.run_steps(
            advance, tokens, states, (memory, keys), step_layers, training
        )
        return self.logits(outputs), weights

    def _advance(self, x, states: list, memory, keys, mask) -> tuple:
        """One step from the embedded tokens `[N, E]`.

        Returns:
            A tuple of what the logits are made from, the new states and the weights `[N, S]`.
        """
        count = None
        if self._counts_steps:
            *states, count = states
        step = self._attend_before if self.attend == "before" else self._attend_after
        outputs, states, weights = step(x, states, memory, keys, mask, count)
        return outputs, states if count is None else [*states, count + 1], weights

    def _attend_before(self, x, states: list, memory, keys, mask, count) -> tuple:
        query = states[-len(state_sizes(self.cells[-1]))]
        context, weights = self._attend(query, memory, keys, mask, count)  # [N, D]
        if self.gated:
            context = context * self.gate(query)
        h, states = self.run_cells(ops.concatenate([x, context], axis=-1), states)
        return ops.concatenate([h, context, x], axis=-1), states, weights

    def _attend_after(self, x, states: list, memory, keys, mask, count) -> tuple:
        *states, previous = states
        h, states = self.run_cells(ops.concatenate([x, previous], axis=-1), states)
        vector, weights = self._attend(h, memory, keys, mask, count)  # [N, U]
        return vector, [*states, vector], weights

    def _attend(self, query, memory, keys, mask, count) -> tuple:
        """The vectors `[N, D]` and the weights `[N, S]` of queries `[N, Q]`."""
        # The rows of one memory are queries of it, so that no memory is repeated.
        queries = ops.reshape(query, (ops.shape(memory)[0], -1, query.shape[-1]))  # [B, W, Q]
        options = {}
        if count is not None:
            options["position"] = ops.reshape(count, (ops.shape(memory)[0], -1))
        vectors, weights = self.attention(queries, memory, keys=keys, mask=mask, **options)
        vectors = ops.reshape(vectors, (-1, vectors.shape[-1]))
        return vectors, ops.reshape(weights, (-1, ops.shape(weights)[-1]))

    def logits(self, outputs):
        """The logits `[..., V]` of r, or with attend="before" of its inputs."""
        return super().logits(outputs if self.readout is None else self.readout(outputs))

    def compute_mask(self, *args, **kwargs):
        return [None, None]

    def get_config(self):
        return {
            **super().get_config(),
            "attention": serialize_unbuilt(self.attention),
            "attend": self.attend,
            "gated": self.gated,
        }

    @classmethod
    def from_config(cls, config):
        attention = keras.saving.deserialize_keras_object(config["attention"])
        return super().from_config({**config, "attention": attention})
