"""The network: an encoder, a decoder with attention, and several of them as one."""

import keras
from keras import ops

from unroll import layers
from unroll.apps.shared.decoders import DoublyStochastic, decoder_cell, split_states
from unroll.apps.shared.recurrent import TIED_EMBEDDINGS, recurrent_layers
from unroll.layers.recurrent import mean_over_time
from unroll.pipelines.translation import PAD

# The standard deviation of other embeddings at first. With attention=after, the mean perplexity of
# the first epoch of Multi30k is 87; with Keras's default, 0.03, and tied weights it is 262.
_EMBEDDED = 0.5


def build(config, source_size: int, target_size: int) -> keras.Model:
    """The network of a configuration.

    Args:
        config: of the app.
        source_size: the size of the vocabulary of the encoder.
        target_size: that of the decoder, which is the same if `tied` is "three".

    Returns:
        A model of `source` `[B, S]` and `target` `[B, T]`, which starts with the start symbol and
        is padded with zeros, to the logits of the next tokens, `[B, T, V]`. Its layers `encoder`
        and `decoder` are what a search needs; see `decoding.Decoding`.
    """
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    decoder = _decoder(config, target_size)
    # Built before the encoder, which may have its embedding.
    decoder.build((None, None), (None, None, 2 * config.units))
    sizes = decoder.cell_state_sizes
    embedding = decoder.embedding if config.tied == "three" else None
    encoded = _encoder(config, source_size, embedding, sum(sizes))(source)
    memory, mask = encoded["memory"], encoded["mask"]  # [B, S, D], [B, S]
    states = split_states(encoded["state"], sizes)
    logits, weights = decoder(target, memory, initial_state=states, memory_mask=mask)  # [B, T, V]
    if config.coverage:
        logits = DoublyStochastic(config.coverage)(logits, weights, target, mask)
    logits = keras.layers.Identity(dtype="float32", name="logits")(logits)
    return keras.Model({"source": source, "target": target}, logits)


def _encoder(config, source_size: int, embedding, state_size: int) -> keras.Model:
    """The part of the model that reads the source.

    It maps ids `[B, S]` to `memory` `[B, S, 2 U]`, which the decoder attends to, `mask` `[B, S]`,
    and `state` `[B, state_size]`, the initial states of the decoder.
    """
    source = keras.Input((None,), dtype="int32", name="source")
    if embedding is None:
        embedding = keras.layers.Embedding(
            source_size,
            config.embedding_dim,
            keras.initializers.RandomNormal(stddev=_EMBEDDED),
            name="embedding",
        )
    mask = ops.not_equal(source, PAD)
    x = keras.layers.Dropout(config.embedding_dropout)(embedding(source))
    memory = layers.Stack(
        recurrent_layers(config.encoder_cell, config.units, config.encoder_depth),
        bidirectional=True,
        dropout=config.dropout,
        name="stack",
    )(x, mask=mask)
    memory = keras.layers.Dropout(config.dropout)(memory)
    state = keras.layers.Dense(state_size, "tanh", name="state")(mean_over_time(memory, mask))
    return keras.Model(source, {"memory": memory, "mask": mask, "state": state}, name="encoder")


def _decoder(config, target_size: int) -> layers.AttentionDecoder:
    is_tied, memory_size = config.tied != "none", 2 * config.units
    if config.attention == "before":
        attention = layers.BahdanauAttention(config.units)
        context_size = memory_size
    else:
        context_size = config.embedding_dim if is_tied else config.units
        attention = layers.LuongAttention(context_size, score=config.score)
    cells = [decoder_cell(config.cell, config.units, context_size)]
    cells += [decoder_cell(config.cell, config.units) for _ in range(config.depth - 1)]
    return layers.AttentionDecoder(
        target_size,
        config.embedding_dim,
        cells,
        attention,
        attend=config.attention,
        tie_weights=is_tied,
        dropout=config.embedding_dropout,
        output_dropout=config.dropout,
        cell_dropout=config.dropout,
        scheduled_sampling=config.scheduled_sampling,
        seed=config.seed,
        embeddings_initializer=keras.initializers.RandomNormal(
            stddev=TIED_EMBEDDINGS if is_tied else _EMBEDDED
        ),
        name="decoder",
    )


class Ensemble(keras.Model):
    """Several networks with the same vocabularies: the mean of their probabilities.

    Args:
        members: models made by `build`.

    Call arguments:
        inputs: as of one of them.

    Returns:
        The logarithm of the mean of the probabilities of the next tokens, `[B, T, V]`.
    """

    def __init__(self, members: list[keras.Model], **kwargs):
        super().__init__(**kwargs)
        self.members = members

    def call(self, inputs, training=False):
        return mean_of_probabilities([each(inputs, training=training) for each in self.members])


def encode(model: keras.Model, source) -> list[dict]:
    """What the encoder of each network makes of sources `[B, S]`; see `_encoder`."""
    return [each.get_layer("encoder")(source, training=False) for each in members_of(model)]


def logits_of_rows(model: keras.Model, encoded: list[dict], rows, target):
    """The logits `[N, T, V]` of targets `[N, T]`, each for the source of its row `[N]`.

    A source is encoded once, by `encode`, however many targets it has.
    """
    found = []
    for each, outputs in zip(members_of(model), encoded, strict=True):
        decoder = each.get_layer("decoder")
        memory, mask, state = (
            ops.take(outputs[name], rows, axis=0) for name in ("memory", "mask", "state")
        )
        states = split_states(state, decoder.cell_state_sizes)
        logits, _ = decoder(target, memory, initial_state=states, memory_mask=mask, training=False)
        found.append(ops.cast(logits, "float32"))
    return mean_of_probabilities(found)


def members_of(model: keras.Model) -> list[keras.Model]:
    """The networks of an ensemble, or the one that it is."""
    return model.members if isinstance(model, Ensemble) else [model]


def mean_of_probabilities(logits: list):
    """The logarithm of the mean of the probabilities of several logits `[..., V]`.

    The logits of a single network are returned as they are.
    """
    if len(logits) == 1:
        return logits[0]
    log_probs = ops.stack([ops.log_softmax(ops.cast(x, "float32"), axis=-1) for x in logits])
    return ops.logsumexp(log_probs, axis=0) - ops.log(float(len(logits)))
