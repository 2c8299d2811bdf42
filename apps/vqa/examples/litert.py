"""Asks an exported LiteRT file, with its interpreter, NumPy and Pillow and nothing else.

    python litert_example.py saved_models/vqa/1 photo.jpg "what color is the ring ?"

LiteRT takes no strings and no files: a line of `vocabulary.txt` is a word, and its number, from 0,
the id (0 is padding, 1 the unknown); `answers.txt` has the answers. The split into words below
agrees with that of the SavedModel on plain English; Pillow's pictures differ from TensorFlow's by a
little where a photo is made smaller.
"""

import re
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image


def read_lines(path: Path) -> list[str]:
    """The entries of a vocabulary."""
    return path.read_bytes().decode("utf-8").split("\n")[:-1]


def main(folder: str, photo: str, *questions: str) -> None:
    """Prints the likeliest answer to each question, and its probability."""
    ids = {word: k for k, word in enumerate(read_lines(Path(folder) / "vocabulary.txt"))}
    answers = read_lines(Path(folder) / "answers.txt")
    model = Interpreter(str(Path(folder) / "model.tflite")).get_signature_runner()
    details = model.get_input_details()
    if details.keys() != {"image", "tokens"}:
        sys.exit(f"{folder}: the model takes {', '.join(sorted(details))}.")
    side = int(details["image"]["shape"][1])
    picture = Image.open(photo).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    image = np.asarray(picture, np.float32)[None]
    for question in questions:
        words = re.sub(r"([^a-z0-9\s'])", r" \1 ", question.casefold()).split()
        # A number that is not in the vocabulary counts as one of zeros.
        row = [ids.get(word, ids.get(re.sub(r"\d", "0", word), 1)) for word in words]
        scores = model(image=image, tokens=np.array([row or [0]], np.int32))["scores"][0]
        best = int(scores.argmax())
        print(question, answers[best], f"{scores[best]:.1%}", sep="\t")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python litert_example.py FOLDER PHOTO QUESTION...")
    main(*sys.argv[1:])
