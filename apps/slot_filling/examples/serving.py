"""Runs an exported SavedModel with TensorFlow and TensorFlow Text only.

python serving.py saved_models/slot_filling/1 "flights from boston to denver"
"""

import sys

import tensorflow as tf
import tensorflow_text  # noqa: F401  (the ops that split a text into words)


def main(folder: str, *sentences: str) -> None:
    """Prints the intent of each text, and its slots."""
    model = tf.saved_model.load(folder)
    outputs = model.signatures["serving_default"](text=tf.constant(sentences))
    for k, sentence in enumerate(sentences):
        intent = outputs["intent"][k].numpy().decode() if "intent" in outputs else ""
        spans = zip(outputs["span_labels"][k].numpy(), outputs["spans"][k].numpy(), strict=True)
        slots = [
            f"{label.decode()}={sentence[begin:end]}" for label, (begin, end) in spans if label
        ]
        print(intent, *slots, sep="\t")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python serving.py FOLDER TEXT...")
    main(*sys.argv[1:])
