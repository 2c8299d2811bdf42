"""Key terms of a document: a tagger with a CRF, or attention that scores the terms it has."""

from dataclasses import dataclass, replace
from typing import Literal

import keras
import tensorflow as tf
from rich.text import Text

from unroll import layers
from unroll.apps.core.config import optimizer
from unroll.apps.core.data import RawSplits
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Assets, Axes, Data, Page, Report, Service, Trained, query
from unroll.apps.key_terms import metrics, serving
from unroll.apps.key_terms import report as reports
from unroll.apps.key_terms.network import CandidateLoss, CandidateScores, SelectSpans, SpanCRF
from unroll.apps.shared.display import marked_spans, tagged_tokens, weights_of
from unroll.apps.shared.spans import SpanF1
from unroll.apps.shared.unknown_words import report_unknown
from unroll.apps.shared.word_states import (
    WordStatesConfig,
    create_loss_trackers,
    tag_potentials,
    word_axes,
    word_states,
)
from unroll.pipelines import tagging
from unroll.pipelines import text as texts
from unroll.pipelines.errors import report_once


@dataclass(frozen=True)
class Search:
    # least probability of a term; a lower one finds more terms, of which fewer are correct
    threshold: float = 0.3


@dataclass(frozen=True)
class Config(Search, WordStatesConfig):
    # name of a dataset, or a folder of train.tsv with the columns text and terms, or of CoNLL
    # columns
    data: str = "articles"
    # a CRF over the tags of the words; or attention over the document, which scores its candidates
    model: Literal["tagger", "attention"] = "tagger"
    # maximum number of words of a term
    max_words: int = 8
    # figure that selects the best epoch
    monitor: str = "val_tags_span_f1"

    def __post_init__(self):
        super().__post_init__()
        if self.max_words < 1:
            raise ValueError(f"max_words must be at least 1, got {self.max_words}.")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, got {self.threshold}.")


_INSPEC = Config(
    data="inspec", epochs=8, patience=8, batch_size=32, learning_rate=3e-3, schedule="cosine",
    embedding_dim=100, units=100, dropout=0.5, word_dropout=0.2, character_dropout=0.2,
    max_words=6, threshold=0.25
)  # fmt: skip
PRESETS = {
    "articles": Config(
        epochs=12,
        batch_size=16,
        learning_rate=4e-3,
        schedule="cosine",
        patience=12,
        max_words=4,
        threshold=0.5,
        dropout=0.1,
        word_dropout=0.05,
    ),
    "inspec": _INSPEC,
    "semeval2017": replace(
        _INSPEC,
        data="semeval2017",
        epochs=12,
        patience=12,
        batch_size=16,
        max_words=10,
        threshold=0.2,
    ),
}
# Like Inspec, with longer terms, and more and smaller steps for fewer documents.
OWN_FILES = replace(_INSPEC, data="", epochs=20, batch_size=16, max_words=8)

_SAHRAWAT = "BiLSTM-CRF with {}, Sahrawat et al. 2020"
TASK = "token-classification"
PUBLISHED = {
    "inspec": {"span_f1": 0.457, "source": _SAHRAWAT.format("GloVe")},
    "semeval2017": {"span_f1": 0.345, "source": _SAHRAWAT.format("GloVe")},
}

METRICS = {"span_f1": "max", "term_f1": "max", "f1_at_5": "max", "f1_at_10": "max"}
MONITORS = {"val_tags_span_f1": "max"}


def load(
    config: Config,
    splits: tuple[str, ...],
    assets: Assets | None = None,
    training: bool = False,
) -> Data:
    """Batches of ids of words, characters and tags; the targets of evaluation also have the words.

    The vocabularies and tags are those of the training split.
    """
    raw = RawSplits(config, "key_terms", tag_first=config.tag_first)
    if assets is None:
        if config.vectors:
            texts.read_vectors(config.vectors, [])  # fails early if the file is broken
        assets = tagging.build_vocabularies(raw["train"], config.vocabulary_size, config.min_count)
        labels = {tag[2:] for tag in assets["tags"]} - {""}
        if not labels:
            raise UsageError(f"--data={config.data}: the training split has no key terms.")
        # Also I-x if the training split has only key terms of one word.
        assets["tags"] = sorted({"O"} | {f"{prefix}-{x}" for x in labels for prefix in "BI"})
        del assets["intents"]
        _report_long_terms(raw["train"], config.max_words)
    encoder = tagging.WordEncoder(assets["vocabulary"], assets["characters"])

    def batches(split: str) -> tf.data.Dataset:
        return tagging.tagged_batches(
            raw[split],
            encoder,
            assets["tags"],
            [],
            config.batch_size,
            shuffle=config.seed if training and split == "train" else None,
            with_words=not training,
        )

    data = Data({split: batches(split) for split in splits}, assets)
    if training and "valid" in splits:
        report_unknown("valid", data["valid"], "tokens")
    return data


