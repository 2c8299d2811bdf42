"""A recurrent decoder that attends to a memory."""

import keras
from keras import ops

from unroll.layers.attention.base import Attention
from unroll.layers.decoding.recurrent_decoder import (
    RecurrentDecoder,
    build_once,
    count_states,
    plan,
)

ORDERS = ("before", "after")


@keras.saving.register_keras_serializable(package="unroll")
class AttentionDecoder(RecurrentDecoder):
    """A `RecurrentDecoder` that looks at a memory while it writes.

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

    With `gated` a scalar of the state before tells how much the memory counts (Xu et al. 2015,
    "Show, attend and tell", section 4.2.1): c_t is sigmoid(w h_{t-1} + b) a(h_{t-1}).

    The context stands last in what the first cell reads: give a `ContextLSTMCell` the
    `context_size` of the memory (before) or of the attentional vector (after), and it enters
    through weights of its own.

    Args:
        vocabulary_size, embedding_dim, cells, **kwargs: as in `RecurrentDecoder`. With
            attend="before" r has the size of E, and dropout is on what r is made from; else on r.
        attention: a `BahdanauAttention` or `LuongAttention`. With attend="after" it needs an
            attentional vector.
        attend: `"before"` the cells or `"after"`.
        gated: whether the context is scaled; with attend="before".

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
    >>> from unroll import layers
    >>> decoder = layers.AttentionDecoder(
    ...     vocabulary_size=50,
    ...     embedding_dim=8,
    ...     cells=[layers.ContextLSTMCell(16, context_size=6)],
    ...     attention=layers.BahdanauAttention(10),
    ... )
    >>> encoded = np.ones((2, 5, 6), "float32")
    >>> logits, weights = decoder(np.ones((2, 4), "int32"), encoded)
    >>> logits.shape, weights.shape
    (TensorShape([2, 4, 50]), TensorShape([2, 4, 5]))
    >>> step, states = decoder.step_function(encoded), decoder.initial_states(encoded)
    >>> layers.beam_search(step, states, start=1, end=2, max_length=7, best=3).tokens.shape
    TensorShape([2, 3, 7])

    Differs from the papers: r is a tanh layer and not Bahdanau's maxout; the first state is the
    caller's affair.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_dim: int,
        cells: list,
        attention: Attention,
        attend: str = "before",
        gated: bool = False,
        **kwargs,
    ):
        super().__init__(vocabulary_size, embedding_dim, cells, **kwargs)
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
        if attend == "after" and gated:
            raise ValueError("gated=True needs attend='before', which has the state before.")
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

    @property
    def _step_layers(self) -> list:
        return [*self.cells, self.attention, *([self.gate] if self.gated else [])]

    @property
    def _counts_steps(self) -> bool:
        return getattr(self.attention, "window", None) == "local_m"

    def build(self, tokens_shape, memory_shape):
        vector = self.attention.output_size(memory_shape[-1])
        width = self._build_cells(self.embedding_dim + vector)
        if self.attend == "before":
            query = self.cell_state_sizes[-count_states(self.cells[-1])]
            build_once(self.attention, (None, query), memory_shape)
            if self.gated:
                self.gate.build((None, query))
            self.readout.build((None, width + vector + self.embedding_dim))
        else:
            build_once(self.attention, (None, width), memory_shape)
        self._build_words(tokens_shape, self.embedding_dim if self.readout else vector)

    def initial_states(self, memory, initial_state=None) -> list:
        """The states before the first step.

        Args:
            memory: `[B, S, D]`, which tells the batch size.
            initial_state: as in the call.

        Returns:
            A list of `[B, size]`: the cells' states, with attend="after" the attentional vector,
            and with a local-m window the number of steps.
        """
        states = super().initial_states(ops.shape(memory)[0], initial_state)
        # Several rows may share one memory.
        batch = ops.shape(states[0])[0]
        if self.attend == "after":
            states.append(ops.zeros((batch, self.attention.units), self.compute_dtype))
        if self._counts_steps:
            states.append(ops.zeros((batch, 1), self.compute_dtype))
        return states

    def step(self, tokens, states, memory, keys=None, mask=None):
        """One step, as in the search of a sequence.

        Args:
            tokens: `[N]`, integers: the words before.
            states: as `initial_states` and this method return them.
            memory: `[B, S, D]`, where N is B, or a multiple of it: then the rows of one memory
                stand together.
            keys: `attention.compute_keys(memory)`; made anew by default.
            mask: `[B, S]`, boolean.

        Returns:
            A tuple of the logits `[N, V]`, the new states and the weights `[N, S]`.
        """
        keys = self.attention.compute_keys(memory) if keys is None else keys
        memory = ops.cast(memory, self.compute_dtype)
        features, states, weights = self._advance(
            self.embedding(tokens), list(states), memory, keys, mask
        )
        return self._logits(features), states, weights

    def step_function(self, memory, mask=None):
        """`step` with the memory given, for a search.

        It is called `(tokens, states) -> (logits, states, weights)`. The keys are prepared once.
        """
        keys = self.attention.compute_keys(memory)
        return lambda tokens, states: self.step(tokens, states, memory, keys, mask)

    def call(self, tokens, memory, initial_state=None, mask=None, training=False):
        keys = self.attention.compute_keys(memory)
        memory = ops.cast(memory, self.compute_dtype)

        def advance(x, states, constants):
            features, states, weights = self._advance(x, states, *constants, mask)
            return (features, weights), states

        states = self.initial_states(memory, initial_state)
        features, weights = self._unroll(tokens, states, advance, (memory, keys), training)
        return self._logits(features), weights

    def _advance(self, x, states, memory, keys, mask):
        """From the embedded words `[N, E]` to what the logits are made of."""
        count = None
        if self._counts_steps:
            *states, count = states
        fed = states.pop() if self.attend == "after" else None
        if fed is None:
            query = states[-count_states(self.cells[-1])]
            fed, weights = self._attend(query, memory, keys, mask, count)
            if self.gated:
                fed = fed * self.gate(query)
        h, new = self._run_cells(ops.concatenate([x, fed], axis=-1), states)
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
        return super()._logits(features if self.readout is None else self.readout(features))

    def compute_mask(self, *arguments, **options):
        return [None, None]

    def get_config(self):
        return {
            **super().get_config(),
            "attention": plan(self.attention),
            "attend": self.attend,
            "gated": self.gated,
        }

    @classmethod
    def from_config(cls, config):
        attention = keras.saving.deserialize_keras_object(config["attention"])
        return super().from_config({**config, "attention": attention})
