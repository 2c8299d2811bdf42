"""Queries an exported LiteRT file, with only its interpreter, NumPy and Pillow.

    python litert.py saved_models/vqa/1 photo.jpg "what color is the ring ?"

LiteRT has no strings: the line number in `vocabulary.txt`, from 0, is the id of a word (0 is
padding, 1 the unknown token), and `answers.txt` lists the answers. For plain English, the tokens
are those of the SavedModel. Pillow resizes large photos slightly differently than TensorFlow.
"""

import re
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps


def read_lines(path: Path) -> list[str]:
    """The lines of a vocabulary."""
    return path.read_bytes().decode("utf-8").split("\n")[:-1]


def main(folder: str, photo: str, *questions: str) -> None:
    """Prints the most probable answer to each question, and its probability."""
    ids = {word: i for i, word in enumerate(read_lines(Path(folder) / "vocabulary.txt"))}
    answers = read_lines(Path(folder) / "answers.txt")
    model = Interpreter(str(Path(folder) / "model.tflite")).get_signature_runner()
    details = model.get_input_details()
    if details.keys() != {"image", "tokens"}:
        sys.exit(f"{folder}: the model needs the inputs {', '.join(sorted(details))}.")
    size = int(details["image"]["shape"][1])
    upright = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
    resized = upright.resize((size, size), Image.Resampling.BILINEAR)
    image = np.asarray(resized, np.float32)[None]
    for question in questions:
        words = re.sub(r"([^a-z0-9\s'])", r" \1 ", question.casefold()).split()
        # A number that is not in the vocabulary is looked up with zeros for its digits.
        row = [ids.get(word, ids.get(re.sub(r"\d", "0", word), 1)) for word in words]
        scores = model(image=image, tokens=np.array([row or [0]], np.int32))["scores"][0]
        best = int(scores.argmax())
        print(question, answers[best], f"{scores[best]:.1%}", sep="\t")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python litert.py FOLDER PHOTO QUESTION...")
    main(*sys.argv[1:])
