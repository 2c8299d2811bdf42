"""What the model gets wrong, and a result as an image."""

import heapq
import textwrap
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure
import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Assets, Report, Trained
from unroll.apps.core.results import markdown_table
from unroll.apps.shared import images
from unroll.apps.shared.reports import confusion_figure, examples_table, per_class_table
from unroll.apps.vqa import metrics, network
from unroll.pipelines.visual_questions import FIRST_ANSWER, NO_QUESTION

# The answer of a question whose answer is not in the vocabulary.
UNKNOWN = "[other]"
# The number of errors whose images are shown.
NUM_IMAGES = 6


@dataclass(frozen=True)
class Error:
    """An incorrect answer.

    Attributes:
        question, correct, predicted: texts.
        probability: of the predicted answer.
        image: `[S, S, 3]`, 0 to 255, or `None` if the model reads features.
        attention: `[glimpses, H, W]`, or `None` without attention to the image.
    """

    question: str
    correct: str
    predicted: str
    probability: float
    image: np.ndarray | None
    attention: np.ndarray | None


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """Accuracy by type of question, confusion of answers, errors with the highest probability.

    The images of some errors are shown under the attention of each glimpse, if the model reads
    pixels.
    """
    assets, model = trained.assets, network.with_attention(trained.model)
    found, rows, worst = metrics.Predictions(), [], []
    for features, labels in dataset:
        outputs = {k: np.asarray(v) for k, v in model.predict_on_batch(features).items()}
        predicted = outputs["logits"].argmax(-1) + FIRST_ANSWER
        found.add(features["tokens"].numpy(), labels.numpy(), predicted)
        errors = errors_of(assets, features, labels.numpy(), outputs)
        rows += [(e.correct, e.predicted, e.probability, e.question) for e in errors]
        worst = heapq.nlargest(NUM_IMAGES, worst + errors, key=lambda e: e.probability)
    rows.sort(key=lambda row: -row[2])
    body = [[correct, predicted, f"{p:.3f}", text] for correct, predicted, p, text in rows]
    correct = [_answer(assets, labels[0]) for labels in found.labels]
    predicted = [_answer(assets, label) for label in found.predicted]
    text = (
        f"{len(rows):,} of {len(correct):,} questions are answered incorrectly.\n\n"
        f"## Question types\n\n{question_types_table(found, assets)}\n\n"
        f"## Answers\n\n{per_class_table(correct, predicted)}\n\n"
        "## Errors with the highest probability\n\n"
        f"{examples_table(['correct', 'predicted', 'probability', 'question'], body)}"
    )
    figures = {"confusion": confusion_figure(correct, predicted)}
    if worst and worst[0].image is not None:
        figures["errors"] = images.sheet([_row(error) for error in worst])
    return Report(text, figures)


def errors_of(assets: Assets, features: dict, labels: np.ndarray, outputs: dict) -> list[Error]:
    """The incorrect answers of a batch."""
    logits = outputs["logits"]
    probabilities = np.asarray(tf.nn.softmax(logits))
    predicted = logits.argmax(-1) + FIRST_ANSWER
    wrong = (labels[..., 0] != NO_QUESTION) & (labels[..., 0] != predicted)
    tokens, pixels = features["tokens"].numpy(), features.get("image")
    attention = outputs.get("image_attention")
    return [
        Error(
            " ".join(assets["vocabulary"][i] for i in tokens[p, q] if i),
            _answer(assets, labels[p, q, 0]),
            _answer(assets, predicted[p, q]),
            float(probabilities[p, q].max()),
            None if pixels is None else pixels[p].numpy().astype("uint8"),
            None if attention is None else attention[p, q],
        )
        for p, q in np.argwhere(wrong)
    ]


def question_types_table(found: metrics.Predictions, assets: Assets) -> str:
    """For the frequent first two words of questions, and the others: count and accuracy."""
    types, correct = found.question_types(assets["vocabulary"]), found.correct
    groups = {f"{name} ...": types == name for name in assets["question_types"]}
    groups["others"] = ~np.isin(types, assets["question_types"])
    body = [
        [name, f"{group.sum():,}", f"{correct[group].mean():.3f}"]
        for name, group in groups.items()
        if group.any()
    ]
    return markdown_table(["question", "examples", "accuracy"], body)


def _answer(assets: Assets, label: int) -> str:
    return assets["answers"][label - FIRST_ANSWER] if label >= FIRST_ANSWER else UNKNOWN


def _row(error: Error) -> list[tuple]:
    title = (
        f"{textwrap.fill(error.question, 40)}\n{error.predicted} {error.probability:.0%} "
        f"(correct: {error.correct})"
    )
    glimpses = [] if error.attention is None else error.attention
    return [
        (title, error.image, None),
        *((f"glimpse {k}", error.image, weights) for k, weights in enumerate(glimpses, start=1)),
    ]


def plot(result: dict, path: Path) -> None:
    """The image, the image under the attention of each glimpse, and the weights of the tokens.

    The weights of regions, which have no positions, are a matrix. Without any attention, the
    scores of the answers are shown.
    """
    attention = np.array(result.get("image_attention", []))
    tokens = result.get("question_attention")
    upper = [None] * (bool(result.get("image")) and Path(result["image"]).is_file())
    upper += [*attention] if upper and attention.ndim == 3 else []
    matrix = attention.ndim == 2 and attention.size > 0
    columns = max(1, len(upper) + matrix)
    heights = ([3.2] if upper or matrix else []) + [1.8]
    size = (3 * columns + 1, sum(heights) + 0.5)
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    *rows, lower = np.ravel(figure.subfigures(len(heights), 1, height_ratios=heights))
    if rows:
        panels = np.ravel(rows[0].subplots(1, columns))
        for axes, weights in zip(panels, upper, strict=False):
            images.overlay(axes, images.pixels_of(result["image"]), weights)
        if matrix:
            panels[-1].imshow(attention, cmap="inferno", aspect="auto", vmin=0)
            panels[-1].set(xlabel="region", ylabel="glimpse")
    bars = lower.subplots()
    if tokens:
        bars.bar(range(len(tokens)), tokens)
        labels = {"rotation": 30, "ha": "right", "fontsize": 8, "parse_math": False}
        bars.set_xticks(range(len(tokens)), result["tokens"], **labels)
        bars.set_ylabel("attention")
    else:
        bars.barh(range(len(result["answers"])), result["scores"])
        bars.set_yticks(range(len(result["answers"])), result["answers"], parse_math=False)
        bars.invert_yaxis()
        bars.set_xlim(0, 1)
        bars.set_xlabel("probability")
    answer = f"{result['answers'][0]} ({result['scores'][0]:.0%})"
    title = f"{textwrap.fill(result['question'], 60)}\n{answer}"
    figure.suptitle(title, fontsize=10, parse_math=False)
    images.save(figure, path)
