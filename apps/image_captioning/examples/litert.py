"""Queries an exported LiteRT file, with only its interpreter, NumPy and Pillow.

    python litert.py saved_models/image_captioning/1 photo.jpg

LiteRT reads no files: the input is pixels from 0 to 255, the output the ids of words. An id is the
index of a line of `vocabulary.txt`. Pillow and TensorFlow resize images slightly differently.
"""

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps


def main(folder: str, *paths: str) -> None:
    """Prints the caption of each image, from greedy search."""
    vocabulary = (Path(folder) / "vocabulary.txt").read_bytes().decode("utf-8").split("\n")[:-1]
    model = Interpreter(str(Path(folder) / "model.tflite")).get_signature_runner()
    inputs = model.get_input_details()
    if list(inputs) != ["image"] or len(inputs["image"]["shape"]) != 4:
        sys.exit(f"{folder}: the input of this model is not images but {', '.join(inputs)}.")
    size = int(inputs["image"]["shape"][1])
    for path in paths:
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")  # photos upright
        image = image.resize((size, size), Image.Resampling.BILINEAR)
        outputs = model(image=np.asarray(image, np.float32)[None])
        print(*(vocabulary[i] for i in outputs["ids"][0, : int(outputs["lengths"][0])]))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python litert.py FOLDER IMAGE...")
    main(*sys.argv[1:])
