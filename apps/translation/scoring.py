"""The translations of a split and the probabilities of its targets, and the figures of both."""

from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Trained
from unroll.apps.shared.token_losses import token_losses
from unroll.apps.translation import decoding, metrics
from unroll.apps.translation.metrics import Scorer, Texts
from unroll.apps.translation.network import encode, logits_of_rows
from unroll.pipelines import translation
from unroll.pipelines.text import to_dense

# Figures that `score` also reports of the greedy search.
_OF_GREEDY = ("bleu", "exact_match")
_BATCH = 32  # sources that are encoded at once
_PARTS = 4  # of their candidates: a part is padded to its own longest


@dataclass(frozen=True)
class Predictions:
    """What a model makes of a split.

    Attributes:
        texts: of the split.
        outputs: the best translation of each of N sources.
        greedy: that of the greedy search, with `greedy`.
        nats: -log P of each target with its end, `[N]`.
        tokens: the number of tokens of each target with its end, `[N]`.
        unknown: the number of unknown tokens of each source, `[N]`.
        sources: the pieces of each source, with `details`.
        pieces: those of the best translation of each, likewise.
        alignments: the attention weights of each piece of it, `[L, S]`, likewise.
    """

    texts: Texts
    outputs: list[str]
    greedy: list[str]
    nats: np.ndarray
    tokens: np.ndarray
    unknown: np.ndarray
    sources: list[list[str]]
    pieces: list[list[str]]
    alignments: list[np.ndarray]


def predictions(
    trained: Trained, dataset: tf.data.Dataset, greedy: bool = False, details: bool = False
) -> Predictions:
    """The translations of the best score, and -log P of the targets, of a split.

    Args:
        trained: a model.
        dataset: batches with texts.
        greedy: whether the greedy search runs too.
        details: whether the pieces and the attention are kept.
    """
    best = replace(trained.config, num_return_sequences=1)
    translator = decoding.Translator(replace(trained, config=best))

    @tf.function(input_signature=dataset.element_spec, autograph=False)
    def of_batch(features, labels):
        losses, counts = token_losses(
            labels["tokens"], trained.model(features, training=False), first=translation.PAD + 1
        )
        found = translator.search(features["source"], details)
        source_pieces = ()
        if details or best.replace_unknown:
            source_pieces = translator.source_pieces(labels["source"], _ragged(labels["history"]))
        outputs = {
            "nats": tf.reduce_sum(losses, axis=1),
            "tokens": tf.math.count_nonzero(counts, axis=1),
            "unknown": tf.math.count_nonzero(features["source"] == translation.UNKNOWN, axis=1),
            "outputs": translator.texts(found, source_pieces)[:, 0],
        }
        if greedy:
            step_function, states, _ = translator.begin(features["source"])
            if not best.replace_unknown:
                step_function = decoding.without_weights(step_function)
            of_greedy = decoding.greedy(step_function, states, best)
            outputs["greedy"] = translator.texts(_with_axis(of_greedy), source_pieces)[:, 0]
        if details:
            outputs["sources"] = source_pieces
            outputs["pieces"] = translator.target_pieces(found, source_pieces).to_tensor("")
            outputs["alignments"] = found.alignments[:, 0]
        return outputs

    columns: dict[str, list] = {}
    for features, labels in dataset:
        for name, values in of_batch(features, labels).items():
            columns.setdefault(name, []).extend(values.numpy())
    sources = [_strings(row) for row in columns.get("sources", ())]
    pieces = [_strings(row) for row in columns.get("pieces", ())]
    weights = columns.get("alignments", ())
    return Predictions(
        metrics.texts_of(dataset),
        _strings(columns["outputs"], empty=True),
        _strings(columns.get("greedy", ()), empty=True),
        *(np.array(columns[name]) for name in ("nats", "tokens", "unknown")),
        sources,
        pieces,
        [
            each[: len(own), : len(source)]
            for each, own, source in zip(weights, pieces, sources, strict=True)
        ],
    )


