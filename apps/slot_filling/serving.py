"""The functions that the app exports: texts to slots and intents, and ids to ids."""

import keras
import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Service, Trained, once, with_inputs
from unroll.pipelines import tagging
from unroll.pipelines import text as texts


@once
def service(trained: Trained) -> Service:
    """The app's functions.

    - `serving_default`: `text` `[B]` to `tokens` and `slots` `[B, T]`; `spans` `[B, N, 2]`, the
      first character and the end of each slot, and `span_labels` `[B, N]`; `intent` and
      `intent_score` `[B]`. `texts.MAX_TOKENS` words of a text are read.
    - `ids`: `tokens` `[B, T]` and `characters` `[B, T, L]` to `tags` `[B, T]`, `intent` and
      `intent_score` `[B]`. Ids that are not in the vocabulary are read as the unknown token.
    """
    model, assets = trained.model, trained.assets
    encoder = tagging.WordEncoder(assets["vocabulary"], assets["characters"])
    outputs = {name: x for name, x in model.output.items() if name != "potentials"}
    network = keras.Model(model.input, outputs)
    tags, intents = tf.constant(assets["tags"]), tf.constant(assets["intents"] or [""])

    def classify(features: dict) -> dict:
        predicted = network(features, training=False)
        results = {"tags": predicted["tags"]}
        if "intent" in predicted:
            scores = tf.cast(predicted["intent"], tf.float32)
            results["intent"] = tf.argmax(scores, axis=-1, output_type=tf.int32)
            results["intent_score"] = tf.reduce_max(scores, axis=-1)
        return results

    def classify_ids(features: dict) -> dict:
        sizes = {"tokens": len(assets["vocabulary"]), "characters": len(assets["characters"])}
        return classify({k: texts.known_ids(x, sizes[k]) for k, x in features.items()})

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serving_default(text):
        words, begins, ends = (x[:, : texts.MAX_TOKENS] for x in tagging.split_words(text))
        results = classify(encoder(words))
        ids = results.pop("tags")
        spans, labels = tagging.spans_of(ids, begins, ends, assets["tags"])
        real = tf.sequence_mask(words.row_lengths(), tf.shape(ids)[1])
        if "intent" in results:
            results["intent"] = tf.gather(intents, results["intent"])
        return results | {
            "tokens": texts.to_dense(words),
            "slots": tf.where(real, tf.gather(tags, ids), ""),
            "spans": spans,
            "span_labels": labels,
        }

    ids = {name: tf.TensorSpec([None] * len(x.shape), x.dtype) for name, x in model.input.items()}

    def requests(examples: list[str]) -> dict[str, dict[str, np.ndarray]]:
        words = tagging.split_words(tf.constant(examples))[0]
        features = {name: x.numpy() for name, x in encoder(words).items()}
        return {"serving_default": {"text": np.array(examples, object)}, "ids": features}

    return Service(
        {"serving_default": serving_default, "ids": with_inputs(classify_ids, ids)},
        requests,
        litert="ids",
        keep=[network.variables, encoder],
    )
