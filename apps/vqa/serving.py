"""The functions that the app exports: image files and questions to answers; pixels and ids."""

import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Service, Trained, once, with_inputs
from unroll.apps.shared import images
from unroll.apps.shared.batches import for_any_batch
from unroll.pipelines import image, text

# The number of answers that `serving_default` returns.
NUM_ANSWERS = 5


def request(trained: Trained, inputs: list[tuple]) -> dict[str, np.ndarray]:
    """The request of `serving_default` for pairs of an image and a question.

    In dialogs, a triple also has the previous rounds.
    """
    config, spec = trained.config, trained.assets["images"]
    sources, questions, *history = zip(*inputs, strict=True)
    raw = {"question": np.array(questions, object)}
    if spec["kind"] == "image" or (config.image != "none" and config.frozen):
        raw["image_bytes"] = np.array([images.read(source) for source in sources], object)
    elif spec["kind"] == "regions":
        raw["regions"] = images.regions_of(sources, config, spec)
    if config.history:
        rounds = history[0] if history else [()] * len(questions)
        longest = max(1, *map(len, rounds))
        padded = [[*each, *[""] * (longest - len(each))] for each in rounds]
        raw["history"] = np.array(padded, object)
    return raw


@once
def service(trained: Trained) -> Service:
    """The app's functions.

    - `serving_default`: `question` `[B]`, with `image_bytes` `[B]` or `regions` `[B, S, D]`, and
      for dialogs `history` `[B, R]`, the previous rounds as a question with its answer, "" for
      none. To `answers` and `scores` `[B, n]`, in the order of their probability, `tokens` and
      `question_attention` `[B, T]`, `image_attention` `[B, glimpses, H, W]` (or
      `[B, glimpses, S]`), and `history_attention` `[B, hops, R]`. `text.MAX_TOKENS` of a question
      are read, and of a round. For files also `error` `[B]`: why
      a file cannot be decoded, "" if it can. Its answers are then "", its scores and weights 0.
    - `ids`: `image` `[B, S, S, 3]`, 0 to 255, (or `regions`), `tokens` `[B, T]` and `rounds`
      `[B, R, T]`, to `scores` `[B, A]` of all answers, and the same weights. Ids
      that are not in the vocabulary are read as the unknown token.
    """
    config, assets, model = trained.config, trained.assets, trained.model
    spec, size = assets["images"], config.image_size
    answerer = model.get_layer("answerer")
    encoder = text.Encoder(assets["vocabulary"])
    answers = tf.constant(assets["answers"])
    frozen = images.frozen_encoder(config) if config.image != "none" else None
    image_encoder = model.get_layer("encoder") if spec["kind"] == "image" else frozen
    reads_regions = spec["kind"] == "regions" and frozen is None

    def answer(features: dict) -> dict:
        inputs = {"tokens": features["tokens"][:, tf.newaxis]}
        if image_encoder:
            inputs["regions"] = image_encoder(features["image"], training=False)
        elif reads_regions:
            inputs["regions"] = features["regions"]
        if config.history:  # the last round is that of the question
            inputs["rounds"] = tf.pad(features["rounds"], [[0, 0], [0, 1], [0, 0]])
        outputs = dict(answerer(inputs, training=False))
        if "image_attention" in outputs:
            outputs["image_attention"] = outputs["image_attention"][:, 0]
        if "history_attention" in outputs:
            outputs["history_attention"] = outputs["history_attention"][..., :-1]
        return {"scores": tf.nn.softmax(outputs.pop("logits")[:, 0])} | outputs

    def answer_ids(features: dict) -> dict:
        size = len(assets["vocabulary"])
        known = {
            k: text.known_ids(features[k], size) for k in ("tokens", "rounds") if k in features
        }
        return answer(features | known)

    def answer_files(features: dict) -> dict:
        tokens = text.tokenize(features["question"])[:, : text.MAX_TOKENS]
        inputs = {"tokens": text.to_dense(encoder.vocabulary(tokens))}
        errors = None
        if image_encoder:
            inputs["image"], errors = image.try_decode_batch(features["image_bytes"], size)
        elif reads_regions:
            inputs["regions"] = features["regions"]
        if config.history:
            inputs["rounds"] = _encode_rounds(features["history"], encoder)
        outputs = answer(inputs)
        scores, best = tf.math.top_k(
            outputs.pop("scores"), min(NUM_ANSWERS, len(assets["answers"]))
        )
        found = {"answers": tf.gather(answers, best), "scores": scores} | outputs
        found = found if errors is None else images.with_errors(found, errors)
        return found | {"tokens": text.to_dense(tokens)}

    files = {"question": tf.TensorSpec([None], tf.string)}
    ids = {"tokens": tf.TensorSpec([None, None], tf.int32)}
    if image_encoder:
        files["image_bytes"] = tf.TensorSpec([None], tf.string)
        ids["image"] = tf.TensorSpec([None, size, size, 3], tf.float32)
    elif reads_regions:
        files["regions"] = ids["regions"] = tf.TensorSpec([None, *spec["shape"]], tf.float32)
    if config.history:
        files["history"] = tf.TensorSpec([None, None], tf.string)
        ids["rounds"] = tf.TensorSpec([None, None, None], tf.int32)

    def requests(examples: list[tuple]) -> dict[str, dict[str, np.ndarray]]:
        """The requests of pairs of an image and a question, or triples with previous rounds."""
        raw = request(trained, examples)
        tokens = encoder(tf.constant(raw["question"]))["tokens"]
        encoded = {"tokens": text.to_dense(tokens).numpy()}
        if image_encoder:
            encoded["image"] = image.decode_batch(tf.constant(raw["image_bytes"]), size).numpy()
        elif reads_regions:
            encoded["regions"] = raw["regions"]
        if config.history:
            encoded["rounds"] = _encode_rounds(tf.constant(raw["history"]), encoder).numpy()
        return {"serving_default": raw, "ids": encoded}

    strings = {"question": b"", "image_bytes": b"", "history": b""}
    functions = {
        "serving_default": with_inputs(for_any_batch(answer_files, strings), files),
        "ids": with_inputs(for_any_batch(answer_ids, {}), ids),
    }
    keep = [model.variables, encoder, frozen.variables if frozen else []]
    return Service(functions, requests, litert="ids", keep=keep)


def _encode_rounds(history, encoder: text.Encoder):
    """Rounds `[B, R]` to ids `[B, R, T]`, with T at least 1."""
    flat = text.to_dense(encoder(tf.reshape(history, [-1]))["tokens"][:, : text.MAX_TOKENS])
    return tf.reshape(flat, [tf.shape(history)[0], tf.shape(history)[1], tf.shape(flat)[1]])
