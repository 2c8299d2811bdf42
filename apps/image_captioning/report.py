"""Pictures with captions, as people see them: each word over the place that it looked at."""

from pathlib import Path

import matplotlib.figure
import numpy as np
import tensorflow as tf

from unroll.apps.shared.images import overlay, read

_ROW = 6  # pictures side by side


def results(answers: list[dict], inputs: list[str | bytes]) -> list[dict]:
    """The answers with the names of the files; of files, a picture of where each word looked."""
    found = []
    for answer, given in zip(answers, inputs, strict=True):
        result = {"image": given} if isinstance(given, str) else {}
        result |= answer
        if isinstance(given, str) and "attention" in answer:
            path = Path(f"{Path(given).stem}.attention.png")
            draw(read(given), answer, path)
            result["picture"] = str(path)
        found.append(result)
    return found


def draw(contents: bytes, answer: dict, path: Path) -> None:
    """The photo, and the photo under the attention of each word of the best caption.

    Of a clip, or of regions, which lie nowhere, the weights of each word are a row of bars.
    """
    words = [word for word in answer["words"][0] if word]
    weights = np.array(answer["attention"][0][: len(words)])
    if weights.ndim == 2:
        figure = matplotlib.figure.Figure(figsize=(6, 1 + 0.3 * len(words)), layout="constrained")
        axis = figure.subplots()
        axis.imshow(weights, cmap="inferno", aspect="auto", vmin=0)
        axis.set_yticks(range(len(words)), words)
        axis.set_xlabel("frame" if "frames" in answer else "region")
    else:
        photo = tf.io.decode_image(contents, channels=3, expand_animations=False).numpy()
        rows = -(-(len(words) + 1) // _ROW)
        figure = matplotlib.figure.Figure(figsize=(2 * _ROW, 2.3 * rows), layout="constrained")
        axes = figure.subplots(rows, _ROW, squeeze=False).ravel()
        shown = [None, *weights, *[None] * (len(axes) - len(words) - 1)]
        for k, (axis, looks) in enumerate(zip(axes, shown, strict=True)):
            axis.axis("off")
            if k <= len(words):
                overlay(axis, photo, looks)
                axis.set_title(["", *words][k])
    figure.savefig(path, dpi=80)
