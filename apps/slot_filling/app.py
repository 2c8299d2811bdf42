"""Slots and intent of a sentence, or named entities: recurrent layers and a CRF over the tags."""

from dataclasses import dataclass, replace
from typing import Literal

import keras
import tensorflow as tf
from keras import ops
from rich.text import Text

from unroll import layers
from unroll.apps.core.config import optimizer
from unroll.apps.core.data import RawSplits
from unroll.apps.core.protocol import Assets, Axes, Data, Page, Report, Service, Trained, query
from unroll.apps.shared.display import marked_spans, tagged_tokens
from unroll.apps.shared.spans import SpanF1
from unroll.apps.shared.unknown_words import report_unknown
from unroll.apps.shared.word_states import (
    WordStatesConfig,
    create_loss_trackers,
    tag_potentials,
    word_axes,
    word_states,
)
from unroll.apps.slot_filling import metrics, serving
from unroll.apps.slot_filling import report as reports
from unroll.pipelines import tagging
from unroll.pipelines import text as texts


@dataclass(frozen=True)
class Config(WordStatesConfig):
    # name of a dataset, or a folder of seq.in, seq.out and label, or of CoNLL columns
    data: str = "flights"
    # input of the slots in addition to the states: none, attention over the sentence, or the same
    # gated by the intent
    context: Literal["none", "attention", "gate"] = "none"
    # pool the states for the intent by attention, not by the maximum over time
    intent_attention: bool = True
    # train a CRF over the tags; otherwise each tag is predicted independently
    crf: bool = True
    # decode only transitions that are valid in BIO
    constrained: bool = True
    # weight of the intent loss relative to the slot loss
    intent_weight: float = 1.0
    # figure that selects the best epoch
    monitor: str = "val_tags_sentence_accuracy"

    def __post_init__(self):
        super().__post_init__()
        if not self.intent_weight > 0:
            raise ValueError(f"intent_weight must be above 0, got {self.intent_weight}.")


_ATIS = Config(
    data="atis", epochs=40, batch_size=16, patience=10, schedule="cosine", embedding_dim=128,
    units=200, dropout=0.5, word_dropout=0.05
)  # fmt: skip
PRESETS = {
    "flights": Config(epochs=12, learning_rate=3e-3, word_dropout=0.4, character_dropout=0.4),
    "atis": _ATIS,
    "snips": replace(_ATIS, data="snips", epochs=25, batch_size=32, patience=8, word_dropout=0.1),
}

# Chosen on 500 sentences of ATIS and 1,000 abstracts of Inspec, both as columns: see the README.
OWN_FILES = Config(
    data="", epochs=30, batch_size=16, patience=6, learning_rate=2e-3, embedding_dim=128, units=128,
    dropout=0.5, word_dropout=0.1, character_dropout=0.1, monitor="val_loss"
)  # fmt: skip

_GOO = "slot-gated model, Goo et al. 2018"
TASK = "token-classification"
PUBLISHED = {
    "atis": {
        "slot_f1": 0.948, "intent_accuracy": 0.936, "sentence_accuracy": 0.822, "source": _GOO
    },
    "snips": {
        "slot_f1": 0.888, "intent_accuracy": 0.970, "sentence_accuracy": 0.755, "source": _GOO
    },
}  # fmt: skip

METRICS = {"slot_f1": "max", "intent_accuracy": "max", "sentence_accuracy": "max"}
MONITORS = {
    "val_tags_sentence_accuracy": "max",
    "val_tags_slot_f1": "max",
    "val_intent_accuracy": "max",
    "val_intent_loss": "min",
    "val_potentials_loss": "min",
}


def load(
    config: Config,
    splits: tuple[str, ...],
    assets: Assets | None = None,
    training: bool = False,
) -> Data:
    """Batches of ids of words, characters, tags and intents. Vocabularies are of the training."""
    raw = RawSplits(config, "tagging", tag_first=config.tag_first)
    if assets is None:
        if config.vectors:
            texts.read_vectors(config.vectors, [])  # fails early if the file is broken
        assets = tagging.build_vocabularies(raw["train"], config.vocabulary_size, config.min_count)
    encoder = tagging.WordEncoder(assets["vocabulary"], assets["characters"])

    def batches(split: str) -> tf.data.Dataset:
        return tagging.tagged_batches(
            raw[split],
            encoder,
            assets["tags"],
            assets["intents"],
            config.batch_size,
            shuffle=config.seed if training and split == "train" else None,
        )

    data = Data({split: batches(split) for split in splits}, assets)
    if training and "valid" in splits:
        report_unknown("valid", data["valid"], "tokens")
    return data


def axes(config: Config) -> Axes:
    """The weights of words, characters, tags and intents."""
    return word_axes() | {"intent/kernel": (None, "intents"), "intent/bias": ("intents",)}


