"""Language model: continues prompts and scores texts, in characters, words or subwords."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import keras
import tensorflow as tf
from rich.text import Text

from unroll.apps.core.config import TrainingConfig, optimizer
from unroll.apps.core.data import RawSplits
from unroll.apps.core.protocol import (
    Assets,
    Axes,
    Data,
    Page,
    Part,
    Report,
    Service,
    Shared,
    Trained,
)
from unroll.apps.language_model import display, dynamic, metrics, network, serving
from unroll.apps.language_model import report as reports
from unroll.apps.language_model.generation import generator_of
from unroll.apps.shared.averaging import AveragedWeights
from unroll.apps.shared.recurrent import has_argument, require_cell
from unroll.apps.shared.token_losses import MeanLoss, Perplexity
from unroll.apps.shared.unknown_words import report_unknown
from unroll.pipelines import language_modeling as modeling


@dataclass(frozen=True)
class Search:
    # number of tokens to add to a prompt
    max_length: int = 200
    # below 1 the most probable tokens are sampled more often; 0 takes the most probable token
    temperature: float = 1.0
    # sample from the k most probable tokens only; 0 for all
    top_k: int = 0
    # sample from the most probable tokens with this total probability only
    top_p: float = 1.0
    # number of hypotheses of a beam search, in place of sampling; 1 turns it off
    beam_width: int = 1
    # random seed of the samples
    sample_seed: int = 0
    # print the log probability of each token of the text, in place of a continuation
    score: bool = False
    # evaluate: adapt the weights to the text that was read so far
    dynamic: bool = False
    # number of tokens between two steps of the dynamic evaluation
    dynamic_length: int = 10
    # learning rate of the dynamic evaluation
    dynamic_rate: float = 5e-4
    # rate at which the adapted weights return to the trained ones
    dynamic_decay: float = 0.02


@dataclass(frozen=True)
class Config(Search, TrainingConfig):
    # name of a dataset, a .txt file, or a folder of them
    data: str = "grammar"
    # maximum number of epochs
    epochs: int = 4
    # streams per batch
    batch_size: int = 16
    # initial learning rate
    learning_rate: float = 4e-3
    # learning rate schedule over the epochs; "halving" halves it after each quarter of them
    schedule: Literal["constant", "cosine", "halving"] = "cosine"
    # figure that selects the best epoch
    monitor: str = "val_perplexity"
    # what a token is: a character, a word between spaces, a word or punctuation mark, a token of
    # the app sentiment, a subword
    units_of_text: Literal["characters", "words", "punctuation", "tokens", "subwords"] = "words"
    # maximum number of tokens in the vocabulary
    vocabulary_size: int = 10_000
    # minimum count of a token in the training text to be in the vocabulary; not of a subword
    min_count: int = 1
    # mean number of tokens of a stream in a batch, through which gradients flow
    sequence_length: int = 32
    # vary the number of tokens from batch to batch; not with jit, which compiles for each length
    random_lengths: bool = True
    # maximum number of tokens of an epoch, and of a validation; 0 for the whole text
    epoch_tokens: int = 0
    # size of the embedded tokens
    embedding_dim: int = 64
    # recurrent layer, by its name in `unroll.layers`
    cell: str = "LSTM"
    # size of the recurrent state of each layer
    units: int = 192
    # number of recurrent layers
    depth: int = 1
    # put each recurrent layer in a residual block of the size of the embedding: with normalization,
    # a causal convolution of four steps, a gate and a feed-forward part
    residual_blocks: bool = False
    # output layer: over all tokens, or for large vocabularies in clusters by frequency
    softmax: Literal["full", "adaptive"] = "full"
    # the output layer has the weights of the embedding
    tie_weights: bool = False
    # dropout rate of the embedded tokens, with one mask per batch as the other rates
    embedding_dropout: float = 0.0
    # dropout rate between recurrent layers
    dropout: float = 0.0
    # dropout rate of the recurrent state
    recurrent_dropout: float = 0.0
    # dropout rate of the recurrent weights, with one mask per batch (DropConnect)
    recurrent_weight_dropout: float = 0.0
    # dropout rate of the output of the last recurrent layer
    output_dropout: float = 0.0
    # probability of replacing a token by the unknown token in training
    word_dropout: float = 0.0
    # weight decay of AdamW
    weight_decay: float = 0.0
    # decay per step of a moving average of the weights, which is validated and saved; 0 for none
    average: float = 0.99

    def __post_init__(self):
        super().__post_init__()
        require_cell("cell", self.cell)
        for name in network.RECURRENT_RATES:
            if getattr(self, name) and not has_argument(self.cell, name):
                raise ValueError(f"cell={self.cell} has no {name}, got {getattr(self, name)}.")
        if self.sequence_length < 8:
            raise ValueError(f"sequence_length must be at least 8, got {self.sequence_length}.")
        if 0 < self.epoch_tokens < self.batch_size:
            raise ValueError(
                f"epoch_tokens must be 0 or at least batch_size, {self.batch_size}, got "
                f"{self.epoch_tokens}."
            )
        if not 0 <= self.average < 1:
            raise ValueError(f"average must be in [0, 1), got {self.average}.")
        if self.vocabulary_size < 3:
            raise ValueError(f"vocabulary_size must be at least 3, got {self.vocabulary_size}.")
        self.require_positive("max_length", "beam_width", "dynamic_length")
        if not 0 <= self.temperature < 100:
            raise ValueError(f"temperature must be in [0, 100), got {self.temperature}.")
        for name in ("dynamic_rate", "dynamic_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}.")


_CHARACTERS = Config(
    data="tiny_shakespeare", units_of_text="characters", epochs=8, batch_size=32,
    sequence_length=64, units=256, output_dropout=0.1,
)  # fmt: skip
_WORDS = Config(
    data="ptb", units_of_text="words", epochs=9, batch_size=20, sequence_length=35,
    learning_rate=2e-3, embedding_dim=256, units=512, depth=2, tie_weights=True,
    embedding_dropout=0.2, dropout=0.2, output_dropout=0.35, clip_norm=0.25, average=0.999,
    weight_decay=1e-4,
)  # fmt: skip
PRESETS = {
    "grammar": Config(),
    "tiny_shakespeare": _CHARACTERS,
    "ptb": _WORDS,
    "ptb_characters": replace(
        _CHARACTERS, data="ptb_characters", units=512, depth=2, dropout=0.1, epochs=6
    ),
    "wiki10m": replace(
        _WORDS, data="wiki10m", units_of_text="subwords", vocabulary_size=8000, epochs=2,
        batch_size=32, sequence_length=64, depth=1, embedding_dropout=0.1, dropout=0.1,
        output_dropout=0.1, weight_decay=0.0, clip_norm=1.0,
    ),
    "imdb": replace(
        _WORDS, data="imdb", units_of_text="tokens", vocabulary_size=20_000, min_count=3,
        epochs=3, batch_size=32, sequence_length=64, depth=1, softmax="adaptive",
        embedding_dropout=0.1, output_dropout=0.2, weight_decay=0.0, clip_norm=1.0,
    ),
}  # fmt: skip
# For your own text.
OWN_FILES = replace(_CHARACTERS, data="")
ACCEPTS_A_FILE = True

TASK = "text-generation"
PUBLISHED = {
    "grammar": {
        "nats_per_token": 1.4924,
        "perplexity": 4.4479,
        "word_perplexity": 4.4479,
        "bits_per_character": 0.5256,
        "source": "the entropy of the grammar",
    },
    "tiny_shakespeare": {"nats_per_token": 1.4697, "source": "nanoGPT, 10.8 M parameters, GPU"},
    "ptb": {"perplexity": 82.7, "source": "medium regularized LSTM, Zaremba et al. 2014"},
}

METRICS = {
    "nats_per_token": "min",
    "perplexity": "min",
    "word_perplexity": "min",
    "bits_per_character": "min",
}
MONITORS = {"val_perplexity": "min"}


def load(
    config: Config,
    splits: tuple[str, ...],
    assets: Assets | None = None,
    training: bool = False,
) -> Data:
    """Streams of token ids. The vocabulary is that of the training text."""
    raw = RawSplits(config, "plain_text")
    if assets is None:
        vocabulary, model = modeling.build_vocabulary(
            _pieces(raw, "train"), config.units_of_text, config.vocabulary_size, config.min_count
        )
        assets = {"vocabulary": vocabulary} | ({"subwords": model} if model else {})
    units = modeling.Units(config.units_of_text, assets["vocabulary"], assets.get("subwords", b""))

    def batches(split: str) -> tf.data.Dataset:
        ids = modeling.ids_on_disk(_pieces(raw, split), units, raw.folder(split), split)
        if training and split == "train":
            return modeling.training_batches(
                ids,
                config.batch_size,
                config.sequence_length,
                seed=config.seed,
                random_lengths=config.random_lengths and not config.jit,
                most=config.epoch_tokens,
            )
        if config.dynamic and not training:
            return modeling.evaluation_batches(ids, 1, config.dynamic_length)
        most = config.epoch_tokens if training else 0
        return modeling.evaluation_batches(ids, config.batch_size, config.sequence_length, most)

    found = {split: batches(split) for split in splits}
    if training and "valid" in splits:
        what = shared(config).tokens
        names = {"unknown": modeling.UNKNOWN, "special": len(modeling.SPECIAL), "what": what}
        labels = found["valid"].map(lambda features, labels: ({"labels": labels},))
        report_unknown("valid", labels, "labels", **names)
    if config.softmax == "adaptive":

        def with_labels(features, labels):
            return {**features, "labels": labels}, labels

        found = {split: dataset.map(with_labels) for split, dataset in found.items()}
    return Data(found, assets)


def _pieces(raw: RawSplits, split: str) -> tf.data.Dataset:
    """The text of a split, as strings that follow each other. A labeled text is a piece."""
    examples = raw[split]
    if "label" not in examples.element_spec:
        return examples.map(lambda example: example["text"])
    return examples.map(lambda example: modeling.document(example["text"]))


def axes(config: Config) -> Axes:
    """The weights of tokens."""
    found = {"embedding/embeddings": ("vocabulary", None), "logits/bias": ("vocabulary",)}
    if config.softmax == "adaptive":
        starts = (0, *network.cutoffs(config.vocabulary_size))
        for k, (start, stop) in enumerate(zip(starts, (*starts[1:], None), strict=True)):
            found[f"logits/embeddings_{k}"] = (Part("vocabulary", start, stop), None)
        return {**found, "logits/bias": ((Part("vocabulary", 0, starts[1]), ...),)}
    return found if config.tie_weights else {**found, "logits/kernel": (None, "vocabulary")}


def shared(config: Config) -> Shared:
    """The vectors of words, and the recurrent layers."""
    weights = {
        r"embedding/embeddings": "word vectors",
        r"carried/stack/layer_(?P<k>\d+)/cell/(?P<name>\w+)": r"layer \g<k>, \g<name>",
    }
    kind = config.units_of_text
    tokens = kind if kind in ("characters", "subwords") else "words"
    computed = {}
    if config.softmax == "adaptive" and config.tie_weights:
        computed["embedding/embeddings"] = network.word_vectors
    return Shared(weights, tokens, modeling.SPECIAL[modeling.UNKNOWN], computed)


def build(config: Config, assets: Assets) -> keras.Model:
    """Embedding, recurrent layers that carry their state from batch to batch, softmax."""
    model = network.build(config, len(assets["vocabulary"]))
    model.compile(
        network.scaled(optimizer(config, config.weight_decay, config.average)),
        MeanLoss(),
        metrics=[Perplexity()],
        jit_compile=config.jit,
    )
    return model


def callbacks(config: Config, history: list[dict]) -> list[keras.callbacks.Callback]:
    """The averages of the weights."""
    return [AveragedWeights(swapped=bool(history))] if config.average else []


def score(trained: Trained, dataset: tf.data.Dataset) -> dict:
    """Perplexity, and bits per character, with a state that is carried over the whole split."""
    if not trained.config.dynamic:
        return metrics.score(trained, metrics.losses(trained, dataset))
    static = replace(trained.config, dynamic=False)
    train = load(static, ("train",), trained.assets)["train"]
    with dynamic.adapted(trained, dataset, train) as found:
        return metrics.score(trained, found)


def baseline(config: Config, data: Data, split: str) -> dict:
    """An n-gram language model."""
    return metrics.baseline(config, data, split)


def serve(trained: Trained) -> Service:
    """`serving_default`: prompts to texts; `score`: texts to log probabilities; `step`."""
    return serving.service(trained)


request = serving.request


def predict(trained: Trained, inputs: list[str]) -> list[dict]:
    """A continuation of each prompt, or with `score` the log probability of each of its tokens."""
    config, generator = trained.config, generator_of(trained)
    results = []
    for text in inputs:
        if config.score:
            names, found = (row.numpy() for row in generator.score(tf.constant([text])))
            tokens = [name.decode("utf-8") for name in names[0]]
            results.append({"text": text, "tokens": tokens, "log_probabilities": found[0].tolist()})
            continue
        beam = config.beam_width > 1
        longer = generator.beam_search(text) if beam else "".join(generator.stream(text))
        results.append({"prompt": text, "continuation": longer})
    return results


def stream(trained: Trained, prompt: str) -> Iterator[str]:
    """A prompt and its continuation, token by token."""
    yield prompt
    yield from generator_of(trained).stream(prompt)


def show(result: dict) -> Text:
    """A prompt and its continuation, or a text colored by how improbable each token is."""
    return display.show(result)


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """What single units follow, and where the model is surprised."""
    return reports.report(trained, dataset)


def page(trained: Trained) -> Page:
    """A prompt and its continuation, as it is written, or the surprise in each token of a text."""
    config = trained.config
    if not config.score:
        return Page({"prompt": "text"}, is_streamed=config.beam_width == 1)
    bits = {"bits of each token": ("weights", display.bits_of)}
    return Page({"text": "text"}, bits)


def examples() -> list[str]:
    """Some prompts."""
    return [
        "the dogs that every king likes",
        'this bird says " most cats ( the queen waits )',
        "some sailors [ three red",
        "",
    ]
