"""A tiny app for the tests of `apps/core`: is the last digit of a sequence above the first?

It has every part of an app and trains in seconds: buckets and two shuffles, dropout, batch
normalization (which has weights that are not trained), raw text as input, labels as output.
"""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from unroll import layers
from unroll.apps.core.config import TrainingConfig, optimizer
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Assets, Axes, Data, Report, Service, Trained
from unroll.pipelines.batching import batches


@dataclass(frozen=True)
class Search:
    # labels with a lower probability are not returned
    least: float = 0.0


@dataclass(frozen=True)
class Config(Search, TrainingConfig):
    # name of a generated dataset
    data: str = "digits"
    # size of the recurrent state
    units: int = 12
    # dropout rate of the embedded digits
    dropout: float = 0.1
    # batch normalization before the softmax
    normalize: bool = True
    # weight decay of AdamW
    weight_decay: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.least <= 1:
            raise ValueError(f"least must be in [0, 1], got {self.least}.")


PRESETS = {
    "digits": Config(epochs=3, learning_rate=1e-2),
    "long_digits": Config(data="long_digits", epochs=4, learning_rate=1e-2),
}
LONGEST = {"digits": 7, "long_digits": 14}
SIZES = {"train": 480, "valid": 101, "test": 103}  # not multiples of a batch

TASK = "text-classification"
PUBLISHED = {"digits": {"accuracy": 1.0, "source": "the rule"}}
METRICS = {"accuracy": "max", "errors": "min"}
MONITORS = {"val_accuracy": "max", "val_error_rate": "min"}


