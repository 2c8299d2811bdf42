"""Sentiment of a text: a recurrent network reads it, a pooling sums it up, two or more classes."""

from dataclasses import dataclass, replace
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from rich.text import Text

import layers
from apps.core import bag_of_words
from apps.core.config import TrainingConfig, optimizer
from apps.core.errors import UsageError
from apps.core.protocol import Assets, Data, Service
from pipelines import datasets
from pipelines import text as texts
from pipelines.batching import batches

CELLS = sorted(
    name
    for name in layers.__all__
    if issubclass(getattr(layers, name), layers.recurrent.base.RecurrentLayer)
)
BUCKETS = (8, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384)


@dataclass(frozen=True)
class Config(TrainingConfig):
    # a generated or published dataset, or a folder of train/valid/test.tsv, .csv or .jsonl
    data: str = "reviews"
    # how words enter: learned vectors, one-hot, letter trigrams, or a file's vectors
    encoding: Literal["embedding", "one_hot", "word_hashing", "vectors"] = "embedding"
    # the file of vectors in GloVe's format, for encoding=vectors
    vectors: str = ""
    # the most words in the vocabulary
    vocabulary: int = 20_000
    # how often a word must occur in the training texts to enter the vocabulary
    min_count: int = 1
    # training texts are cut to this many words; 0 for never
    max_length: int = 0
    # the size of a word's vector
    features: int = 64
    # the recurrent layer, by its name in `layers`
    cell: str = "LSTM"
    # the size of the recurrent state, for each direction
    units: int = 48
    # how many recurrent layers
    depth: int = 1
    # whether to read in both directions
    bidirectional: bool = True
    # what joins the recurrent layers beside their outputs
    skip: Literal["none", "residual", "dense"] = "none"
    # how the states become one vector
    pool: Literal["last", "mean", "max", "attention"] = "attention"
    # long texts are read in segments of this many words, all at once; 0 for as a whole
    segment: int = 0
    # the share of features dropped from the words, between layers and from the pooled vector
    dropout: float = 0.3
    # the share of words made unknown in training
    word_dropout: float = 0.0
    # the decay of the weights in AdamW
    weight_decay: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.cell not in CELLS:
            raise ValueError(f"cell must be one of {', '.join(CELLS)}, got {self.cell!r}.")
        if (self.encoding == "vectors") != bool(self.vectors):
            raise ValueError("encoding=vectors and vectors=FILE go together.")
        if self.segment and self.pool == "last":
            raise ValueError("segment needs pool=mean, max or attention: each has a last state.")


PRESETS = {
    "reviews": Config(epochs=12, learning_rate=3e-3, word_dropout=0.1),
    "sst2": (
        sst := Config(
            data="sst2",
            epochs=8,
            batch_size=50,
            learning_rate=5e-4,
            patience=3,
            features=128,
            units=128,
            pool="max",
            dropout=0.5,
            word_dropout=0.3,
        )
    ),
    "sst5": replace(sst, data="sst5"),
    "imdb": replace(
        sst,
        data="imdb",
        epochs=6,
        batch_size=64,
        learning_rate=2e-3,
        schedule="cosine",
        vocabulary=30_000,
        max_length=400,
        segment=50,
        word_dropout=0.4,
    ),
}

PUBLISHED = {
    "sst2": {"accuracy": 0.827, "source": "CNN-rand, Kim 2014"},
    "sst5": {"accuracy": 0.450, "source": "CNN-rand, Kim 2014"},
    "imdb": {"accuracy": 0.862, "source": "LSTM, Keras examples"},
}

EXAMPLES = [
    "The acting was clever, but the plot was boring.",
    "Although the soup was bland, the service was really good.",
    "The room was clean, but the staff was not friendly at all.",
    "Nobody called the waiting room clean. However, the doctors were excellent!",
]