def build(config: Config, assets: Assets) -> keras.Model:
    """Word and character encoders, recurrent layers, a CRF for the slots, a softmax for intents."""
    inputs, mask, states = word_states(config, assets)
    if config.intent_attention:
        pooled, _ = layers.AttentionPool(config.units, name="pool")(states, mask=mask)  # [B, U]
    else:
        pooled = layers.recurrent.max_over_time(states, mask)
    slots = states
    if config.context != "none":
        context, _ = layers.BahdanauAttention(config.units)(states, states, memory_mask=mask)
        if config.context == "gate":  # Goo et al. 2018, equations 6 and 7
            intent = keras.layers.Dense(context.shape[-1], use_bias=False)(pooled)
            both = ops.tanh(context + ops.expand_dims(intent, 1))
            context = context * keras.layers.Dense(1, use_bias=False)(both)
        slots = ops.concatenate([states, context], axis=-1)
    drop = keras.layers.Dropout(config.dropout)
    names = assets["tags"]
    crf = layers.CRF(
        len(names),
        allowed_transitions=layers.bio_transitions(names) if config.constrained else None,
        trainable=config.crf,
        dtype="float32",
        name="tags",
    )
    potentials, tags = tag_potentials(slots, mask, names, drop, crf)
    outputs = {"potentials": potentials, "tags": tags}
    independent = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    losses = {"potentials": crf.loss if config.crf else independent}
    training_metrics = {"tags": [metrics.SentenceAccuracy(), SpanF1(names, name="slot_f1")]}
    if assets["intents"]:
        intent = keras.layers.Dense(
            len(assets["intents"]), activation="softmax", dtype="float32", name="intent"
        )
        outputs["intent"] = intent(drop(pooled))
        # Unseen intents have the id after the known ones.
        losses["intent"] = keras.losses.SparseCategoricalCrossentropy(
            ignore_class=len(assets["intents"])
        )
        training_metrics["intent"] = keras.metrics.SparseCategoricalAccuracy("accuracy")
    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer(config, weight_decay=config.weight_decay),
        losses,
        loss_weights={name: config.intent_weight if name == "intent" else 1.0 for name in losses},
        metrics=training_metrics,
        jit_compile=config.jit,
    )
    create_loss_trackers(model, outputs)
    return model


def score(trained: Trained, dataset: tf.data.Dataset) -> dict:
    """Slot F1, intent accuracy and sentence accuracy."""
    return metrics.score(trained, dataset)


def baseline(config: Config, data: Data, split: str) -> dict:
    """The most frequent tag of each word, and the most frequent intent."""
    return metrics.baseline(data, split)


def serve(trained: Trained) -> Service:
    """`serving_default`: texts to tokens, slots and intent; `ids`: ids to tags, for LiteRT."""
    return serving.service(trained)


def predict(trained: Trained, inputs: list[str]) -> list[dict]:
    """Tokens with their slots, the spans of characters of each slot, and the intent."""
    results = []
    for text, outputs in zip(inputs, query(serve(trained), inputs), strict=True):
        tokens = [token for token in outputs["tokens"] if token]
        spans = [
            {"slot": label, "text": text[begin:end], "begin": begin, "end": end}
            for label, (begin, end) in zip(outputs["span_labels"], outputs["spans"], strict=True)
            if label
        ]
        result = {"text": text, "tokens": tokens, "slots": outputs["slots"][: len(tokens)]}
        result["spans"] = spans
        results.append(result | {k: outputs[k] for k in ("intent", "intent_score") if k in outputs})
    return results


def show(result: dict) -> Text:
    """The intent, and the tokens with their slots in color."""
    line = Text()
    if "intent" in result:
        line = Text(f"{result['intent']} {result['intent_score']:.1%}  ", style="bold")
    return line + tagged_tokens(result["tokens"], result["slots"])


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """F1 by slot, accuracy by intent, wrong sentences, and slots that are confused."""
    return reports.report(trained, dataset)


plot = reports.plot


def page(trained: Trained) -> Page:
    """The intent, and the text with its slots or entities."""

    def slots(result: dict) -> list[tuple[str, str | None]]:
        spans = [(each["begin"], each["end"], each["slot"]) for each in result["spans"]]
        return marked_spans(result["text"], spans)

    outputs = {"slots": ("spans", slots)}
    if trained.assets["intents"]:
        outputs["intent"] = ("scores", lambda r: {r["intent"]: r["intent_score"]})
    return Page({"text": "text"}, outputs, plot=False)


def examples() -> list[str]:
    """Some texts."""
    return [
        "Show me flights from Boston to Denver next friday.",
        "how much is a ticket into new york out of atlanta",
        "which airlines fly from Lisbon, with a stop in dallas, to Las Vegas?",
        "I was in Oakland last week. is there a bus in san francisco",
    ]
