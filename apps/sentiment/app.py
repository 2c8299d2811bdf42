"""Sentiment of a text: recurrent layers and pooling over time, two or more classes."""

from dataclasses import dataclass, replace
from typing import Literal

import keras
import tensorflow as tf
from keras import ops
from rich.text import Text

from unroll import layers
from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.data import RawSplits
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import (
    Assets,
    Axes,
    Data,
    Page,
    Report,
    Service,
    Shared,
    Trained,
    query,
)
from unroll.apps.sentiment import fine_tuning, metrics, serving
from unroll.apps.sentiment import report as reports
from unroll.apps.shared import word_vectors
from unroll.apps.shared.display import weighted_tokens, weights_of
from unroll.apps.shared.recurrent import recurrent_layers, require_cell
from unroll.apps.shared.unknown_words import report_unknown
from unroll.layers.recurrent import max_over_time, mean_over_time
from unroll.pipelines import text as texts
from unroll.pipelines.datasets.sentiment.text_files import UNSEEN


@dataclass(frozen=True)
class Config(TrainingConfig):
    # name of a dataset, or a folder of train, valid and test as .tsv, .csv or .jsonl
    data: str = "reviews"
    # input encoding: learned embedding, one-hot, letter trigrams, or pretrained vectors
    encoding: Literal["embedding", "one_hot", "word_hashing", "vectors"] = "embedding"
    # file of pretrained vectors in GloVe's format, for encoding=vectors
    vectors: str = ""
    # maximum number of words in the vocabulary
    vocabulary_size: int = 20_000
    # minimum count of a word in the training texts to be in the vocabulary
    min_count: int = 1
    # maximum number of tokens of a training text; 0 for no limit
    max_length: int = 0
    # pad training batches to one of a few fixed shapes, for XLA and TPUs; needs max_length
    static_shapes: bool = False
    # size of the word vectors
    embedding_dim: int = 64
    # recurrent layer, by its name in `unroll.layers`
    cell: str = "LSTM"
    # size of the recurrent state in each direction
    units: int = 48
    # number of recurrent layers
    depth: int = 1
    # read in both directions
    bidirectional: bool = True
    # skip connections between recurrent layers
    skip: Literal["none", "residual", "dense"] = "none"
    # pooling of the recurrent states over time
    pool: Literal["last", "mean", "max", "attention"] = "attention"
    # length of the segments of a text that are read in parallel; 0 reads the text as a whole
    segment_length: int = 0
    # dropout rate of word vectors, between layers and of the pooled vector
    dropout: float = 0.3
    # probability of replacing a word by the unknown token in training
    word_dropout: float = 0.0
    # weight decay of AdamW
    weight_decay: float = 0.0
    # learning rate of a layer divided by that of the layer above it, for fine-tuning
    layer_decay: float = 1.0
    # train only the layers above the recurrent ones in the first epoch, one more in each next epoch
    gradual_unfreezing: bool = False

    def __post_init__(self):
        super().__post_init__()
        require_cell("cell", self.cell)
        if (self.encoding == "vectors") != bool(self.vectors):
            raise ValueError("encoding=vectors and vectors=FILE need each other.")
        if self.static_shapes and not 0 < self.max_length < texts.BOUNDARIES[-1]:
            raise ValueError(
                f"static_shapes needs a max_length of 1 to {texts.BOUNDARIES[-1] - 1}."
            )
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be above 0 and at most 1, got {self.layer_decay}.")
        if self.segment_length and self.pool == "last":
            raise ValueError("segment_length needs pool=mean, max or attention.")


_SENTENCES = Config(
    data="sst2", epochs=8, batch_size=50, learning_rate=5e-4, patience=3,
    embedding_dim=128, units=128, pool="max", dropout=0.5, word_dropout=0.3
)  # fmt: skip
_DOCUMENTS = replace(
    _SENTENCES, data="imdb", epochs=6, batch_size=64, learning_rate=2e-3, schedule="cosine",
    vocabulary_size=30_000, max_length=400, segment_length=50, word_dropout=0.4
)  # fmt: skip
PRESETS = {
    "reviews": Config(epochs=12, learning_rate=3e-3, word_dropout=0.1),
    "sst2": _SENTENCES,
    "sst5": replace(_SENTENCES, data="sst5"),
    "imdb": _DOCUMENTS,
}

