"""Slots and intent of a sentence: which word fills which slot, and what does the speaker want?"""

from dataclasses import dataclass, replace
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from rich.text import Text

from unroll import layers
from unroll.apps.core.config import TrainingConfig, optimizer
from unroll.apps.core.protocol import Assets, Data, Service, ask, with_inputs
from unroll.apps.shared import word_vectors
from unroll.apps.shared.display import tagged_words
from unroll.apps.slot_filling.metrics import MostFrequent, SentenceAccuracy, answers, figures
from unroll.layers.recurrent import RECURRENT_LAYERS
from unroll.pipelines import datasets, tagging
from unroll.pipelines import text as texts


@dataclass(frozen=True)
class Config(TrainingConfig):
    # a generated or published dataset, or a folder of seq.in, seq.out, label or of CoNLL columns
    data: str = "flights"
    # whether the tag is the first column of a CoNLL file, instead of the last
    tag_first: bool = False
    # the most words in the vocabulary
    vocabulary: int = 20_000
    # how often a word must occur in the training sentences to enter the vocabulary
    min_count: int = 1
    # a file of word vectors in GloVe's format to start from; its width must be `features`
    vectors: str = ""
    # the size of a word's vector
    features: int = 64
    # what reads the letters of a word
    characters: Literal["convolution", "recurrent", "none"] = "convolution"
    # the size of what is read from the letters
    character_units: int = 32
    # the recurrent layer, by its name in `layers`
    cell: str = "LSTM"
    # the size of the recurrent state, for each direction
    units: int = 64
    # how many recurrent layers
    depth: int = 1
    # what the slots get beside the state: nothing, attention over the sentence, or that gated by
    # the intent
    context: Literal["none", "attention", "gate"] = "none"
    # whether the intent is pooled by attention, instead of the greatest of each feature
    intent_attention: bool = True
    # whether neighbouring tags have a say; without, each word is tagged by itself
    crf: bool = True
    # whether only moves that BIO allows are decoded
    constrained: bool = True
    # how much the intent's loss counts beside that of the slots
    intent_weight: float = 1.0
    # the share of features dropped from the words, between layers and before the outputs
    dropout: float = 0.3
    # the share of words made unknown in training
    word_dropout: float = 0.1
    # the share of words whose letters are not read in training
    character_dropout: float = 0.0
    # the decay of the weights in AdamW
    weight_decay: float = 0.0
    # the validation figure that decides
    monitor: str = "val_tags_sentence_accuracy"

    def __post_init__(self):
        super().__post_init__()
        if self.cell not in RECURRENT_LAYERS:
            known = ", ".join(RECURRENT_LAYERS)
            raise ValueError(f"cell must be one of {known}, got {self.cell!r}.")
        if not self.intent_weight > 0:
            raise ValueError(f"intent_weight must be above 0, got {self.intent_weight}.")


_ATIS = Config(
    data="atis", epochs=40, batch_size=16, patience=10, schedule="cosine", features=128,
    units=200, dropout=0.5, word_dropout=0.05
)  # fmt: skip
PRESETS = {
    "flights": Config(epochs=12, learning_rate=3e-3, word_dropout=0.4, character_dropout=0.4),
    "atis": _ATIS,
    "snips": replace(_ATIS, data="snips", epochs=25, batch_size=32, patience=8, word_dropout=0.1),
}

_GOO = "slot-gated model, Goo et al. 2018"
PUBLISHED = {
    "atis": {
        "slot_f1": 0.948, "intent_accuracy": 0.936, "sentence_accuracy": 0.822, "source": _GOO
    },
    "snips": {
        "slot_f1": 0.888, "intent_accuracy": 0.970, "sentence_accuracy": 0.755, "source": _GOO
    },
}  # fmt: skip

EXAMPLES = [
    "Show me flights from Boston to Denver next friday.",
    "how much is a ticket into new york out of atlanta",
    "which airlines fly from Lisbon, with a stop in dallas, to Las Vegas?",
    "I was in Oakland last week. is there a bus in san francisco",
]