def _report_long_terms(train: tf.data.Dataset, max_words: int) -> None:
    lengths = [
        end - begin
        for example in train.as_numpy_iterator()
        for _, begin, end in metrics.spans_of([tag.decode() for tag in example["tags"]])
    ]
    if longer := sum(length > max_words for length in lengths):
        report_once(
            f"{longer:,} of {len(lengths):,} key terms of the training split have more than "
            f"{max_words} words (max_words) and cannot be found."
        )


def axes(config: Config) -> Axes:
    """The weights of words, characters and tags."""
    return word_axes(crf="candidates") | {
        "scores/head/kernel": (None, "tags"),
        "scores/head/bias": ("tags",),
    }


def build(config: Config, assets: Assets) -> keras.Model:
    """Word and character encoders, recurrent layers, probabilities of candidates, a selection."""
    inputs, mask, states = word_states(config, assets)
    drop = keras.layers.Dropout(config.dropout)
    tags = assets["tags"]
    if config.model == "tagger":
        crf = SpanCRF(tags, config.max_words, dtype="float32", name="candidates")
        potentials, candidates = tag_potentials(states, mask, tags, drop, crf)
        loss = crf.loss
    else:
        # The document vector of Shen and Lee 2016: the states of an LSTM, weighted by attention.
        document, weights = layers.AttentionPool(config.units, name="attention")(states, mask=mask)
        score = CandidateScores(tags, config.max_words, config.units, name="scores")
        scores = score(drop(states), drop(document), weights, mask=mask)
        labels = scores.shape[-1]
        potentials = keras.layers.Reshape(
            (-1, config.max_words * labels), dtype="float32", name="potentials"
        )(scores)
        candidates = keras.layers.Activation("sigmoid", dtype="float32", name="candidates")(scores)
        loss = CandidateLoss(tags, config.max_words)
    select = SelectSpans(tags, config.threshold, name="tags")
    outputs = {"potentials": potentials, "tags": select(candidates, mask=mask)[0]}
    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer(config, weight_decay=config.weight_decay),
        {"potentials": loss},
        metrics={"tags": SpanF1(tags)},
        jit_compile=config.jit,
    )
    create_loss_trackers(model, outputs)
    return model


def score(trained: Trained, dataset: tf.data.Dataset) -> dict:
    """F1 of spans and of terms, and of the first 5 and 10 terms."""
    return metrics.score(trained, dataset)


def baseline(config: Config, data: Data, split: str) -> dict:
    """The terms with the largest TF-IDF."""
    return metrics.baseline(config, data, split)


def serve(trained: Trained) -> Service:
    """`serving_default`: texts to terms; `ids`: ids to tags and scores, for LiteRT."""
    return serving.service(trained)


def predict(trained: Trained, inputs: list[str]) -> list[dict]:
    """The terms with their scores, and each mention with its first character and its end."""
    results = []
    for text, outputs in zip(inputs, query(serve(trained), inputs), strict=True):
        tokens = [token for token in outputs["tokens"] if token]
        mentions = [
            {"text": text[begin:end], "begin": begin, "end": end, "label": label, "score": score}
            for label, (begin, end), score in zip(
                outputs["span_labels"], outputs["spans"], outputs["span_scores"], strict=True
            )
            if label
        ]
        terms = [
            {"term": term, "score": score}
            for term, score in zip(outputs["terms"], outputs["scores"], strict=True)
            if term
        ]
        result = {"text": text, "terms": terms, "mentions": mentions, "tokens": tokens}
        result["tags"] = outputs["tags"][: len(tokens)]
        if "attention" in outputs:
            result["attention"] = outputs["attention"][: len(tokens)]
        results.append(result)
    return results


def show(result: dict) -> Text:
    """The text with its terms in color and their scores, and a line for each term."""
    scores = [f"{mention['score']:.2f}" for mention in result["mentions"]]
    line = tagged_tokens(result["tokens"], result["tags"], scores)
    for each in result["terms"]:
        line.append(f"\n{each['score']:.2f}  ", "dim").append(each["term"], "bold")
    return line


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """F1 by label and by the number of words, missing and wrong terms, calibration."""
    return reports.report(trained, dataset)


plot = reports.plot


def page(trained: Trained) -> Page:
    """The terms with their scores, and the text with their mentions and the attention."""

    def terms(result: dict) -> tuple[list[str], list[list]]:
        return ["term", "score"], [[e["term"], round(e["score"], 3)] for e in result["terms"]]

    def mentions(result: dict) -> list[tuple[str, str | None]]:
        spans = [(each["begin"], each["end"], each["label"]) for each in result["mentions"]]
        return marked_spans(result["text"], spans)

    outputs = {"terms": ("table", terms), "mentions": ("spans", mentions)}
    if trained.config.model == "attention":
        outputs["attention"] = ("weights", lambda r: weights_of(r["tokens"], r["attention"]))
    return Page({"text": "text"}, outputs, plot=False)


def examples() -> list[str]:
    """Some texts."""
    return [
        "Programmers studied neural network and sodium intake. We turned from digital sampling to "
        "fermentation.",
        "The chef studied neural network and sodium intake. We turned from digital sampling to "
        "fermentation.",
        "Critics gave a new view of rhythm. The doctors found no evidence for the batch size.",
    ]
