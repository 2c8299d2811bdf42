"""Asks an exported SavedModel, with TensorFlow and TensorFlow Text and nothing else.

python serving_example.py saved_models/vqa/1 photo.jpg "What color is the ring?"
"""

import sys
from pathlib import Path

import tensorflow as tf
import tensorflow_text  # noqa: F401  (the ops that split a question into words)


def main(folder: str, photo: str, *questions: str) -> None:
    """Prints the likeliest answers to each question, and the word that it attended to most.

    A model for dialogs hears the questions one after another, with its own answers.
    """
    ask = tf.saved_model.load(folder).signatures["serving_default"]
    remembers = "history" in ask.structured_input_signature[1]
    rounds = [""]
    for question in questions:
        given = {"image_bytes": [Path(photo).read_bytes()], "question": [question]}
        if remembers:
            given["history"] = [rounds]
        answer = ask(**{name: tf.constant(value) for name, value in given.items()})
        best = [each.decode() for each in answer["answers"][0].numpy()]
        shares = answer["scores"][0].numpy()
        print(question, *(f"{a} {s:.1%}" for a, s in zip(best, shares, strict=True)), sep="\t")
        rounds.append(f"{question} {best[0]}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python serving_example.py FOLDER PHOTO QUESTION...")
    main(*sys.argv[1:])
