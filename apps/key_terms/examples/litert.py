"""Runs an exported LiteRT file with the interpreter and NumPy only.

    python litert.py saved_models/key_terms/1 "Programmers studied neural network and vitamin."

LiteRT has no strings. Each line of `vocabulary.txt` is a word, each line of `characters.txt` a
character, and its line number, from 0, is the id (0 is padding, 1 the unknown token). The word
splitter below agrees with that of the SavedModel on plain English; `pipelines/tagging.py` handles
all texts.
"""

import re
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

CHARACTERS = 20  # the maximum number of characters of a word
MARKS = r',?!;()\[\]"%–‘“”'


def split_words(text: str) -> list[str]:
    """Splits at white space, and before and after punctuation."""
    text = re.sub(rf"([^\s.{MARKS}]{{2}})\.(?=[\s{MARKS}]|$)", r"\1 .", text)
    text = re.sub(r"(\S):(?=\s|$)", r"\1 :", text)
    return re.findall(rf"[{MARKS}]|['’]s\b|(?:(?!['’]s\b)[^\s{MARKS}])+", text)


def read_ids(path: Path) -> dict[str, int]:
    """The entries of a vocabulary with their ids."""
    return {entry: k for k, entry in enumerate(path.read_bytes().decode("utf-8").split("\n")[:-1])}


def main(folder: str, *texts: str) -> None:
    """Prints the mentions of the terms of each text, with their scores."""
    words, letters, tags = (
        read_ids(Path(folder) / f"{name}.txt") for name in ("vocabulary", "characters", "tags")
    )
    names = list(tags)
    model = Interpreter(str(Path(folder) / "model.tflite")).get_signature_runner()
    for text in texts:
        tokens = split_words(text) or [""]
        # A number that the vocabulary lacks is looked up with its digits replaced by 0.
        lower = [token.casefold() for token in tokens]
        ids = [words.get(w, words.get(re.sub(r"\d", "0", w), 1 if w else 0)) for w in lower]
        longest = max(1, *map(len, tokens), 1)
        spelled = np.zeros((1, len(tokens), min(longest, CHARACTERS)), np.int32)
        for k, token in enumerate(tokens):
            for j, letter in enumerate(token[:CHARACTERS]):
                zero = "0" if letter.isdecimal() else letter
                spelled[0, k, j] = letters.get(letter, letters.get(zero, 1))
        outputs = model(tokens=np.array([ids], np.int32), characters=spelled)
        terms = []
        for token, tag, score in zip(tokens, outputs["tags"][0], outputs["scores"][0], strict=True):
            if names[tag].startswith("B-"):
                terms.append([f"{score:.2f}", token])
            elif names[tag].startswith("I-"):
                terms[-1].append(token)
        print(*(" ".join(term) for term in terms), sep="\t")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python litert.py FOLDER TEXT...")
    main(*sys.argv[1:])