def load(config: Config, assets: Assets | None = None) -> Data:
    """The dataset's texts as batches of word ids, the labels as ids."""
    builder = datasets.builder(config.data)
    labels = builder.info.features["label"].names
    splits = {name: name for name in builder.info.splits}
    if "valid" not in splits:
        splits |= {"train": "train[:90%]", "valid": "train[90%:]"}
    raw = {name: datasets.read(builder, split) for name, split in splits.items()}
    if assets is None:
        training = raw["train"].map(lambda example: example["text"])
        assets = {
            "vocabulary": texts.build_vocabulary(training, config.vocabulary, config.min_count),
            "labels": labels,
        }
    elif assets["labels"] != labels:
        raise UsageError(
            f"{config.data} has the labels {labels}, the run was trained on {assets['labels']}."
        )
    encoder = texts.Encoder(assets["vocabulary"], trigrams=config.encoding == "word_hashing")

    def prepare(split: str):
        if split not in raw:
            return None
        train = split == "train"
        cut = config.max_length if train and config.max_length else None
        examples = (
            raw[split]
            .batch(256)
            .map(lambda batch: (encoder(batch["text"]), batch["label"]), tf.data.AUTOTUNE)
            .unbatch()
            .map(lambda x, y: ({k: texts.to_dense(v, time_axis=0)[:cut] for k, v in x.items()}, y))
            .cache()
        )
        return batches(
            examples,
            lambda features, _: tf.shape(features["tokens"])[0],
            config.batch_size,
            boundaries=BUCKETS,
            shuffle=config.seed if train else None,
        )

    return Data(prepare("train"), prepare("valid"), prepare("test"), assets)


def pool_states(kind: str, states, mask):
    """The mean or maximum over the steps that count; zero where none does."""
    mask = ops.expand_dims(mask, -1)  # [B, T, 1]
    count = ops.sum(ops.cast(mask, states.dtype), axis=1)  # [B, 1]
    if kind == "mean":
        return ops.sum(ops.where(mask, states, 0.0), axis=1) / ops.maximum(count, 1.0)
    highest = ops.max(ops.where(mask, states, -1e4), axis=1)  # [B, U]
    return ops.where(count > 0, highest, 0.0)


