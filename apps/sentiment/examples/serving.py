"""Runs an exported SavedModel with TensorFlow and TensorFlow Text only.

python serving.py saved_models/sentiment/1 "The room was not clean."
"""

import sys

import tensorflow as tf
import tensorflow_text  # noqa: F401  (the ops that split a text into words)


def main(folder: str, *sentences: str) -> None:
    """Prints the label and its probability for each text."""
    model = tf.saved_model.load(folder)
    outputs = model.signatures["serving_default"](text=tf.constant(sentences))
    for sentence, label, probabilities in zip(
        sentences, outputs["label"].numpy(), outputs["probabilities"].numpy(), strict=True
    ):
        print(f"{label.decode():<10} {max(probabilities):6.1%}  {sentence}")


if __name__ == "__main__":
    main(*sys.argv[1:])
