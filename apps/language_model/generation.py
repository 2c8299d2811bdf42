"""Texts that continue a prompt, and the probability of each token of a text."""

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from unroll import layers
from unroll.apps.core.protocol import Trained, once
from unroll.apps.language_model.network import Steps
from unroll.apps.shared.token_losses import token_losses
from unroll.pipelines.language_modeling import END, IGNORED, UNKNOWN, Units
from unroll.pipelines.text import MAX_TOKENS, known_ids

_IMPOSSIBLE = -1e9  # a logit
_BLOCK = 256  # tokens of a text whose logits are computed at once


def units_of(trained: Trained) -> Units:
    """What splits texts into the units of a trained model."""
    assets = trained.assets
    return Units(trained.config.units_of_text, assets["vocabulary"], assets.get("subwords", b""))


@once
def generator_of(trained: Trained) -> "Generator":
    """The generator of a trained model, made once."""
    return Generator(trained, units_of(trained))


class Generator:
    """Continues texts with a trained model.

    For the searches of `layers` the vocabulary has one more token, `stop`, since a text has no end.
    They choose neither that nor `<unk>`.

    Args:
        trained: the trained model.
        units: those of the model.
    """

    def __init__(self, trained: Trained, units: Units):
        self.config = trained.config
        self.units = units
        self.steps = Steps(trained.model, trained.config.tie_weights)
        self.stop = len(units.vocabulary)
        self.prime = tf.function(self._prime, input_signature=[tf.TensorSpec([None], tf.string)])
        self.seeds = keras.random.SeedGenerator(trained.config.sample_seed)
        self.initial_seeds = self.seeds.state.numpy()
        self.choose = tf.function(self._choose, autograph=False)
        self.extend = tf.function(
            self._extend,
            input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([None], tf.int32)],
        )

    def _prime(self, prompts):
        """The last token `[B]` of prompts `[B]`, strings, and the states before it.

        An `<eos>` precedes each prompt.
        """
        return self.prime_ids(self.prompt_ids(prompts))

    def prompt_ids(self, prompts):
        """The ids of prompts `[B]`, strings, after an `<eos>`: `[B, 1 + T]`, padded with -1.

        Of a longer prompt, these are the last `MAX_TOKENS`.
        """
        ids = self.units(prompts)[:, -MAX_TOKENS:].to_tensor(IGNORED)
        return tf.pad(ids, [[0, 0], [1, 0]], constant_values=END)

    def prime_ids(self, ids):
        """As `prime`, of the ids of prompts. Those that are not in the vocabulary are `<unk>`."""
        lengths = tf.maximum(1, tf.reduce_sum(tf.cast(ids >= 0, tf.int32), axis=1))
        mask = tf.range(tf.shape(ids)[1])[None] < lengths[:, None] - 1
        ids = known_ids(ids, self.stop, UNKNOWN)
        _, states = self.steps.outputs(ids, mask)
        return tf.gather(ids, lengths - 1, batch_dims=1), states

    def step(self, tokens, states) -> tuple:
        """One step, as the searches take it."""
        # A beam with fewer hypotheses than its width is filled with `stop`.
        logits, states = self.steps.step(ops.minimum(tokens, self.stop - 1), states)
        logits = ops.where(ops.arange(self.stop) == UNKNOWN, _IMPOSSIBLE, logits)
        return ops.pad(logits, ((0, 0), (0, 1)), constant_values=_IMPOSSIBLE), states, None

    def _choose(self, tokens, states):
        """The tokens `[B]` after tokens `[B]`, and the states, by the options."""
        config = self.config
        search, options = layers.greedy, {}
        if config.temperature:
            search, options = layers.sample, {"seed": self.seeds}
            options |= {name: getattr(config, name) for name in ("temperature", "top_k", "top_p")}
        logits, states, _ = self.step(tokens, states)
        found = search(
            lambda _, unused: (logits, unused, None),
            [tokens[:, None]],
            start=tokens,
            end=self.stop,
            max_length=1,
            **options,
        )
        return found.tokens[:, 0], states

    def stream(self, prompt: str) -> Iterator[str]:
        """The continuation of a prompt, token by token, with the options of the configuration."""
        self.seeds.state.assign(self.initial_seeds)  # the same text whatever came before
        tokens, states = self.prime(tf.constant([prompt]))
        ids, text = [], prompt
        for _ in range(self.config.max_length):
            tokens, states = self.choose(tokens, states)
            ids.append(int(tokens.numpy()[0]))
            longer = self.text(prompt, ids)
            yield longer.removeprefix(text)
            text = longer

    def beam_search(self, prompt: str) -> str:
        """The continuation of a prompt with the highest probability that a beam search finds."""
        tokens, states = self.prime(tf.constant([prompt]))
        found = tf.function(layers.beam_search, autograph=False)(
            self.step,
            states,
            start=tokens,
            end=self.stop,
            max_length=self.config.max_length,
            beam_width=self.config.beam_width,
        )
        length = int(found.lengths[0, 0])
        return self.text(prompt, found.tokens[0, 0, :length].numpy()).removeprefix(prompt)

    def text(self, prompt: str, ids) -> str:
        """A prompt and the tokens after it, as text."""
        return self.extend(prompt, tf.constant(ids, tf.int32)).numpy().decode("utf-8")

    def _extend(self, prompt, ids):
        return self.units.extend(prompt[None], tf.RaggedTensor.from_tensor(ids[None]))[0]

    def score(self, texts, max_tokens: int | None = None):
        """The tokens of texts `[B]`, `[B, (T)]` strings, and log P of each, `[B, (T)]` in nats.

        The first token follows an `<eos>`. Those after `max_tokens` are left out.
        """
        ids = self.units(texts)[:, :max_tokens]
        labels = ids.to_tensor(END)  # [B, T]
        labels = tf.pad(labels, [[0, 0], [0, tf.maximum(0, 1 - tf.shape(labels)[1])]])
        mask = tf.sequence_mask(ids.row_lengths(), tf.shape(labels)[1])
        tokens = tf.pad(labels[:, :-1], [[0, 0], [1, 0]], constant_values=END)
        outputs, _ = self.steps.outputs(tokens, mask)
        losses = self._losses(labels, outputs)
        names = ids.with_flat_values(tf.gather(self.units.names, ids.flat_values))
        return names, tf.RaggedTensor.from_tensor(-losses, lengths=ids.row_lengths())

    def _losses(self, labels, outputs):
        """-log P of labels `[B, T]` after outputs `[B, T, U]`, `[B, T]`.

        The logits of a long text, `[B, T, V]`, would need much more memory than all else.
        """
        count = tf.shape(labels)[1]
        size = tf.minimum(count, _BLOCK)
        begins = tf.range(0, count, size)
        missing = tf.size(begins) * size - count
        labels = tf.pad(labels, [[0, 0], [0, missing]])
        outputs = tf.pad(outputs, [[0, 0], [0, missing], [0, 0]])

        def of_block(begin):
            block = outputs[:, begin : begin + size]
            return token_losses(labels[:, begin : begin + size], self.steps.logits(block))[0]

        spec = tf.TensorSpec([None, None], tf.float32)
        found = tf.map_fn(of_block, begins, fn_output_signature=spec, parallel_iterations=1)
        return tf.reshape(tf.transpose(found, [1, 0, 2]), tf.shape(labels))[:, :count]


