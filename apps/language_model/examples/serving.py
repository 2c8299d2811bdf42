"""Runs an exported SavedModel with TensorFlow and TensorFlow Text only.

python serving.py saved_models/language_model/1 "the dogs that every king likes"
"""

import sys

import tensorflow as tf
import tensorflow_text  # noqa: F401  (the ops that split a text into subwords)


def main(folder: str, *prompts: str) -> None:
    """Prints each prompt with the most probable next 40 tokens."""
    model = tf.saved_model.load(folder)
    rows = [len(prompts)]
    outputs = model.signatures["serving_default"](
        prompt=tf.constant(prompts),
        max_length=tf.fill(rows, 40),
        temperature=tf.fill(rows, 0.0),  # above 0: random, with this seed
        seed=tf.fill(rows, 0),
    )
    for text in outputs["text"].numpy():
        print(text.decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