def score(trained: Trained, dataset: tf.data.Dataset) -> dict:
    """The figures of a split."""
    is_chat = trained.assets["task"]["dialogs"]
    found = predictions(trained, dataset, greedy=not is_chat)
    targets = found.texts.targets
    perplexities = metrics.perplexities(found.nats.sum(), int(found.tokens.sum()), targets)
    if is_chat:
        selected = metrics.selection(found.texts, scorer(trained))
        return metrics.reply_figures(found.texts, found.outputs) | perplexities | selected
    figures = metrics.translation_figures(found.texts, found.outputs)
    of_greedy = metrics.translation_figures(found.texts, found.greedy)
    return figures | perplexities | {f"{name}_greedy": of_greedy[name] for name in _OF_GREEDY}


def scorer(trained: Trained) -> Scorer:
    """A function of sources, their histories and candidates: how much a source tells of each.

    That is log P of the candidate for the source, minus log P for a source without words, per token
    (Li et al. 2016, "A diversity-promoting objective function for neural conversation models",
    equation 10). The first one alone prefers frequent replies, which fit to everything.
    """
    source, target = translation.tokenizers(trained.assets, trained.config.units_of_text)
    ids_of = tf.function(
        lambda sources, histories: to_dense(translation.encode_source(source, sources, histories)),
        reduce_retracing=True,
        autograph=False,
    )

    @tf.function(reduce_retracing=True, autograph=False)
    def log_probabilities(ids, rows, texts):
        encoded, pieces = encode(trained.model, ids), target.encode(texts)
        order, count = tf.argsort(pieces.row_lengths()), tf.size(rows)
        found = []
        for k in range(_PARTS):
            part = order[count * k // _PARTS : count * (k + 1) // _PARTS]
            found.append(of_part(encoded, tf.gather(rows, part), tf.gather(pieces, part)))
        return tf.scatter_nd(order[:, None], tf.concat(found, axis=0), [count])

    def of_part(encoded, rows, pieces):
        count = pieces.nrows()
        starts, ends = (
            tf.fill([count, 1], token) for token in (translation.START, translation.END)
        )
        read = to_dense(tf.concat([starts, pieces], axis=1))
        logits = logits_of_rows(trained.model, encoded, rows, read)
        labels = to_dense(tf.concat([pieces, ends], axis=1))
        losses, counts = token_losses(labels, logits, first=translation.PAD + 1)
        lengths = tf.reduce_sum(tf.cast(counts, losses.dtype), axis=1)
        return -tf.reduce_sum(losses, axis=1) / lengths

    def without_source(texts: list[str]) -> dict[str, float]:
        ids, found = ids_of(tf.constant([""]), tf.ragged.constant([[]], tf.string, 1)), []
        for k in range(0, len(texts), metrics.CANDIDATES * _BATCH):
            own = texts[k : k + metrics.CANDIDATES * _BATCH]
            found += (
                log_probabilities(ids, tf.zeros(len(own), tf.int32), tf.constant(own))
                .numpy()
                .tolist()
            )
        return dict(zip(texts, found, strict=True))

    def score_all(
        sources: list[str], histories: list[list[str]], candidates: list[list[str]]
    ) -> np.ndarray:
        prior = without_source(list(dict.fromkeys(text for own in candidates for text in own)))
        rows = []
        for k in range(0, len(sources), _BATCH):
            own = slice(k, k + _BATCH)
            ids = ids_of(
                tf.constant(sources[own]), tf.ragged.constant(histories[own], tf.string, 1)
            )
            counts = [len(each) for each in candidates[own]]
            texts = [text for each in candidates[own] for text in each]
            found = log_probabilities(
                ids, tf.repeat(tf.range(len(counts)), counts), tf.constant(texts)
            )
            found -= tf.constant([prior[text] for text in texts], found.dtype)
            of_source = tf.RaggedTensor.from_row_lengths(found, counts).to_list()
            rows += [own + [-np.inf] * (metrics.CANDIDATES - len(own)) for own in of_source]
        return np.array(rows)

    return score_all


def _ragged(histories) -> tf.RaggedTensor:
    """The turns of histories that are padded with empty strings, `[B, N]`."""
    return tf.ragged.boolean_mask(histories, histories != "")


def _with_axis(found) -> decoding.SearchResult:
    """One sequence per example as `[B, 1, ...]`."""
    return type(found)(*(None if x is None else tf.expand_dims(x, 1) for x in found))


def _strings(values, empty: bool = False) -> list[str]:
    return [value.decode("utf-8") for value in values if value or empty]
