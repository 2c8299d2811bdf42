"""Runs an exported SavedModel with TensorFlow and TensorFlow Text only.

    python serving.py saved_models/translation/1 "The old dogs have caught some mice."

Of a model of dialogs, each text has the turns so far, separated by tabs.
"""

import sys

import tensorflow as tf
import tensorflow_text  # noqa: F401  (the ops that split a text into tokens)


def main(folder: str, *texts: str) -> None:
    """Prints the translations of each text with their scores, the best one first."""
    function = tf.saved_model.load(folder).signatures["serving_default"]
    request = {"text": tf.constant(texts)}
    if "history" in function.structured_input_signature[1]:
        turns = [text.split("\t") for text in texts]
        request["text"] = tf.constant([own[-1] for own in turns])
        history = tf.ragged.constant([own[:-1] for own in turns], tf.string, 1)
        request["history"] = history.to_tensor("")
    outputs = function(**request)
    for found, scores in zip(outputs["translations"], outputs["scores"], strict=True):
        for text, score in zip(found.numpy(), scores.numpy(), strict=True):
            print(f"{text.decode()}\t{score:.2f}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python serving.py FOLDER TEXT...")
    main(*sys.argv[1:])
