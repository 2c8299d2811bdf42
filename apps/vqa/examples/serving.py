"""Queries an exported SavedModel, with only TensorFlow and TensorFlow Text.

python serving.py saved_models/vqa/1 photo.jpg "What color is the ring?"
"""

import sys
from pathlib import Path

import tensorflow as tf
import tensorflow_text  # noqa: F401  (the ops of the tokenizer)


def main(folder: str, photo: str, *questions: str) -> None:
    """Prints the most probable answers to each question.

    A model for dialogs gets the previous questions with its own answers.
    """
    loaded = tf.saved_model.load(folder)
    model = loaded.signatures["serving_default"]
    has_history = "history" in model.structured_input_signature[1]
    rounds = [""]
    for question in questions:
        inputs = {"image_bytes": [Path(photo).read_bytes()], "question": [question]}
        if has_history:
            inputs["history"] = [rounds]
        outputs = model(**{name: tf.constant(value) for name, value in inputs.items()})
        if error := outputs["error"].numpy()[0]:
            sys.exit(f"{photo} {error.decode()}")
        answers = [answer.decode() for answer in outputs["answers"][0].numpy()]
        scores = outputs["scores"][0].numpy()
        print(question, *(f"{a} {s:.1%}" for a, s in zip(answers, scores, strict=True)), sep="\t")
        rounds.append(f"{question} {answers[0]}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python serving.py FOLDER PHOTO QUESTION...")
    main(*sys.argv[1:])
