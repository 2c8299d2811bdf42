"""Runs an exported SavedModel with TensorFlow and TensorFlow Text only.

    python serving.py saved_models/word_vectors/1 queen
    python serving.py saved_models/word_vectors/1 man king woman

One word gives its neighbors. Three words a, b and c give the words to which c is as a is to b.
"""

import sys

import tensorflow as tf
import tensorflow_text  # noqa: F401  (the ops that normalize a text)


def main(folder: str, *words: str) -> None:
    """Prints the nearest words and their cosines."""
    model = tf.saved_model.load(folder)
    if len(words) == 3:
        arguments = {name: tf.constant([word]) for name, word in zip("abc", words, strict=True)}
        outputs = model.signatures["analogy"](**arguments)
    else:
        outputs = model.signatures["serving_default"](words=tf.constant(words))
    rows = zip(outputs["neighbors"].numpy(), outputs["scores"].numpy(), strict=True)
    for neighbors, scores in rows:
        found = zip(neighbors, scores, strict=True)
        print(", ".join(f"{word.decode()} {score:.3f}" for word, score in found))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python serving.py FOLDER WORD [WORD WORD]")
    main(*sys.argv[1:])