def generate(name: str, split: str, size: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Digits 1 to 9, padded with zeros, `[N, T]`, and whether the last is above the first."""
    random = np.random.default_rng([*map(ord, name + split)])
    longest = LONGEST[name]
    count = max(1, round(SIZES[split] * size))
    digits = random.integers(1, 10, (count, longest), "int32")  # [N, T]
    lengths = random.integers(2, longest + 1, len(digits))
    last = digits[np.arange(len(digits)), lengths - 1]
    digits[:, 0] += np.where((digits[:, 0] == last) & (last < 9), 1, 0)  # few ties
    digits[np.arange(longest) >= lengths[:, None]] = 0
    last = digits[np.arange(len(digits)), lengths - 1]
    return digits, (last > digits[:, 0]).astype("int32")


def load(
    config: Config,
    splits: tuple[str, ...],
    assets: Assets | None = None,
    training: bool = False,
) -> Data:
    """Digits and labels as ids."""
    if config.data not in PRESETS:
        raise UsageError(f"data={config.data}: it must be one of {', '.join(PRESETS)}.")
    if assets is None:
        assets = {"digits": ["<pad>", *"123456789"], "labels": ["falling", "rising"]}

    def prepare(split: str) -> tf.data.Dataset:
        if split not in SIZES:
            raise UsageError(f"--split={split}: {config.data} has {', '.join(SIZES)}.")
        digits, labels = generate(config.data, split, config.generated_size)
        dataset = tf.data.Dataset.from_tensor_slices((digits, labels))
        dataset = dataset.map(lambda x, y: ({"digits": x[: tf.math.count_nonzero(x)]}, y)).cache()
        return batches(
            dataset,
            lambda features, _: tf.shape(features["digits"])[0],
            config.batch_size,
            boundaries=(4, 6),
            shuffle=config.seed if training and split == "train" else None,
        )

    return Data({split: prepare(split) for split in splits}, assets)


def error_rate(labels, probabilities):
    """Whether each example is wrong, `[B]`: a figure of which less is better."""
    predicted = ops.cast(ops.argmax(probabilities, -1), labels.dtype)
    return ops.cast(ops.not_equal(predicted, ops.reshape(labels, (-1,))), "float32")


def axes(config: Config) -> Axes:
    """The weights of digits and labels."""
    return {
        "embedding/embeddings": ("digits", None),
        "dense/kernel": (None, "labels"),
        "dense/bias": ("labels",),
    }


def build(config: Config, assets: Assets) -> keras.Model:
    """Embedding, one LSTM, softmax."""
    digits = keras.Input((None,), dtype="int32", name="digits")
    x = keras.layers.Embedding(len(assets["digits"]), 8)(digits)  # [B, T, D]
    x = keras.layers.Dropout(config.dropout)(x)
    x = layers.LSTM(config.units)(x, mask=ops.not_equal(digits, 0))  # [B, U]
    if config.normalize:
        x = keras.layers.BatchNormalization(momentum=0.8)(x)
    x = keras.layers.Dense(len(assets["labels"]), activation="softmax", dtype="float32")(x)
    model = keras.Model({"digits": digits}, x)
    model.compile(
        optimizer(config, weight_decay=config.weight_decay),
        keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy"), error_rate],
        jit_compile=config.jit,
    )
    return model


def score(trained: Trained, dataset: tf.data.Dataset) -> dict:
    """Accuracy and number of errors."""
    correct = examples = 0
    for features, labels in dataset:
        predicted = np.argmax(trained.model.predict_on_batch(features), -1)
        correct += int(np.sum(predicted == labels.numpy()))
        examples += len(labels)
    return {"examples": examples, "accuracy": correct / examples, "errors": examples - correct}


def baseline(config: Config, data: Data, split: str) -> dict:
    """The most frequent label of the training split."""
    label = np.argmax(
        np.bincount(np.concatenate([y for _, y in data["train"].as_numpy_iterator()]))
    )
    labels = np.concatenate([y for _, y in data[split].as_numpy_iterator()])
    return {"what": "most frequent label", "accuracy": float(np.mean(labels == label))}


def to_ids(texts: tf.Tensor) -> tf.Tensor:
    """`"3 1 4"` to `[3, 1, 4]`, `[B]` to `[B, T]`."""
    digits = tf.strings.split(texts).to_tensor("0")  # [B, T]
    return tf.strings.to_number(digits, tf.int32)


def serve(trained: Trained) -> Service:
    """`serving_default`: texts to labels; `ids`: digits to probabilities, for LiteRT."""
    model, least = trained.model, trained.config.least
    labels = tf.constant(trained.assets["labels"])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serving_default(text):
        probabilities = model({"digits": to_ids(text)}, training=False)
        label = tf.gather(labels, tf.argmax(probabilities, axis=-1))
        label = tf.where(tf.reduce_max(probabilities, axis=-1) < least, "", label)
        return {"probabilities": probabilities, "label": label}

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name="digits")])
    def ids(digits):
        return {"probabilities": model({"digits": digits}, training=False)}

    def requests(examples: list[str]) -> dict[str, dict[str, np.ndarray]]:
        return {
            "serving_default": {"text": np.array(examples, object)},
            "ids": {"digits": to_ids(tf.constant(examples)).numpy()},
        }

    functions = {"serving_default": serving_default, "ids": ids}
    return Service(functions, requests, litert="ids", keep=model.variables)


def predict(trained: Trained, inputs: list[str]) -> list[dict]:
    """The label and the probability of each class."""
    names = trained.assets["labels"]
    outputs = serve(trained).functions["serving_default"](tf.constant(inputs))
    return [
        {
            "text": text,
            "label": label.decode(),
            "probabilities": dict(zip(names, probabilities.tolist(), strict=True)),
        }
        for text, label, probabilities in zip(
            inputs, outputs["label"].numpy(), outputs["probabilities"].numpy(), strict=True
        )
    ]


def show(result: dict) -> str:
    """The label and its probability."""
    return f"{result['label']} {max(result['probabilities'].values()):.1%}"


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """The number of errors."""
    return Report(f"{score(trained, dataset)['errors']} errors")


def examples() -> list[str]:
    """Some sequences."""
    return ["1 5 9", "8 2 2 4 3", "4 1 9 1 9 1 3", "2 3"]
