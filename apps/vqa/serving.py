"""What the app exports: picture files and questions to answers; pixels and ids, for LiteRT."""

import keras
import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Assets, Service, settings_of, with_inputs
from unroll.apps.shared import images
from unroll.pipelines import image, text

ANSWERS = 5  # so many are told


def service(model: keras.Model, assets: Assets) -> Service:
    """The app's functions.

    - `serving_default`, `question` `[B]`, with `image_bytes` `[B]` (or `regions` `[B, S, D]`, made
      elsewhere) and, of a model for dialogs, `history` `[B, R]`: the rounds before, each a question
      with its answer, "" for none. It gives `answers` and `scores` `[B, n]`, from the best down,
      `tokens` and `question_attention` `[B, T]`, `image_attention` `[B, glimpses, H, W]` (or
      `[B, glimpses, S]`) and `history_attention` `[B, hops, R]`.
    - `ids`: `image` `[B, S, S, 3]`, 0 to 255, (or `regions`), `tokens` `[B, T]` and `rounds`
      `[B, R, T]` to `scores` `[B, A]` of all answers, and the same weights.
    """
    settings = settings_of(assets)
    answerer = model.get_layer("answerer")
    encoder = text.Encoder(assets["vocabulary"])
    answers = tf.constant(assets["answers"])
    sees, remembers = settings["kind"] != "none", "rounds" in answerer.input
    frozen = None
    if settings["kind"] == "image":
        see = model.get_layer("encoder")
    elif settings["encoder"]:
        size = settings["image_size"]
        see = frozen = images.frozen_encoder(settings["encoder"], settings["encoder_weights"], size)
    takes_files = settings["kind"] == "image" or frozen is not None

    def answer(features: dict) -> dict:
        given = {"tokens": features["tokens"][:, tf.newaxis]}
        if takes_files:
            given["regions"] = see(features["image"], training=False)
        elif sees:
            given["regions"] = features["regions"]
        if remembers:  # the last round is the question's own
            given["rounds"] = tf.pad(features["rounds"], [[0, 0], [0, 1], [0, 0]])
        found = dict(answerer(given, training=False))
        if "image_attention" in found:
            found["image_attention"] = found["image_attention"][:, 0]
        if "history_attention" in found:
            found["history_attention"] = found["history_attention"][..., :-1]
        return {"scores": tf.nn.softmax(found.pop("logits")[:, 0])} | found

    def answer_files(features: dict) -> dict:
        tokens = text.tokenize(features["question"])
        given = {"tokens": text.to_dense(encoder.vocabulary(tokens))}
        if takes_files:
            given["image"] = image.decode_batch(features["image_bytes"], settings["image_size"])
        elif sees:
            given["regions"] = features["regions"]
        if remembers:
            given["rounds"] = _ids_of_rounds(features["history"], encoder)
        found = answer(given)
        scores, best = tf.math.top_k(found.pop("scores"), min(ANSWERS, len(assets["answers"])))
        shown = {"tokens": text.to_dense(tokens)}
        return {"answers": tf.gather(answers, best), "scores": scores} | shown | found

    size = settings["image_size"]
    files = {"question": tf.TensorSpec([None], tf.string)}
    ids = {"tokens": tf.TensorSpec([None, None], tf.int32)}
    if takes_files:
        files["image_bytes"] = tf.TensorSpec([None], tf.string)
        ids["image"] = tf.TensorSpec([None, size, size, 3], tf.float32)
    elif sees:
        files["regions"] = ids["regions"] = tf.TensorSpec([None, *settings["shape"]], tf.float32)
    if remembers:
        files["history"] = tf.TensorSpec([None, None], tf.string)
        ids["rounds"] = tf.TensorSpec([None, None, None], tf.int32)

    def requests(examples: list[tuple]) -> dict[str, dict[str, np.ndarray]]:
        """Of pairs of a picture and a question, or triples with the rounds before."""
        shown, questions, *before = zip(*examples, strict=True)
        asked = {"question": np.array(questions, object)}
        given = {"tokens": text.to_dense(encoder(tf.constant(questions))["tokens"]).numpy()}
        if takes_files:
            asked["image_bytes"] = np.array([images.read(each) for each in shown], object)
            given["image"] = image.decode_batch(tf.constant(asked["image_bytes"]), size).numpy()
        elif sees:
            asked["regions"] = given["regions"] = images.regions_of(shown, settings)
        if remembers:
            rounds = before[0] if before else [()] * len(questions)
            most = max(1, *map(len, rounds))
            padded = [[*each, *[""] * (most - len(each))] for each in rounds]
            asked["history"] = np.array(padded, object)
            given["rounds"] = _ids_of_rounds(tf.constant(padded), encoder).numpy()
        return {"serving_default": asked, "ids": given}

    keep = [model.variables, encoder, frozen.variables if frozen else []]
    functions = {
        "serving_default": with_inputs(answer_files, files),
        "ids": with_inputs(answer, ids),
    }
    return Service(functions, requests, litert="ids", keep=keep)


def _ids_of_rounds(history, encoder: text.Encoder):
    """`[B, R]` strings to ids `[B, R, T]`, T being one at least."""
    flat = text.to_dense(encoder(tf.reshape(history, [-1]))["tokens"])
    return tf.reshape(flat, [tf.shape(history)[0], tf.shape(history)[1], tf.shape(flat)[1]])