# Chosen on 500 to 10,000 texts of five published datasets: see the README.
OWN_FILES = replace(
    _SENTENCES,
    data="",
    epochs=30,
    batch_size=32,
    learning_rate=1e-3,
    patience=5,
    pool="attention",
    max_length=400,
)

TASK = "text-classification"
PUBLISHED = {
    "sst2": {"accuracy": 0.827, "source": "CNN-rand, Kim 2014"},
    "sst5": {"accuracy": 0.450, "source": "CNN-rand, Kim 2014"},
    "imdb": {"accuracy": 0.862, "source": "LSTM, Keras examples"},
}

METRICS = {"accuracy": "max"}
MONITORS = {"val_accuracy": "max"}


def load(
    config: Config,
    splits: tuple[str, ...],
    assets: Assets | None = None,
    training: bool = False,
) -> Data:
    """Batches of token ids and label ids. The vocabulary is that of the training texts."""
    raw = RawSplits(config, "text_classification")
    labels = raw.builder.features["label"].names
    if assets is None:
        if config.encoding == "vectors":
            texts.read_vectors(config.vectors, [])  # fails early if the file is broken
        vocabulary = texts.build_vocabulary(
            raw["train"].map(lambda example: example["text"]),
            config.vocabulary_size,
            config.min_count,
        )
        assets = {"vocabulary": vocabulary, "labels": labels}
    elif assets["labels"] != labels:
        raise UsageError(
            f"{config.data} has the labels {labels}, the run was trained on {assets['labels']}."
        )
    encoder = texts.Encoder(assets["vocabulary"], trigrams=config.encoding == "word_hashing")

    def batches(split: str) -> tf.data.Dataset:
        train = training and split == "train"
        return texts.text_batches(
            raw[split],
            encoder,
            config.batch_size,
            max_length=config.max_length if train else 0,
            shuffle=config.seed if train else None,
            static=train and config.static_shapes,
        )

    data = Data({split: batches(split) for split in splits}, assets)
    if training and "valid" in splits:
        report_unknown("valid", data["valid"], "tokens")
    return data


def axes(config: Config) -> Axes:
    """The weights of words and labels."""
    found = {
        "embedding/embeddings": ("vocabulary", None),
        "probabilities/kernel": (None, "labels"),
        "probabilities/bias": ("labels",),
    }
    if config.encoding == "one_hot":
        # The inputs of the first layer are words; with dense skips, also the first of all layers.
        layer = r"\d+" if config.skip == "dense" else "0"
        found[rf"(segmented/)?stack/layer_{layer}/(\w+/)?cell/kernel"] = (("vocabulary", ...), None)
    return found


def shared(config: Config) -> Shared:
    """The word vectors, and the recurrent layers that read forwards."""
    weights = {
        r"embedding/embeddings": "word vectors",
        r"(segmented/)?stack/layer_(?P<k>\d+)/(forward_\w+/)?cell/(?P<name>\w+)": (
            r"layer \g<k>, \g<name>"
        ),
    }
    is_learned = config.encoding == "embedding"
    return Shared(weights if is_learned else {}, "words", unknown=texts.SPECIAL[texts.UNKNOWN])


def start_options(config) -> dict:
    """The network of a language model: its sizes, and reading in one direction."""
    names = ("embedding_dim", "cell", "units", "depth")
    return {
        "encoding": "embedding",
        **{name: getattr(config, name) for name in names},
        "bidirectional": False,
        "skip": "none",
    }


