"""The functions that the app exports: texts to terms, and ids to tags and scores."""

import keras
import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Service, Trained, once, with_inputs
from unroll.apps.key_terms import metrics
from unroll.pipelines import tagging
from unroll.pipelines import text as texts


@once
def service(trained: Trained) -> Service:
    """The app's functions.

    - `serving_default`: `text` `[B]` to the different `terms` `[B, N]` as they are first written,
      with their `scores` `[B, N]`, the best first; `spans` `[B, M, 2]`, the first character and the
      end of each mention, `span_labels` and `span_scores` `[B, M]`; `tokens` and `tags` `[B, T]`;
      and, with `model=attention`, `attention` `[B, T]`. `texts.MAX_TOKENS` words of a text are
      read.
    - `ids`: `tokens` `[B, T]` and `characters` `[B, T, L]` to `tags` and `scores` `[B, T]`, the
      score of the span that begins at a word. Ids that are not in the vocabulary are read as the
      unknown token.
    """
    assets = trained.assets
    encoder = tagging.WordEncoder(assets["vocabulary"], assets["characters"])
    found = metrics.predictor(trained.model)
    outputs = {name: x for name, x in found.output.items() if name != "candidates"}
    network = keras.Model(found.input, outputs)
    names = tf.constant(assets["tags"])

    def classify(features: dict) -> dict:
        results = network(features, training=False)
        return {n: x if n == "tags" else tf.cast(x, tf.float32) for n, x in results.items()}

    def classify_ids(features: dict) -> dict:
        sizes = {"tokens": len(assets["vocabulary"]), "characters": len(assets["characters"])}
        return classify({k: texts.known_ids(x, sizes[k]) for k, x in features.items()})

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serving_default(text):
        split = tagging.split_words(text, documents=True)
        words, begins, ends = (x[:, : texts.MAX_TOKENS] for x in split)
        results = classify(encoder(words))
        ids, scores = results.pop("tags"), results.pop("scores")
        spans, labels = tagging.spans_of(ids, begins, ends, assets["tags"])
        real = tf.sequence_mask(words.row_lengths(), tf.shape(ids)[1])
        span_scores = tf.ragged.boolean_mask(scores, tf.logical_and(real, scores > 0))
        terms, term_scores = _terms(words, ids, span_scores, assets["tags"])
        return results | {
            "tokens": texts.to_dense(words),
            "tags": tf.where(real, tf.gather(names, ids), ""),
            "spans": spans,
            "span_labels": labels,
            "span_scores": span_scores.to_tensor(0.0),
            "terms": terms.to_tensor(""),
            "scores": term_scores.to_tensor(0.0),
        }

    ids = {name: tf.TensorSpec([None] * len(x.shape), x.dtype) for name, x in network.input.items()}

    def requests(examples: list[str]) -> dict[str, dict[str, np.ndarray]]:
        words = tagging.split_words(tf.constant(examples), documents=True)[0]
        features = {name: x.numpy() for name, x in encoder(words).items()}
        return {"serving_default": {"text": np.array(examples, object)}, "ids": features}

    return Service(
        {"serving_default": serving_default, "ids": with_inputs(classify_ids, ids)},
        requests,
        litert="ids",
        keep=[network.variables, encoder],
    )


def _terms(words: tf.RaggedTensor, ids, scores: tf.RaggedTensor, names: list[str]) -> tuple:
    """The different terms of each text, and their scores, the best first.

    Args:
        words: `[B, (T)]`.
        ids: the tags, `[B, T]`.
        scores: of the spans, `[B, (M)]`.
        names: of the tags.

    Returns:
        The terms, `[B, (N)]`, strings, and the scores, `[B, (N)]`. A term has the score of its best
        mention; mentions differ in case alone.
    """
    positions = tf.ragged.range(tf.cast(words.row_lengths(), tf.int32))
    spans, _ = tagging.spans_of(ids, positions, positions + 1, names)  # [B, M, 2]
    spans = tf.gather_nd(spans, tf.where(spans[..., 0] >= 0))
    rows = scores.value_rowids()
    starts = tf.cast(tf.gather(words.row_starts(), rows), tf.int32)
    own = tf.ragged.range(starts + spans[:, 0], starts + spans[:, 1])
    mentions = tf.strings.reduce_join(tf.gather(words.flat_values, own), axis=-1, separator=" ")
    folded = tagging.normalize_words(mentions)
    keys = tf.strings.join([tf.strings.as_string(rows), folded], separator=" ")
    different, term = tf.unique(keys)
    count = tf.size(different)
    of_term = tf.math.unsorted_segment_max(scores.flat_values, term, count)
    row = tf.math.unsorted_segment_max(rows, term, count)
    first = tf.math.unsorted_segment_min(tf.range(tf.size(mentions)), term, count)
    order = tf.argsort(-of_term, stable=True)
    order = tf.gather(order, tf.argsort(tf.gather(row, order), stable=True))

    def ragged(values):
        return tf.RaggedTensor.from_value_rowids(
            tf.gather(values, order), tf.gather(row, order), nrows=words.nrows()
        )

    return ragged(tf.gather(mentions, first)), ragged(of_term)
