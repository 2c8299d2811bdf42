"""The functions that the app exports: texts to labels, and ids to probabilities."""

import keras
import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Service, Trained, once, with_inputs
from unroll.pipelines import text as texts


@once
def service(trained: Trained) -> Service:
    """The app's functions.

    - `serving_default`: `text` `[B]` to `label` `[B]`, `probabilities` `[B, K]`, `tokens` `[B, T]`
      and, with attention pooling, `attention` `[B, T]`. `texts.MAX_TOKENS` of a text are read.
    - `ids`: `tokens` `[B, T]` (and `trigrams` `[B, T, L]` with word hashing) to `probabilities` and
      `attention`. Ids that are not in the vocabulary are read as the unknown token.
    """
    model = trained.model
    encoder = texts.Encoder(trained.assets["vocabulary"], trigrams="trigrams" in model.input)
    outputs = {"probabilities": model.output}
    if trained.config.pool == "attention":
        outputs["attention"] = model.get_layer("pool").output[1]
    network = keras.Model(model.input, outputs)
    labels = tf.constant(trained.assets["labels"])

    def classify(features: dict) -> dict:
        results = network(features, training=False)
        return {name: tf.cast(value, tf.float32) for name, value in results.items()}

    def classify_ids(features: dict) -> dict:
        known = {"tokens": texts.known_ids(features["tokens"], len(trained.assets["vocabulary"]))}
        if "trigrams" in features:
            last = texts.NUM_TRIGRAMS  # that of words without letters
            known["trigrams"] = texts.known_ids(features["trigrams"], last, unknown=last)
        return classify(known)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serving_default(text):
        tokens = texts.tokenize(text)[:, : texts.MAX_TOKENS]
        features = encoder.of_tokens(tokens)
        results = classify({k: texts.to_dense(v) for k, v in features.items()})
        results["label"] = tf.gather(labels, tf.argmax(results["probabilities"], axis=-1))
        results["tokens"] = texts.to_dense(tokens)
        return results

    ids = {name: tf.TensorSpec([None] * len(x.shape), x.dtype) for name, x in model.input.items()}

    def requests(examples: list[str]) -> dict[str, dict[str, np.ndarray]]:
        features = {k: texts.to_dense(v).numpy() for k, v in encoder(tf.constant(examples)).items()}
        return {"serving_default": {"text": np.array(examples, object)}, "ids": features}

    return Service(
        {"serving_default": serving_default, "ids": with_inputs(classify_ids, ids)},
        requests,
        litert="ids",
        keep=[network.variables, encoder],
    )
