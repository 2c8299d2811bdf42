"""Asks an exported LiteRT file, with its interpreter and NumPy and nothing else.

    python litert_example.py FOLDER "Ann left. Bob is here." "Where is Bob?"

LiteRT takes no strings: a line of `vocabulary.txt` is a word or an answer, and its number, from 0,
the id (0 is padding, 1 the unknown). The split into facts and words below agrees with that of the
SavedModel on plain English.
"""

import re
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main(folder: str, story: str, *questions: str) -> None:
    """Prints the answer to each question, and its probability."""
    words = (Path(folder) / "vocabulary.txt").read_bytes().decode("utf-8").split("\n")[:-1]
    ids = {word: k for k, word in enumerate(words)}
    kept = int((Path(folder) / "memory_size.txt").read_text())

    def read(sentence: str) -> list[int]:
        return [ids.get(word, 1) for word in re.findall(r"[a-z0-9]+", sentence.casefold())] or [0]

    facts = [read(fact) for fact in re.split(r"(?<=[.!?])\s+|\n", story) if fact.strip()]
    facts = facts[-kept:] or [[0]]
    told = np.zeros((1, len(facts), max(map(len, facts))), np.int32)
    for k, fact in enumerate(facts):
        told[0, k, : len(fact)] = fact
    model = Interpreter(str(Path(folder) / "model.tflite")).get_signature_runner()
    for question in questions:
        scores = model(facts=told, question=np.array([read(question)], np.int32))["scores"][0]
        best = int(scores[2:].argmax()) + 2
        print(question, words[best], f"{scores[best]:.1%}", sep="\t")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python litert_example.py FOLDER STORY QUESTION...")
    main(*sys.argv[1:])
