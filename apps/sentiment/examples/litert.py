"""Runs an exported LiteRT file with the interpreter and NumPy only.

    python litert.py saved_models/sentiment/1 "The room was not clean."

LiteRT has no strings. Each line of `vocabulary.txt` is a token, and its line number, from 0, is the
id (0 is padding, 1 the unknown token). The tokenizer below agrees with that of the SavedModel on
plain English in ASCII; `pipelines/text.py` handles all texts.
"""

import re
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def tokenize(sentence: str) -> list[str]:
    """Lower case; contractions as in the Penn Treebank; punctuation marks are tokens."""
    text = re.sub(r"(^|\s)'", r"\1' ", sentence.casefold())
    text = re.sub(r"([a-z])n't\b", r"\1 n't", text)
    text = re.sub(r"'\s?(s|m|d|ll|re|ve)\b", r" '\1", text)
    text = re.sub(r"([^a-z0-9\s'])", r" \1 ", text)
    return re.sub(r"'(\s|$)", r" ' \1", text).split()


def read_lines(path: Path) -> list[str]:
    """The entries of a vocabulary."""
    return path.read_bytes().decode("utf-8").split("\n")[:-1]


def main(folder: str, *sentences: str) -> None:
    """Prints the label and its probability for each text."""
    ids = {token: i for i, token in enumerate(read_lines(Path(folder) / "vocabulary.txt"))}
    labels = read_lines(Path(folder) / "labels.txt")
    model = Interpreter(str(Path(folder) / "model.tflite")).get_signature_runner()
    if model.get_input_details().keys() != {"tokens"}:
        sys.exit(f"{folder}: the model also needs letter trigrams (--encoding=word_hashing).")
    for sentence in sentences:
        row = []
        for token in tokenize(sentence):
            # A number that the vocabulary lacks is looked up with its digits replaced by 0.
            row.append(ids.get(token, ids.get(re.sub(r"\d", "0", token), 1)))
        tokens = np.array([row or [0]], np.int32)
        probabilities = model(tokens=tokens)["probabilities"][0]
        best = int(probabilities.argmax())
        print(f"{labels[best]:<10} {probabilities[best]:6.1%}  {sentence}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python litert.py FOLDER TEXT...")
    main(*sys.argv[1:])
