"""Runs an exported LiteRT file with the interpreter and NumPy only.

    python litert.py saved_models/word_vectors/1 dog dogs

Each line of `vocabulary.txt` is a word in lower case, and its line number, from 0, is the id (0 is
padding, 1 the unknown word).
"""

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main(folder: str, *words: str) -> None:
    """Prints the cosine of the first word and each of the others."""
    lines = (Path(folder) / "vocabulary.txt").read_bytes().decode("utf-8").split("\n")[:-1]
    ids = {word: k for k, word in enumerate(lines)}
    model = Interpreter(str(Path(folder) / "model.tflite")).get_signature_runner()
    tokens = np.array([[ids.get(word.lower(), 1) for word in words]], np.int32)
    vectors = model(tokens=tokens)["vectors"][0]
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    for word, vector in zip(words[1:], vectors[1:], strict=True):
        print(f"{words[0]} {word} {vectors[0] @ vector:.3f}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python litert.py FOLDER WORD WORD...")
    main(*sys.argv[1:])
