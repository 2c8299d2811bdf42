"""The functions that the app exports: texts to translations, ids to ids."""

import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Service, Trained, once, with_inputs
from unroll.apps.shared.batches import for_any_batch
from unroll.apps.translation import decoding
from unroll.pipelines.text import known_ids
from unroll.pipelines.translation import UNKNOWN


def request(trained: Trained, inputs: list[str]) -> dict[str, np.ndarray]:
    """The request of `serving_default` for sources, or for the turns of dialogs."""
    if not trained.assets["task"]["dialogs"]:
        return {"text": np.array(inputs, object)}
    turns = [each.split("\t")[-trained.config.history :] for each in inputs]
    longest = max(map(len, turns)) - 1
    history = [[*each[:-1], *[""] * (longest - len(each) + 1)] for each in turns]
    return {
        "text": np.array([each[-1] for each in turns], object),
        "history": np.array(history, object).reshape(len(turns), longest),
    }


@once
def service(trained: Trained) -> Service:
    """The app's functions.

    - `serving_default`: `text` `[B]`, and for dialogs `history` `[B, N]`, the turns before it, the
      oldest first, padded with empty strings, to

        - `translations` `[B, n]` (replies of a dialog), the best first,
        - `scores` `[B, n]`: log probabilities, divided by a power of the length; with `mbr_samples`
          the mean overlap with the samples, 0 to 1,
        - `pieces` `[B, n, L]`: the tokens of each, padded with empty strings,
        - `source_pieces` `[B, S]`: the tokens that the encoder reads, likewise,
        - `alignment` `[B, n, L, S]`: the attention weights of each of the pieces.

    - `ids`: `source` `[B, S]`, ids with an end and padded with 0, to the `ids` `[B, L]`, `lengths`
      `[B]` and `alignment` `[B, L, S]` of the greedy search.
    """
    config, is_dialog = trained.config, trained.assets["task"]["dialogs"]
    translator = decoding.Translator(trained)
    size = translator.source.size

    def serving_default(inputs: dict) -> dict:
        history = inputs.get("history")
        if history is not None:
            history = tf.ragged.boolean_mask(history, history != "")
        found = translator.search(translator.source_ids(inputs["text"], history))
        source_pieces = translator.source_pieces(inputs["text"], history)
        ragged = translator.target_pieces(found, source_pieces)
        longest = tf.maximum(1, tf.reduce_max(found.lengths))
        pieces = ragged.to_tensor("")
        pieces = tf.pad(pieces, [[0, 0], [0, longest - tf.shape(pieces)[1]]], constant_values="")
        shape = tf.concat([tf.shape(found.tokens)[:2], [longest]], axis=0)
        # Without the weights of the end, which are there if another row is longer.
        is_piece = tf.sequence_mask(found.lengths, longest)[..., tf.newaxis]
        return {
            "translations": tf.reshape(translator.target.join(ragged), shape[:2]),
            "scores": found.scores,
            "pieces": tf.reshape(pieces, shape),
            "source_pieces": source_pieces,
            "alignment": tf.where(is_piece, found.alignments[:, :, :longest], 0.0),
        }

    def ids(inputs: dict) -> dict:
        source = known_ids(inputs["source"], size, UNKNOWN)
        step_function, states, _ = translator.begin(source)
        found = decoding.greedy(step_function, states, config)
        return {"ids": found.tokens, "lengths": found.lengths, "alignment": found.alignments}

    specs = {"text": tf.TensorSpec([None], tf.string)}
    if is_dialog:
        specs["history"] = tf.TensorSpec([None, None], tf.string)

    def requests(examples: list[str]) -> dict[str, dict[str, np.ndarray]]:
        raw = request(trained, examples)
        history = raw.get("history")
        if history is not None:
            history = tf.ragged.boolean_mask(tf.constant(history), history != "")
        ids = translator.source_ids(tf.constant(raw["text"]), history)
        return {"serving_default": raw, "ids": {"source": ids.numpy()}}

    return Service(
        {
            "serving_default": with_inputs(
                for_any_batch(serving_default, {"text": b"", "history": b""}), specs
            ),
            "ids": with_inputs(
                for_any_batch(ids, {}), {"source": tf.TensorSpec([None, None], tf.int32)}
            ),
        },
        requests,
        litert="ids",
        keep=[trained.model.variables, translator],
    )
