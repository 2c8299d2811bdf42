"""Sentiment of a text: a recurrent network reads it, a pooling sums it up, two or more classes."""

from dataclasses import dataclass, replace
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from rich.text import Text

from unroll import layers
from unroll.apps.core.config import TrainingConfig, optimizer
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Assets, Data, Service, ask, with_inputs
from unroll.apps.sentiment import bag_of_words
from unroll.apps.shared import word_vectors
from unroll.apps.shared.display import weighted_words
from unroll.layers.recurrent import RECURRENT_LAYERS, max_over_time, mean_over_time
from unroll.pipelines import datasets
from unroll.pipelines import text as texts


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
    # whether training batches have one of few fixed shapes, for XLA and TPUs; needs max_length
    static_shapes: bool = False
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
        if self.cell not in RECURRENT_LAYERS:
            known = ", ".join(RECURRENT_LAYERS)
            raise ValueError(f"cell must be one of {known}, got {self.cell!r}.")
        if (self.encoding == "vectors") != bool(self.vectors):
            raise ValueError("encoding=vectors and vectors=FILE go together.")
        if self.static_shapes and not 0 < self.max_length < texts.BOUNDARIES[-1]:
            raise ValueError(
                f"static_shapes needs a max_length of 1 to {texts.BOUNDARIES[-1] - 1}."
            )
        if self.segment and self.pool == "last":
            raise ValueError("segment needs pool=mean, max or attention: each has a last state.")


_SENTENCES = Config(
    data="sst2", epochs=8, batch_size=50, learning_rate=5e-4, patience=3,
    features=128, units=128, pool="max", dropout=0.5, word_dropout=0.3
)  # fmt: skip
_DOCUMENTS = replace(
    _SENTENCES, data="imdb", epochs=6, batch_size=64, learning_rate=2e-3, schedule="cosine",
    vocabulary=30_000, max_length=400, segment=50, word_dropout=0.4
)  # fmt: skip
PRESETS = {
    "reviews": Config(epochs=12, learning_rate=3e-3, word_dropout=0.1),
    "sst2": _SENTENCES,
    "sst5": replace(_SENTENCES, data="sst5"),
    "imdb": _DOCUMENTS,
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
    raw = datasets.splits(builder)
    if assets is None:
        training = raw["train"].map(lambda example: example["text"])
        if config.encoding == "vectors":
            texts.read_vectors(config.vectors, [])  # what is wrong with the file shows here
        assets = {
            "vocabulary": texts.build_vocabulary(training, config.vocabulary, config.min_count),
            "labels": labels,
        }
    elif assets["labels"] != labels:
        raise UsageError(
            f"{config.data} has the labels {labels}, the run was trained on {assets['labels']}."
        )
    encoder = texts.Encoder(assets["vocabulary"], trigrams=config.encoding == "word_hashing")

    def batches(split: str):
        if split not in raw:
            return None
        train = split == "train"
        return texts.labelled_batches(
            raw[split],
            encoder,
            config.batch_size,
            max_length=config.max_length if train else 0,
            shuffle=config.seed if train else None,
            static=train and config.static_shapes,
        )

    return Data(batches("train"), batches("valid"), batches("test"), assets)


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
    else:
        start = word_vectors.start(
            config.vectors, assets["vocabulary"], config.features, config.seed
        )
        x = keras.layers.Embedding(size, config.features, embeddings_initializer=start)(words)
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
        over_time = {"mean": mean_over_time, "max": max_over_time}
        pooled = over_time[config.pool](states, mask)
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

    ids = {name: tf.TensorSpec([None] * len(x.shape), x.dtype) for name, x in model.input.items()}

    def requests(examples: list[str]) -> dict[str, dict[str, np.ndarray]]:
        features = {k: texts.to_dense(v).numpy() for k, v in encoder(tf.constant(examples)).items()}
        return {"serving_default": {"text": np.array(examples, object)}, "ids": features}

    return Service(
        {"serving_default": serving_default, "ids": with_inputs(classify, ids)},
        requests,
        litert="ids",
        keep=[network.variables, encoder],
    )


def predict(model: keras.Model, assets: Assets, inputs: list[str]) -> list[dict]:
    """Label, probability of each class and, with attention pooling, the weight of each word."""
    results = []
    for given, answer in zip(inputs, ask(serve(model, assets), inputs), strict=True):
        tokens = [token for token in answer["tokens"] if token]
        result = {
            "text": given,
            "label": answer["label"],
            "probabilities": dict(zip(assets["labels"], answer["probabilities"], strict=True)),
            "tokens": tokens,
        }
        if "attention" in answer:
            result["attention"] = answer["attention"][: len(tokens)]
        results.append(result)
    return results


def show(result: dict) -> Text:
    """The label, its probability, and the words with their weights."""
    label = result["label"]
    line = Text(f"{label} {result['probabilities'][label]:.1%}  ", style="bold")
    return line + weighted_words(result["tokens"], result.get("attention"))
