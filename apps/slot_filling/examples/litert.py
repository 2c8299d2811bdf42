"""Runs an exported LiteRT file with the interpreter and NumPy only.

    python litert.py saved_models/slot_filling/1 "flights from boston to denver"

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


def split_words(sentence: str) -> list[str]:
    """Splits at white space and punctuation, and drops a period at the end."""
    sentence = re.sub(r"((?:^|\s)[^\s.]{2,})\.+\s*$", r"\1", sentence)
    return re.findall(r'[,?!;()\[\]"]|[^\s,?!;()\[\]"]+', sentence)


def read_ids(path: Path) -> dict[str, int]:
    """The entries of a vocabulary with their ids."""
    return {entry: k for k, entry in enumerate(path.read_bytes().decode("utf-8").split("\n")[:-1])}


def main(folder: str, *sentences: str) -> None:
    """Prints the intent of each text, and each word that has a slot."""
    words, letters, tags, intents = (
        read_ids(Path(folder) / f"{name}.txt")
        for name in ("vocabulary", "characters", "tags", "intents")
    )
    tags, intents = list(tags), list(intents)
    model = Interpreter(str(Path(folder) / "model.tflite")).get_signature_runner()
    for sentence in sentences:
        tokens = split_words(sentence) or [""]
        # A number that the vocabulary lacks is looked up with its digits replaced by 0.
        lower = [token.casefold() for token in tokens]
        ids = [words.get(w, words.get(re.sub(r"\d", "0", w), 1 if w else 0)) for w in lower]
        spelled = np.zeros((1, len(tokens), max(1, *map(len, tokens), 1)), np.int32)[
            ..., :CHARACTERS
        ]
        for k, token in enumerate(tokens):
            for j, letter in enumerate(token[:CHARACTERS]):
                zero = "0" if letter.isdecimal() else letter
                spelled[0, k, j] = letters.get(letter, letters.get(zero, 1))
        outputs = model(tokens=np.array([ids], np.int32), characters=spelled)
        intent = intents[outputs["intent"][0]] if "intent" in outputs else ""
        found = [tags[k] for k in outputs["tags"][0]]
        slots = [f"{w}/{tag}" for w, tag in zip(tokens, found, strict=True) if tag != "O"]
        print(intent, *slots, sep="\t")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python litert.py FOLDER TEXT...")
    main(*sys.argv[1:])