class SampleByInversion:
    """A logits processor that leaves one random token of each row, of the model's distribution.

    It is the first token up to which the sum of the probabilities is above a uniform random number
    (Devroye 1986, "Non-uniform random variate generation", III.2). The numbers of a row depend on
    its own seed alone, so that its text does not depend on the other rows.

    Args:
        temperature: `[B]`. The log probabilities are divided by it; 0 leaves the most probable
            token.
        seed: `[B]`, integers.
        max_length: the maximum number of tokens of a row.
    """

    def __init__(self, temperature, seed, max_length: int):
        self.temperature = temperature[:, None]

        def of_row(seed):
            return tf.random.stateless_uniform([max_length], tf.stack([seed, 0]))

        # Below 1, also after a product with a sum of probabilities.
        self.numbers = tf.minimum(
            tf.map_fn(of_row, seed, fn_output_signature=tf.TensorSpec([max_length])), 1 - 1e-6
        )

    def __call__(self, logits, tokens, step):
        differences = logits - tf.reduce_max(logits, axis=-1, keepdims=True)
        positive = tf.where(self.temperature > 0, self.temperature, 1.0)
        # Whatever the temperature.
        is_possible = logits > _IMPOSSIBLE / 2
        sums = tf.cumsum(tf.where(is_possible, tf.exp(differences / positive), 0.0), axis=-1)
        number = tf.gather(self.numbers, step, axis=1)[:, None] * sums[:, -1:]
        sampled = tf.reduce_sum(tf.cast(sums <= number, tf.int32), axis=-1, keepdims=True)
        is_sampled = tf.range(tf.shape(logits)[-1]) == sampled
        return tf.where(
            (self.temperature > 0) & ~is_sampled, tf.cast(-np.inf, logits.dtype), logits
        )


class StopAfter:
    """A logits processor that ends a text after a number of tokens.

    Args:
        length: the number, of each row `[B]` or of all, a scalar.
        stop: the token that is the only possible one then, the last of the vocabulary.
    """

    def __init__(self, length, stop: int):
        self.length, self.stop = length, stop

    def __call__(self, logits, tokens, step):
        is_stop = tf.range(self.stop + 1) == self.stop
        is_last = tf.expand_dims(step >= self.length, -1)
        return tf.where(is_last, tf.where(is_stop, 0.0, -np.inf), logits)