def load(config: Config, assets: Assets | None = None) -> Data:
    """The dataset's sentences as batches of ids of words, letters, tags and intents."""
    builder = datasets.builder(config.data, folder="tagged", tag_first=config.tag_first)
    raw = datasets.splits(builder)
    if assets is None:
        if config.vectors:
            texts.read_vectors(config.vectors, [])  # what is wrong with the file shows here
        assets = tagging.vocabularies(raw, config.vocabulary, config.min_count)
    encoder = tagging.WordEncoder(assets["vocabulary"], assets["characters"])

    def batches(split: str):
        if split not in raw:
            return None
        shuffle = config.seed if split == "train" else None
        return tagging.tagged_batches(raw[split], encoder, assets, config.batch_size, shuffle)

    return Data(batches("train"), batches("valid"), batches("test"), assets)


def build(config: Config, assets: Assets) -> keras.Model:
    """Words and letters, recurrent layers, a CRF for the slots, a softmax for the intent."""
    inputs = {
        "tokens": keras.Input((None,), dtype="int32", name="tokens"),
        "characters": keras.Input((None, None), dtype="int32", name="characters"),
    }
    mask = ops.not_equal(inputs["tokens"], texts.PADDING)  # [B, T]
    words = layers.WordDropout(config.word_dropout, texts.UNKNOWN)(inputs["tokens"], mask=mask)
    vocabulary = assets["vocabulary"]
    start = word_vectors.start(config.vectors, vocabulary, config.features, config.seed)
    x = keras.layers.Embedding(len(vocabulary), config.features, embeddings_initializer=start)(
        words
    )  # [B, T, D]
    if config.characters != "none":
        read = layers.CharacterEmbedding(
            len(assets["characters"]), config.character_units, reader=config.characters
        )
        drop_words = keras.layers.Dropout(config.character_dropout, noise_shape=(None, None, 1))
        x = ops.concatenate([x, drop_words(read(inputs["characters"]))], axis=-1)
    x = keras.layers.Dropout(config.dropout)(x)
    states = layers.Stack(
        [getattr(layers, config.cell)(config.units) for _ in range(config.depth)],
        bidirectional=True,
        dropout=config.dropout,
    )(x, mask=mask)  # [B, T, U]
    if config.intent_attention:
        pooled, _ = layers.AttentionPool(config.units, name="pool")(states, mask=mask)  # [B, U]
    else:
        pooled = layers.recurrent.max_over_time(states, mask)
    slots = states
    if config.context != "none":
        context, _ = layers.BahdanauAttention(config.units)(states, states, mask=mask)
        if config.context == "gate":  # Goo et al. 2018, equations 6 and 7
            intent = keras.layers.Dense(context.shape[-1], use_bias=False)(pooled)
            both = ops.tanh(context + ops.expand_dims(intent, 1))
            context = context * keras.layers.Dense(1, use_bias=False)(both)
        slots = ops.concatenate([states, context], axis=-1)
    drop = keras.layers.Dropout(config.dropout)
    names = assets["tags"]
    potentials = keras.layers.Dense(len(names), dtype="float32", name="potentials")(drop(slots))
    crf = layers.CRF(
        len(names),
        allowed_transitions=layers.bio_transitions(names) if config.constrained else None,
        trainable=config.crf,
        dtype="float32",
        name="tags",
    )
    outputs = {"potentials": potentials, "tags": crf(potentials, mask=mask)}
    each_word = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    losses = {"potentials": crf.loss if config.crf else each_word}
    metrics = {"tags": SentenceAccuracy()}
    if assets["intents"]:
        intent = keras.layers.Dense(
            len(assets["intents"]), activation="softmax", dtype="float32", name="intent"
        )
        outputs["intent"] = intent(drop(pooled))
        # An intent that training lacks is none of the classes.
        losses["intent"] = keras.losses.SparseCategoricalCrossentropy(
            ignore_class=len(assets["intents"])
        )
        metrics["intent"] = keras.metrics.SparseCategoricalAccuracy("accuracy")
    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer(config, weight_decay=config.weight_decay),
        losses,
        loss_weights={name: config.intent_weight if name == "intent" else 1.0 for name in losses},
        metrics=metrics,
        jit_compile=config.jit,
    )
    return model


