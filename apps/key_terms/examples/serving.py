"""Runs an exported SavedModel with TensorFlow and TensorFlow Text only.

python serving.py saved_models/key_terms/1 "Programmers studied neural network and vitamin."
"""

import sys

import tensorflow as tf
import tensorflow_text  # noqa: F401  (the ops that split a text into words)


def main(folder: str, *texts: str) -> None:
    """Prints the terms of each text with their scores, and where its mentions are."""
    model = tf.saved_model.load(folder)
    outputs = model.signatures["serving_default"](text=tf.constant(texts))
    for k in range(len(texts)):
        terms = zip(outputs["terms"][k].numpy(), outputs["scores"][k].numpy(), strict=True)
        found = [f"{term.decode()}={score:.2f}" for term, score in terms if term]
        spans = [f"{begin}-{end}" for begin, end in outputs["spans"][k].numpy() if begin >= 0]
        print(*found, *spans, sep="\t")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python serving.py FOLDER TEXT...")
    main(*sys.argv[1:])
