"""Runs an exported LiteRT file with the interpreter and NumPy only.

    python litert.py FOLDER "Ann left. Bob is here." "Where is Bob?"

LiteRT has no strings. Each line of `vocabulary.txt` is a word or an answer, and its line number,
from 0, is the id (0 is padding, 1 the unknown token). The splitter below agrees with that of the
SavedModel on plain English.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main(folder: str, story: str, *questions: str) -> None:
    """Prints the answer to each question, and its probability."""
    words = (Path(folder) / "vocabulary.txt").read_bytes().decode("utf-8").split("\n")[:-1]
    ids = {word: k for k, word in enumerate(words)}
    memory_size = json.loads((Path(folder) / "memory.json").read_text())["size"]

    def encode(sentence: str) -> list[int]:
        return [ids.get(word, 1) for word in re.findall(r"[a-z0-9]+", sentence.casefold())] or [0]

    facts = [encode(fact) for fact in re.split(r"(?<=[.!?])\s+|\n", story) if fact.strip()]
    facts = facts[-memory_size:] or [[0]]
    padded = np.zeros((1, len(facts), max(map(len, facts))), np.int32)
    for k, fact in enumerate(facts):
        padded[0, k, : len(fact)] = fact
    model = Interpreter(str(Path(folder) / "model.tflite")).get_signature_runner()
    for question in questions:
        scores = model(facts=padded, question=np.array([encode(question)], np.int32))["scores"][0]
        best = int(scores[2:].argmax()) + 2
        print(question, words[best], f"{scores[best]:.1%}", sep="\t")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python litert.py FOLDER STORY QUESTION...")
    main(*sys.argv[1:])
