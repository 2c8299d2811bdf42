"""Searches for the translations of a batch of sources, and texts of the found ids."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from unroll import layers
from unroll.apps.core.protocol import Trained
from unroll.apps.shared.decoders import split_states
from unroll.apps.translation.network import mean_of_probabilities, members_of
from unroll.layers.decoding import SearchResult
from unroll.pipelines import translation
from unroll.pipelines.translation import END, PAD, SEPARATOR, SPECIAL, START, UNKNOWN

# A logit of a token that is never written.
_IMPOSSIBLE = -1e9
# The tokens of a source that are read. Every hypothesis of the beam has its own copy of them.
_MAX_SOURCE = 2**12


def decoding(trained: Trained) -> Callable:
    """A function of sources `[B, S]`, ids, that returns the arguments of a search.

    It returns `(step_function, initial_states, mask)`, where `mask` `[B, S]` tells which positions
    are tokens. The step function never allows padding, the start symbol or the separator of turns,
    and the unknown token only with `replace_unknown`. Of an ensemble, it returns the mean of the
    probabilities and of the attention weights.
    """
    members = [
        (each.get_layer("encoder"), each.get_layer("decoder")) for each in members_of(trained.model)
    ]
    never = [PAD, START, SEPARATOR] + ([] if trained.config.replace_unknown else [UNKNOWN])
    forbidden = np.zeros(members[0][1].vocabulary_size, "float32")
    forbidden[never] = _IMPOSSIBLE

    def begin(source) -> tuple:
        steps, states = [], []
        for encoder, decoder in members:
            encoded = encoder(source, training=False)
            memory, mask = encoded["memory"], encoded["mask"]
            first = split_states(encoded["state"], decoder.cell_state_sizes)
            steps.append(decoder.step_function(memory, mask))
            states.append(decoder.initial_states(memory, first))

        def step_function(tokens, states) -> tuple:
            found = [step(tokens, own) for step, own in zip(steps, states, strict=True)]
            logits, states, weights = zip(*found, strict=True)
            logits = tf.cast(mean_of_probabilities(list(logits)), tf.float32) + forbidden
            weights = tf.add_n([tf.cast(x, tf.float32) for x in weights]) / len(weights)
            return logits, list(states), weights

        return step_function, states, mask

    return begin


def search(step_function: Callable, states: list, mask, config) -> SearchResult:
    """The `num_return_sequences` translations of each source that the options describe."""
    count = config.num_return_sequences
    if config.sample:
        samples = _samples(step_function, states, config, count)
        order = tf.argsort(samples.scores, direction="DESCENDING", stable=True)
        found = (None if x is None else tf.gather(x, order, batch_dims=1) for x in samples)
        return SearchResult(*found)
    width = config.beam_width
    candidates = beam_search(
        step_function, states, mask, config, width, width if config.mbr_samples else count
    )
    if not config.mbr_samples:
        return candidates
    samples = _samples(without_weights(step_function), states, config, config.mbr_samples)
    return layers.minimum_bayes_risk(candidates, samples, num_return_sequences=count)


def beam_search(
    step_function: Callable,
    states: list,
    mask,
    config,
    beam_width: int,
    num_return_sequences: int = 1,
) -> SearchResult:
    """The translations with the highest scores that a beam of a given width finds."""
    return layers.beam_search(
        step_function,
        states,
        beam_width=beam_width,
        num_return_sequences=num_return_sequences,
        length_penalty=config.length_penalty,
        coverage_penalty=config.coverage_penalty,
        memory_mask=mask,
        **_limits(config),
    )


def greedy(step_function: Callable, states: list, config) -> SearchResult:
    """The most probable token at each step."""
    return layers.greedy(step_function, states, **_limits(config))


def without_weights(step_function: Callable) -> Callable:
    """A step function without attention weights: a search need not store them."""
    return lambda tokens, states: (*step_function(tokens, states)[:2], None)


def _samples(step_function: Callable, states: list, config, count: int) -> SearchResult:
    return layers.sample(
        step_function,
        states,
        num_samples=count,
        temperature=config.temperature or 1.0,
        top_k=0 if config.temperature else 1,
        top_p=config.top_p,
        seed=config.sample_seed,
        **_limits(config),
    )


def _limits(config) -> dict:
    penalties = []
    if config.repetition_penalty != 1:
        penalties.append(layers.RepetitionPenalty(config.repetition_penalty))
    return {
        "start": START,
        "end": END,
        "max_length": config.max_length,
        "no_repeat_ngram_size": config.no_repeat_ngram_size,
        "logits_processors": penalties,
    }


class Translator(tf.Module):
    """Texts to translations: tokenizers, a model and a search.

    Args:
        trained: a model, or an ensemble.
    """

    def __init__(self, trained: Trained):
        super().__init__()
        self.config = trained.config
        self.source, self.target = translation.tokenizers(
            trained.assets, trained.config.units_of_text
        )
        self.begin = decoding(trained)
        self.variables_of_model = trained.model.variables

    def source_ids(self, texts, histories=None):
        """What the encoder reads, `[B, S]`, of sources `[B]` and ragged histories `[B, (N)]`.

        Of a source with more than 4,096 tokens, these are the last ones.
        """
        ids = translation.encode_source(self.source, texts, histories)
        return ids[:, -_MAX_SOURCE:].to_tensor(PAD)

    def source_pieces(self, texts, histories=None) -> tf.Tensor:
        """The pieces of `source_ids` as strings, `[B, S]`. Unknown ones are as in the text."""
        turns = tf.RaggedTensor.from_tensor(texts[:, None])
        if histories is not None:
            turns = tf.concat([histories, turns], axis=1)  # [B, (N + 1)]
        pieces = self.source.split(turns.flat_values)
        pieces = tf.concat([pieces, tf.fill([pieces.nrows(), 1], SPECIAL[SEPARATOR])], axis=1)
        pieces = turns.with_values(pieces).merge_dims(1, 2)[:, :-1]
        pieces = tf.concat([pieces, tf.fill([pieces.nrows(), 1], SPECIAL[END])], axis=1)
        return pieces[:, -_MAX_SOURCE:].to_tensor()

    def search(self, ids, with_weights: bool = True) -> SearchResult:
        """The translations of sources `[B, S]`, ids, by the options; `[B, n, ...]`."""
        step_function, states, mask = self.begin(ids)
        if not (with_weights or self.config.coverage_penalty or self.config.replace_unknown):
            step_function = without_weights(step_function)
        return search(step_function, states, mask, self.config)

    def target_pieces(self, found: SearchResult, source_pieces=None) -> tf.RaggedTensor:
        """The pieces of translations `[B, n, L]`, as `[B n, (L)]` strings.

        Args:
            found: the result of a search.
            source_pieces: `[B, S]`. With `replace_unknown`, an unknown piece is replaced by the one
                with the largest attention weight (Luong et al. 2015, "Addressing the rare word
                problem in neural machine translation", section 3.3).
        """
        pieces = tf.gather(self.target.names, found.tokens)  # [B, n, L]
        if self.config.replace_unknown:
            specials = tf.constant([SPECIAL[END], SPECIAL[SEPARATOR], ""])
            is_word = tf.reduce_all(source_pieces[..., None] != specials, axis=-1)  # [B, S]
            weights = tf.where(is_word[:, None, None], found.alignments, -1.0)
            copied = tf.gather(source_pieces, tf.argmax(weights, axis=-1), batch_dims=1)
            has_words = tf.reduce_any(is_word, axis=-1)[:, None, None]
            pieces = tf.where((found.tokens == UNKNOWN) & has_words, copied, pieces)
        flat = tf.reshape(pieces, [-1, tf.shape(pieces)[-1]])
        return tf.RaggedTensor.from_tensor(flat, lengths=tf.reshape(found.lengths, [-1]))

    def texts(self, found: SearchResult, source_pieces=None) -> tf.Tensor:
        """The translations `[B, n]` as texts; see `target_pieces`."""
        texts = self.target.join(self.target_pieces(found, source_pieces))
        return tf.reshape(texts, tf.shape(found.lengths))