def score(model: keras.Model, assets: Assets, dataset: tf.data.Dataset) -> dict:
    """Slot F1, intent accuracy, whole-sentence accuracy; sentences with unknown words apart."""
    return figures(answers(model, assets, dataset))


def baseline(config: Config, data: Data, split: str) -> dict:
    """The most frequent tag of each word, and the most frequent intent."""
    found = score(MostFrequent(data.train, data.assets), data.assets, getattr(data, split))
    return {"what": "most frequent tag of each word, most frequent intent"} | {
        name: value for name, value in found.items() if "examples" not in name
    }


def serve(model: keras.Model, assets: Assets) -> Service:
    """`serving_default`: texts to words, slots and intent; `ids`: the model alone, for LiteRT."""
    encoder = tagging.WordEncoder(assets["vocabulary"], assets["characters"])
    outputs = {name: x for name, x in model.output.items() if name != "potentials"}
    network = keras.Model(model.input, outputs)
    tags, intents = tf.constant(assets["tags"]), tf.constant(assets["intents"] or [""])

    def classify(features: dict) -> dict:
        found = network(features, training=False)
        results = {"tags": found["tags"]}
        if "intent" in found:
            results["intent"] = tf.argmax(found["intent"], axis=-1, output_type=tf.int32)
            results["intent_score"] = tf.reduce_max(tf.cast(found["intent"], tf.float32), axis=-1)
        return results

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serving_default(text):
        words, begins, ends = tagging.split_words(text)
        results = classify(encoder(words))
        ids = results.pop("tags")
        spans, labels = tagging.spans_of(ids, begins, ends, assets["tags"])
        shown = {"tokens": texts.to_dense(words), "spans": spans, "span_labels": labels}
        there = tf.sequence_mask(words.row_lengths(), tf.shape(ids)[1])
        shown["slots"] = tf.where(there, tf.gather(tags, ids), "")
        if "intent" in results:
            results["intent"] = tf.gather(intents, results["intent"])
        return results | shown

    ids = {name: tf.TensorSpec([None] * len(x.shape), x.dtype) for name, x in model.input.items()}

    def requests(examples: list[str]) -> dict[str, dict[str, np.ndarray]]:
        words = tagging.split_words(tf.constant(examples))[0]
        features = {name: x.numpy() for name, x in encoder(words).items()}
        return {"serving_default": {"text": np.array(examples, object)}, "ids": features}

    return Service(
        {"serving_default": serving_default, "ids": with_inputs(classify, ids)},
        requests,
        litert="ids",
        keep=[network.variables, encoder],
    )


def predict(model: keras.Model, assets: Assets, inputs: list[str]) -> list[dict]:
    """Words with their slots, the spans of characters that they fill, and the intent."""
    results = []
    for text, answer in zip(inputs, ask(serve(model, assets), inputs), strict=True):
        tokens = [token for token in answer["tokens"] if token]
        spans = [
            {"slot": label, "text": text[begin:end], "begin": begin, "end": end}
            for label, (begin, end) in zip(answer["span_labels"], answer["spans"], strict=True)
            if label
        ]
        result = {"text": text, "tokens": tokens, "slots": answer["slots"][: len(tokens)]}
        result["spans"] = spans
        results.append(result | {k: answer[k] for k in ("intent", "intent_score") if k in answer})
    return results


def show(result: dict) -> Text:
    """The intent, and the words with their slots in colour."""
    line = Text()
    if "intent" in result:
        line = Text(f"{result['intent']} {result['intent_score']:.1%}  ", style="bold")
    return line + tagged_words(result["tokens"], result["slots"])
