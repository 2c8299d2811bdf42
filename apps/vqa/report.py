"""Pictures with questions, as people give them; and drawn with what the model looked at."""

import sys
from pathlib import Path

import matplotlib.figure
import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Assets
from unroll.apps.shared.images import overlay, read
from unroll.pipelines.datasets.vision import scenes

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp")


def report_unknown(asked: dict, answers: list[str]) -> None:
    """Tells, on the standard error, of answers that the vocabulary lacks."""
    known = set(answers)
    for split, rows in asked.items():
        firsts = [of[0] for each in rows for of in each.answers]
        unknown = [answer for answer in firsts if answer not in known]
        if unknown:
            named = "; ".join(map(repr, unknown[:3])) + (" ..." if len(unknown) > 3 else "")
            what = "not trained on" if split == "train" else "always counted as wrong"
            print(
                f"unroll: {len(unknown)} of {len(firsts)} questions of {split} have an answer that "
                f"is not in the vocabulary, and are {what}: {named}",
                file=sys.stderr,
            )


def examples() -> list[tuple[bytes, str]]:
    """Some drawn scenes with questions."""
    files = scenes.examples()
    return [
        (files[0], "What color is the ring?"),
        (files[0], "is the red circle left of the blue ring ?"),
        (files[1], "how many circles are there?"),
        (files[1], "Is it there?"),
    ]


def is_picture(given: str) -> bool:
    """Whether an input on the command line is a picture's path."""
    return given.lower().endswith(SUFFIXES) or Path(given).is_file()


def results(ask, service, assets: Assets, asked: list[tuple[str | bytes, str]]) -> list[dict]:
    """What the model answers to each pair; questions about one picture are the rounds of a dialog.

    For a picture that is given by its path, another with the attention over it is written into the
    working folder.
    """
    names = {spec.name for spec in service.functions["serving_default"].input_signature}
    if "history" not in names:
        answers = ask(service, asked)
    else:
        answers, rounds = [], {}
        for shown, question in asked:
            before = rounds.setdefault(shown, [])
            [answer] = ask(service, [(shown, question, tuple(before))])
            answers.append(answer)
            before.append(f"{question} {answer['answers'][0]}")
    found = []
    for number, ((shown, question), answer) in enumerate(zip(asked, answers, strict=True), start=1):
        count = len([token for token in answer["tokens"] if token])
        result = {"image": shown} if isinstance(shown, str) else {}
        result |= {"question": question, **answer, "tokens": answer["tokens"][:count]}
        if "question_attention" in answer:
            result["question_attention"] = answer["question_attention"][:count]
        if isinstance(shown, str) and np.ndim(answer.get("image_attention")) == 3:
            path = Path(f"{Path(shown).stem}.attention-{number}.png")
            draw(read(shown), result, path)
            result["picture"] = str(path)
        found.append(result)
    return found


def draw(contents: bytes, result: dict, path: Path) -> None:
    """The photo, the photo under the attention of each glimpse, and the weights of the words."""
    photo = tf.io.decode_image(contents, channels=3, expand_animations=False).numpy()
    glimpses = np.array(result["image_attention"])  # [G, H, W]
    words = result.get("question_attention")
    figure = matplotlib.figure.Figure(figsize=(3 * (1 + len(glimpses)), 3.2 + 1.2 * bool(words)))
    rows = figure.subfigures(2 if words else 1, 1, height_ratios=[3, 1.2] if words else None)
    upper, lower = rows if words else (rows, None)
    axes = upper.subplots(1, 1 + len(glimpses))
    for axis, weights in zip(axes, [None, *glimpses], strict=True):
        overlay(axis, photo, weights)
    axes[0].set_title(f"{result['answers'][0]} ({result['scores'][0]:.0%})")
    if words:
        bars = lower.subplots()
        bars.bar(range(len(words)), words)
        bars.set_xticks(range(len(words)), result["tokens"], rotation=30, ha="right", fontsize=8)
        lower.subplots_adjust(bottom=0.5)
    figure.savefig(path, dpi=100)