def build(config: Config, assets: Assets) -> keras.Model:
    """Words, their encoding, recurrent layers, pooling, softmax."""
    size = len(assets["vocabulary"])
    inputs = {"tokens": keras.Input((None,), dtype="int32", name="tokens")}
    mask = ops.not_equal(inputs["tokens"], texts.PADDING)  # [B, T]
    words = layers.WordDropout(config.word_dropout, texts.UNKNOWN)(inputs["tokens"], mask=mask)
    if config.encoding == "one_hot":
        x = ops.one_hot(words, size)  # [B, T, V]
    elif config.encoding == "word_hashing":
        inputs["trigrams"] = keras.Input((None, None), dtype="int32", name="trigrams")
        x = layers.WordHashing(config.features)(inputs["trigrams"])  # [B, T, D]
    elif config.encoding == "vectors":
        vectors, _ = texts.read_vectors(config.vectors, assets["vocabulary"], config.seed)
        start = keras.initializers.Constant(vectors)
        x = keras.layers.Embedding(*vectors.shape, embeddings_initializer=start)(words)
    else:
        x = keras.layers.Embedding(size, config.features)(words)  # [B, T, D]
    x = keras.layers.Dropout(config.dropout)(x)
    cell = getattr(layers, config.cell)
    recurrent = layers.Stack(
        [cell(config.units) for _ in range(config.depth)],
        bidirectional=config.bidirectional,
        skip=None if config.skip == "none" else config.skip,
        dropout=config.dropout,
        return_state=config.pool == "last",
    )
    if config.segment:
        recurrent = layers.Segmented(recurrent, config.segment)
    states = recurrent(x, mask=mask)  # [B, T, U]
    if config.pool == "last":
        _, *last = states
        top = last[-len(last) // config.depth :]  # the states of the uppermost layer
        outputs = top[:: len(top) // 2] if config.bidirectional else top[:1]
        pooled = ops.concatenate(outputs, axis=-1)
    elif config.pool == "attention":
        pooled, _ = layers.AttentionPool(config.units, name="pool")(states, mask=mask)
    else:
        pooled = pool_states(config.pool, states, mask)
    pooled = keras.layers.Dropout(config.dropout)(pooled)
    classes = keras.layers.Dense(
        len(assets["labels"]), activation="softmax", dtype="float32", name="probabilities"
    )
    model = keras.Model(inputs, classes(pooled))
    model.compile(
        optimizer(config, weight_decay=config.weight_decay),
        keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
        jit_compile=config.jit,
    )
    return model


def score(model: keras.Model, assets: Assets, dataset: tf.data.Dataset) -> dict:
    """The share of texts that get their label."""
    right = examples = 0
    for features, labels in dataset:
        right += int(np.sum(np.argmax(model.predict_on_batch(features), -1) == labels.numpy()))
        examples += len(labels)
    return {"examples": examples, "accuracy": right / examples}


def baseline(config: Config, data: Data, split: str) -> dict:
    """A bag of words."""
    sizes = len(data.assets["vocabulary"]), len(data.assets["labels"])
    model = bag_of_words.train(*sizes, data.train, data.valid, config.seed)
    return {
        "what": "bag of words, logistic regression",
        "accuracy": score(model, data.assets, getattr(data, split))["accuracy"],
    }


def serve(model: keras.Model, assets: Assets) -> Service:
    """`serving_default`: texts to labels; `ids`: the model alone, for LiteRT."""
    encoder = texts.Encoder(assets["vocabulary"], trigrams="trigrams" in model.input)
    outputs = {"probabilities": model.output}
    if "pool" in (layer.name for layer in model.layers):
        outputs["attention"] = model.get_layer("pool").output[1]
    network = keras.Model(model.input, outputs)
    labels = tf.constant(assets["labels"])

    def classify(features: dict) -> dict:
        results = network(features, training=False)
        return {name: tf.cast(value, tf.float32) for name, value in results.items()}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serving_default(text):
        results = classify({k: texts.to_dense(v) for k, v in encoder(text).items()})
        results["label"] = tf.gather(labels, tf.argmax(results["probabilities"], axis=-1))
        results["tokens"] = texts.to_dense(texts.tokenize(text))
        return results

    ids = tf.TensorSpec([None, None], tf.int32, name="tokens")
    if encoder.trigrams:
        trigrams = tf.TensorSpec([None, None, None], tf.int32, name="trigrams")

        @tf.function(input_signature=[ids, trigrams])
        def from_ids(tokens, trigrams):
            return classify({"tokens": tokens, "trigrams": trigrams})
    else:

        @tf.function(input_signature=[ids])
        def from_ids(tokens):
            return classify({"tokens": tokens})

    def requests(examples: list[str]) -> dict[str, dict[str, np.ndarray]]:
        features = {k: texts.to_dense(v).numpy() for k, v in encoder(tf.constant(examples)).items()}
        return {"serving_default": {"text": np.array(examples, object)}, "ids": features}

    return Service(
        {"serving_default": serving_default, "ids": from_ids},
        requests,
        litert="ids",
        keep=[network.variables, encoder],
    )


def predict(model: keras.Model, assets: Assets, inputs: list[str]) -> list[dict]:
    """Label, probability of each class and, with attention pooling, the weight of each word."""
    service = serve(model, assets)
    results = []
    for i in range(0, len(inputs), 32):
        answers = service.functions["serving_default"](tf.constant(inputs[i : i + 32]))
        answers = {name: value.numpy() for name, value in answers.items()}
        for row, given in enumerate(inputs[i : i + 32]):
            tokens = [token.decode() for token in answers["tokens"][row] if token]
            result = {
                "text": given,
                "label": answers["label"][row].decode(),
                "probabilities": dict(
                    zip(assets["labels"], answers["probabilities"][row].tolist(), strict=True)
                ),
                "tokens": tokens,
            }
            if "attention" in answers:
                result["attention"] = answers["attention"][row, : len(tokens)].tolist()
            results.append(result)
    return results


def show(result: dict) -> Text:
    """The label, its probability, and the words, the brighter the more they weigh."""
    label = result["label"]
    line = Text.assemble((f"{label} {result['probabilities'][label]:.1%}", "bold"), "  ")
    weights = result.get("attention", [0.0] * len(result["tokens"]))
    most = max(weights, default=0.0) or 1.0
    for token, weight in zip(result["tokens"], weights, strict=True):
        line.append(
            token,
            style="reverse bold"
            if weight > 0.66 * most
            else "bold"
            if weight > 0.33 * most
            else "dim",
        )
        line.append(f"({weight:.2f}) " if "attention" in result and weight >= 0.1 else " ")
    return line
