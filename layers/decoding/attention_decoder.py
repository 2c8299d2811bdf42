"""A recurrent decoder with attention."""

from collections.abc import Callable

import keras
from keras import ops

from unroll.layers.attention.base import Attention, Exact
from unroll.layers.checkpoints import serialize_unbuilt
from unroll.layers.decoding.recurrent_decoder import (
    RecurrentDecoder,
    build_once,
    state_sizes,
)
from unroll.layers.dtype_policies import part_policy
from unroll.layers.masks import carried_mask
from unroll.layers.operations import add_bias


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
        cells: list of recurrent cells, from the bottom up, without dropout of their own. They have
            the dtype policy of the decoder: a cell that was created without a `dtype` is created
            again with that policy.
        attention: a `BahdanauAttention`, a `LuongAttention`, a `MonotonicAttention` or another
            subclass of `unroll.layers.attention.Attention`, with the dtype policy of the decoder,
            as the cells. With attend="after" the logits depend on its vectors alone: use one whose
            vectors contain the query, such as a `LuongAttention` with `units`.
        attend: `"before"` or `"after"`, whether to attend before or after the cells.
        gated: whether a gate scales the context; only with attend="before".
        tie_weights: whether the output uses E (Press and Wolf 2017). The size of r_t must then be
            `embedding_dim`.
        dropout: the dropout rate of the embedded tokens, and of r_t (attend="after") or its inputs
            (attend="before").
        output_dropout: another dropout rate for r_t or its inputs; None for that of the embedded
            tokens.
        scheduled_sampling: the probability, in training, that a step reads the most probable token
            of the previous step, as in `RecurrentDecoder`.
        seed: the seed of dropout and scheduled sampling.
        embeddings_initializer: the initializer of E.
        cell_dropout: the dropout rate between two cells, as in `RecurrentDecoder`.

    Call arguments:
        tokens: `[B, T]`, integers, what each step reads: the start symbol and the tokens before.
        memory: `[B, S, D]`.
        initial_state: list of the states of the cells, `[B, size]` each (see `cell_state_sizes`),
            for instance those of an encoder; zeros by default.
        memory_mask: `[B, S]`, boolean. A position where it is False gets the weight zero, and its
            values have no effect. By default the mask that the memory carries.
        training: whether to apply dropout and scheduled sampling.

    Returns:
        A tuple of the logits `[B, T, V]` and the attention weights `[B, T, S]`. The logits carry
        the mask that the tokens carry.

    Raises:
        ValueError: if an argument is out of its range, `gated` does not fit `attend`, a cell has
            dropout, a cell or the attention has another dtype policy than the decoder,
            `tie_weights` does not fit the size of r_t, or the initial states do not fit the cells.

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

    quantizable = ("embedding", "readout", "gate")

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
        output_dropout: float | None = None,
        embeddings_initializer="uniform",
        cell_dropout: float = 0.0,
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
            output_dropout=output_dropout,
            embeddings_initializer=embeddings_initializer,
            cell_dropout=cell_dropout,
            **kwargs,
        )
        self._check(attention, attend, gated)
        self.attention = self.with_own_policy(attention)
        self.attend = attend
        self.gated = gated
        self.readout = self.readout_bias = self.gate = None
        if attend == "before":
            # Keras would sum the gradient of its bias over time in the compute dtype.
            policy = part_policy(self, "readout")
            self.readout = keras.layers.Dense(
                self.embedding_dim, use_bias=False, dtype=policy, name="readout"
            )
        if gated:
            self.gate = keras.layers.Dense(
                1, "sigmoid", dtype=part_policy(self, "gate"), name="gate"
            )

    @staticmethod
    def _check(attention, attend: str, gated: bool):
        if not isinstance(attention, Attention):
            raise ValueError(
                "attention must be a BahdanauAttention, a LuongAttention or another subclass of "
                f"Attention, got {attention!r}."
            )
        if attend not in ("before", "after"):
            raise ValueError(f"attend must be 'before' or 'after', got {attend!r}.")
        if gated and attend == "after":
            raise ValueError("gated=True needs attend='before', got attend='after'.")

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
            self.readout_bias = self.add_weight(
                name="readout_bias", shape=(self.embedding_dim,), initializer="zeros"
            )
        else:
            build_once(self.attention, (None, hidden_size), memory_shape)
            self.build_output(tokens_shape, vector_size)

    def initial_states(self, memory, initial_state=None) -> list:
        """The states before the first token.

        Args:
            memory: `[B, S, D]`.
            initial_state: as in the call.

        Returns:
            A list of `[B, size]`: the states of the cells, with attend="after" the vector of the
            attention, with an attention that uses positions the number of steps, and with one that
            uses the previous weights these.
        """
        states = super().initial_states(ops.shape(memory)[0], initial_state)
        # If several rows share one memory, there are more states than memories.
        rows = ops.shape(states[0])[0]
        if self.attend == "after":
            size = self.attention.output_size(memory.shape[-1])
            states.append(ops.zeros((rows, size), self.compute_dtype))
        if self.attention.uses_positions:
            # Not in the compute dtype: in bfloat16, 256 + 1 is 256. Not an integer, because a state
            # of the loop has a gradient.
            dtype = keras.backend.result_type(self.compute_dtype, "float32")
            states.append(ops.zeros((rows, 1), dtype))
        if self.attention.uses_previous:
            states.append(self.attention.initial_weights(rows, ops.shape(memory)[1]))
        return states

    def step(self, tokens, states, memory, keys=None, memory_mask=None):
        """One step of a search.

        Args:
            tokens: `[N]`, integers, the previous tokens.
            states: list of states, as `initial_states` and this method return them.
            memory: `[B, S, D]`. N is B or a multiple of it; the rows of one memory are consecutive.
            keys: the keys from `attention.prepare(memory, memory_mask)`, if `memory` comes from
                there too; computed by default.
            memory_mask: `[B, S]`, boolean; by default the mask that the memory carries.

        Returns:
            A tuple of the logits `[N, V]`, the new states and the attention weights `[N, S]`.
        """
        if memory_mask is None:
            memory_mask = carried_mask(memory)
        if keys is None:
            memory, keys = self.attention.prepare(memory, memory_mask)
        embedded = self.embedding(tokens)
        outputs, states, weights = self._advance(embedded, list(states), memory, keys, memory_mask)
        return self.logits(outputs), states, weights

    def step_function(self, memory, memory_mask=None) -> Callable:
        """`step` with a memory, as `greedy`, `sample` and `beam_search` take it.

        It is called as `(tokens, states) -> (logits, states, weights)`. The keys of the memory are
        computed once.

        Args:
            memory: `[B, S, D]`.
            memory_mask: `[B, S]`, boolean; by default the mask that the memory carries.
        """
        if memory_mask is None:
            memory_mask = carried_mask(memory)
        memory, keys = self.attention.prepare(memory, memory_mask)
        return lambda tokens, states: self.step(tokens, states, memory, keys, memory_mask)

    def call(self, tokens, memory, initial_state=None, memory_mask=None, training=False):
        memory, keys = self.attention.prepare(memory, memory_mask)
        kept = self.kept_units(ops.shape(tokens)[0], training)

        def advance(x, states, constants, *noise):
            memory, keys = constants[0], constants[-1]
            outputs, states, weights = self._advance(
                x, states, memory, keys, memory_mask, kept, *noise
            )
            return (outputs, weights), states

        states = self.initial_states(memory, initial_state)
        constants = (memory,) if keys is memory else (memory, keys)
        step_layers = [*self.cells, self.attention, *([self.gate] if self.gated else [])]
        noise = None
        if training and self.attention.uses_previous:
            shape = (ops.shape(tokens)[1], *ops.shape(memory)[:2])  # T, B, S
            noise = self.attention.noise(shape)
        outputs, weights = self.run_steps(
            advance,
            tokens,
            states,
            constants,
            step_layers,
            training,
            () if noise is None else (noise,),
        )
        return self.logits(outputs), weights

    def _advance(self, x, states: list, memory, keys, mask, kept=None, noise=None) -> tuple:
        """One step from the embedded tokens `[N, E]`.

        Returns:
            A tuple of what the logits are made from, the new states and the weights `[N, S]`.
        """
        carried, new = {}, []
        if self.attention.uses_previous:
            *states, carried["previous"] = states
            if noise is not None:
                carried["noise"] = noise
        if self.attention.uses_positions:
            *states, count = states
            carried["position"] = ops.cast(count, "int32")  # which a layer does not cast
            new.append(count + 1)
        step = self._attend_before if self.attend == "before" else self._attend_after
        outputs, states, weights = step(x, states, memory, keys, mask, carried, kept)
        if self.attention.uses_previous:
            new.append(weights)
        return outputs, [*states, *new], ops.cast(weights, self.compute_dtype)

    def _attend_before(self, x, states: list, memory, keys, mask, carried, kept) -> tuple:
        query = states[-len(state_sizes(self.cells[-1]))]
        context, weights = self._attend(query, memory, keys, mask, carried)  # [N, D]
        if self.gated:
            context = context * self.gate(query)
        h, states = self.run_cells(ops.concatenate([x, context], axis=-1), states, kept)
        return ops.concatenate([h, context, x], axis=-1), states, weights

    def _attend_after(self, x, states: list, memory, keys, mask, carried, kept) -> tuple:
        *states, previous = states
        h, states = self.run_cells(ops.concatenate([x, previous], axis=-1), states, kept)
        vector, weights = self._attend(h, memory, keys, mask, carried)  # [N, U]
        return vector, [*states, vector], weights

    def _attend(self, query, memory, keys, mask, carried: dict) -> tuple:
        """The vectors `[N, D]` and the weights `[N, S]` of queries `[N, Q]`.

        `carried` has what else the attention takes of each query: its position `[N, 1]`, the
        previous weights and the noise `[N, S]`.
        """
        # The rows of one memory are queries of it, so that no memory is repeated.
        rows, batch = ops.shape(query)[0], ops.shape(memory)[0]
        shape = (batch, rows_per_memory(rows, batch))  # B, W
        length = ops.shape(memory)[1]
        options = {
            name: ops.reshape(x, shape if name == "position" else (*shape, length))
            for name, x in carried.items()
        }
        if "previous" in options:
            options["previous"] = Exact(options["previous"])
        queries = ops.reshape(query, (*shape, query.shape[-1]))
        vectors, weights = self.attention(queries, memory, keys=keys, memory_mask=mask, **options)
        vectors = ops.reshape(vectors, (rows, vectors.shape[-1]))
        return vectors, ops.reshape(weights, (rows, length))

    def logits(self, outputs):
        """The logits `[..., V]` of r, or with attend="before" of its inputs."""
        if self.readout is not None:
            outputs = ops.tanh(add_bias(self.readout(outputs), self.readout_bias))
        return super().logits(outputs)

    def own_trainable_weights(self) -> list:
        return [*super().own_trainable_weights(), self.readout_bias]

    def compute_output_shape(self, tokens_shape, memory_shape):
        shape = tuple(tokens_shape)
        return (*shape, self.vocabulary_size), (*shape, memory_shape[1])

    def compute_mask(self, tokens, mask=None):
        return [mask, None]

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


def rows_per_memory(rows, batch):
    """W, where `rows` is B times W; 0 for an empty batch."""
    if isinstance(rows, int) and isinstance(batch, int):
        return rows // max(batch, 1)
    return ops.floor_divide(rows, ops.maximum(batch, 1))
