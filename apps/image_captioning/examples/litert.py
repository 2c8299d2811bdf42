"""Asks an exported LiteRT file, with its interpreter, NumPy and Pillow and nothing else.

    python litert_example.py saved_models/image_captioning/1 photo.jpg

LiteRT takes no files: a photo goes in as pixels from 0 to 255, and the numbers of words come out; a
line of `vocabulary.txt` is a word, and its number, from 0, the id. Pillow's pictures differ from
TensorFlow's by a little where a photo is made smaller.
"""

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image


def main(folder: str, *photos: str) -> None:
    """Prints the caption of each photo that the greedy search writes."""
    words = (Path(folder) / "vocabulary.txt").read_bytes().decode("utf-8").split("\n")[:-1]
    model = Interpreter(str(Path(folder) / "model.tflite")).get_signature_runner()
    details = model.get_input_details()
    if list(details) != ["image"] or len(details["image"]["shape"]) != 4:
        sys.exit(f"{folder}: the model takes no pictures but {', '.join(details)}.")
    side = int(details["image"]["shape"][1])
    for photo in photos:
        picture = Image.open(photo).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        found = model(image=np.asarray(picture, np.float32)[None])
        print(*(words[k] for k in found["ids"][0, : int(found["lengths"][0])]))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python litert_example.py FOLDER PHOTO...")
    main(*sys.argv[1:])
