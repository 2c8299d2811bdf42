"""Runs an exported LiteRT file with the interpreter and NumPy only, token by token.

    python litert.py saved_models/language_model/1 "the dogs that every king likes"

The file has two functions. `step` is one step of the model: a token and the states in, the logits
and the new states out. `generate` has the loop of this script inside: the ids of a prompt in, those
of the most probable tokens after it out.
Each line of `vocabulary.txt` is a token, and its line number, from 0, is the id (0 is unknown, 1
the end of a line). This script splits prompts into characters or, if the tokens are words, at
spaces.
"""

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

UNKNOWN, END = 0, 1


def main(folder: str, *prompts: str, length: int = 40) -> None:
    """Prints each prompt with the most probable next tokens."""
    lines = (Path(folder) / "vocabulary.txt").read_bytes().decode("utf-8").split("\n")[:-1]
    if (Path(folder) / "subwords.bin").exists():
        sys.exit(f"{folder}: this script does not read subwords.")
    words = max(map(len, lines[2:])) > 1
    ids = {token: i for i, token in enumerate(lines)} | {"\n": END}
    step = Interpreter(str(Path(folder) / "model.tflite")).get_signature_runner("step")
    sizes = {
        name: details["shape"][-1]
        for name, details in step.get_input_details().items()
        if name != "token"
    }
    for prompt in prompts:
        states = {name: np.zeros((1, size), np.float32) for name, size in sizes.items()}
        tokens = prompt.replace("\n", " \n ").split(" ") if words else prompt
        waiting = [END, *(ids.get(token, UNKNOWN) for token in tokens if token)]
        text = prompt
        for _ in range(len(waiting) + length - 1):
            token = waiting.pop(0)
            outputs = step(token=np.array([token], np.int32), **states)
            states = {name: outputs[name] for name in states}
            if not waiting:
                logits = outputs["logits"][0]
                logits[UNKNOWN] = -np.inf
                waiting.append(int(logits.argmax()))
                space = " " if words and text and text[-1] != "\n" else ""
                text += "\n" if waiting[0] == END else space + lines[waiting[0]]
        print(text)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python litert.py FOLDER PROMPT...")
    main(*sys.argv[1:])
