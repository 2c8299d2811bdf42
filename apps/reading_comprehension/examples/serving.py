"""Runs an exported SavedModel with TensorFlow and TensorFlow Text only.

python serving.py FOLDER "Ann left. Bob is here." "Where is Bob?"
"""

import sys

import tensorflow as tf
import tensorflow_text  # noqa: F401  (the ops that split a sentence into words)


def main(folder: str, story: str, *questions: str) -> None:
    """Prints the answer to each question, and its probability."""
    model = tf.saved_model.load(folder)
    stories = [story] * len(questions)
    outputs = model.signatures["serving_default"](
        story=tf.constant(stories), question=tf.constant(questions)
    )
    for k, question in enumerate(questions):
        answer = outputs["answer"][k].numpy().decode()
        print(question, answer, f"{outputs['scores'][k].numpy()[2:].max():.1%}", sep="\t")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python serving.py FOLDER STORY QUESTION...")
    main(*sys.argv[1:])