def build(config: Config, assets: Assets) -> keras.Model:
    """Encoding, recurrent layers, pooling, softmax."""
    size = len(assets["vocabulary"])
    inputs = {"tokens": keras.Input((None,), dtype="int32", name="tokens")}
    mask = ops.not_equal(inputs["tokens"], texts.PADDING)  # [B, T]
    words = layers.WordDropout(config.word_dropout, texts.UNKNOWN)(inputs["tokens"], mask=mask)
    if config.encoding == "one_hot":
        x = ops.one_hot(words, size)  # [B, T, V]
    elif config.encoding == "word_hashing":
        inputs["trigrams"] = keras.Input((None, None), dtype="int32", name="trigrams")
        x = layers.WordHashing(config.embedding_dim)(inputs["trigrams"])  # [B, T, D]
    else:
        initializer = word_vectors.embedding_initializer(
            config.vectors,
            assets["vocabulary"],
            config.embedding_dim,
            config.seed,
            unit_length=True,
        )
        x = keras.layers.Embedding(size, config.embedding_dim, initializer)(words)
    x = keras.layers.Dropout(config.dropout)(x)
    recurrent = layers.Stack(
        recurrent_layers(config.cell, config.units, config.depth),
        bidirectional=config.bidirectional,
        skip=None if config.skip == "none" else config.skip,
        dropout=config.dropout,
        return_state=config.pool == "last",
    )
    if config.segment_length:
        recurrent = layers.Segmented(recurrent, config.segment_length)
    states = recurrent(x, mask=mask)  # [B, T, U]
    if config.pool == "last":
        _, *last = states
        top = last[-len(last) // config.depth :]  # the states of the top layer
        outputs = top[:: len(top) // 2] if config.bidirectional else top[:1]
        pooled = ops.concatenate(outputs, axis=-1)
    elif config.pool == "attention":
        pooled, _ = layers.AttentionPool(config.units, name="pool")(states, mask=mask)
    else:
        over_time = {"mean": mean_over_time, "max": max_over_time}
        pooled = over_time[config.pool](states, mask)
    pooled = keras.layers.Dropout(config.dropout)(pooled)
    classes = keras.layers.Dense(
        len(assets["labels"]), activation="softmax", dtype="float32", name="probabilities"
    )
    model = keras.Model(inputs, classes(pooled))
    model.compile(
        fine_tuning.optimizer(config),
        # Labels that the training split lacks do not enter the loss, and count as errors.
        keras.losses.SparseCategoricalCrossentropy(ignore_class=UNSEEN),
        metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
        jit_compile=config.jit,
    )
    return model


def callbacks(config: Config, history: list[dict]) -> list[keras.callbacks.Callback]:
    """Gradual unfreezing."""
    return [fine_tuning.GradualUnfreezing(config.depth)] if config.gradual_unfreezing else []


def score(trained: Trained, dataset: tf.data.Dataset) -> dict:
    """Accuracy."""
    found = metrics.predictions(trained, dataset)
    return metrics.accuracy(found.labels, found.predicted)


def baseline(config: Config, data: Data, split: str) -> dict:
    """A logistic regression on word counts."""
    return metrics.baseline(config, data, split)


def serve(trained: Trained) -> Service:
    """`serving_default`: texts to labels; `ids`: token ids to probabilities, for LiteRT."""
    return serving.service(trained)


def predict(trained: Trained, inputs: list[str]) -> list[dict]:
    """Label, probability of each class and, with attention pooling, the weight of each token."""
    results = []
    for text, outputs in zip(inputs, query(serve(trained), inputs), strict=True):
        tokens = [token for token in outputs["tokens"] if token]
        probabilities = zip(trained.assets["labels"], outputs["probabilities"], strict=True)
        result = {
            "text": text,
            "label": outputs["label"],
            "probabilities": dict(probabilities),
            "tokens": tokens,
        }
        if "attention" in outputs:
            result["attention"] = outputs["attention"][: len(tokens)]
        results.append(result)
    return results


def show(result: dict) -> Text:
    """The label, its probability, and the tokens with their weights."""
    label = result["label"]
    line = Text(f"{label} {result['probabilities'][label]:.1%}  ", style="bold")
    return line + weighted_tokens(result["tokens"], result.get("attention"))


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """Precision and recall by class, the worst errors, confusions."""
    return reports.report(trained, dataset)


plot = reports.plot


def page(trained: Trained) -> Page:
    """The probabilities of the classes, and the words by their weights."""
    outputs = {"sentiment": ("scores", lambda result: result["probabilities"])}
    if trained.config.pool == "attention":
        outputs["attention"] = ("weights", lambda r: weights_of(r["tokens"], r["attention"]))
    return Page({"text": "text"}, outputs, plot=False)


def examples() -> list[str]:
    """Some texts."""
    return [
        "The acting was clever, but the plot was boring.",
        "Although the soup was bland, the service was really good.",
        "The room was clean, but the staff was not friendly at all.",
        "Nobody called the waiting room clean. However, the doctors were excellent!",
    ]
