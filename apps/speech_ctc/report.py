"""What the model gets wrong, and the labels of a recording over time."""

import itertools
from collections import Counter
from pathlib import Path

import jiwer
import matplotlib.figure
import tensorflow as tf

from unroll.apps.core.protocol import Report, Trained
from unroll.apps.core.results import markdown_table
from unroll.apps.shared.reports import confusion_figure, examples_table
from unroll.apps.speech_ctc import metrics, recordings
from unroll.pipelines import speech

_DECODERS = {"": "greedy", "beam_": "beam search", "language_model_": "with language model"}
_NONE = "(none)"


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """Error rates by decoder, alignments, the worst transcripts, confusions, CTC spikes.

    The errors are those of the greedy transcripts.
    """
    found, unit = metrics.outputs(trained, dataset), trained.config.unit
    correct = [speech.join_units(labels, unit) for labels in found.references]
    decoded = found.transcripts
    greedy = decoded[""]
    labels = aligned_labels(correct, greedy, unit)
    sections = [
        "## Error rates\n\n" + _rates_table(correct, decoded, unit),
        "## A correct and a wrong transcript\n\n```text\n" + alignments(correct, greedy) + "\n```",
        "## Transcripts with the most errors\n\n" + _worst_table(correct, greedy, unit),
        "## Most frequent errors in labels\n\n" + errors_table(labels),
    ]
    if unit == "characters":
        words = aligned_labels(correct, greedy, "words")
        sections.append("## Most frequent errors in words\n\n" + errors_table(words))
    example = found.example  # a transcript that is readable as a figure
    names = trained.assets["labels"]
    known = [label for label in found.references[example] if label in names]
    probabilities = metrics.label_probabilities(found.logits, names, known)
    figures = {
        "spikes": spikes_figure(
            probabilities, recordings.seconds_per_frame(trained), correct[example]
        ),
        "confusion": confusion_figure(*zip(*labels, strict=True)),
    }
    return Report("\n\n".join(sections), figures)


def alignments(correct: list[str], decoded: list[str]) -> str:
    """The words of a correct and of a wrong transcript, if there are any, below what was spoken."""
    right = [i for i, text in enumerate(correct) if text == decoded[i]]
    wrong = [i for i, text in enumerate(correct) if text != decoded[i]]
    of_median_length = sorted(wrong, key=lambda i: len(correct[i]))[len(wrong) // 2 :][:1]
    parts = []
    for i in right[:1] + of_median_length:
        aligned = jiwer.process_words([correct[i]], [decoded[i]])
        shown = jiwer.visualize_alignment(aligned, show_measures=False, skip_correct=False)
        heading = "correct" if correct[i] == decoded[i] else "wrong"
        parts.append(shown.replace("SENTENCE 1", heading).rstrip())
    return "\n\n".join(parts)


def aligned_labels(correct: list[str], decoded: list[str], unit: str) -> list[tuple[str, str]]:
    """Pairs of a correct and a decoded label, `(none)` for the missing side of a pair."""
    align = jiwer.process_characters if unit == "characters" else jiwer.process_words
    aligned = align(correct, decoded)
    pairs = []
    for reference, hypothesis, chunks in zip(
        aligned.references, aligned.hypotheses, aligned.alignments, strict=True
    ):
        for chunk in chunks:
            left = [_name(x) for x in reference[chunk.ref_start_idx : chunk.ref_end_idx]]
            right = [_name(x) for x in hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]]
            pairs += itertools.zip_longest(left, right, fillvalue=_NONE)
    return pairs


def errors_table(pairs: list[tuple[str, str]]) -> str:
    """The most frequent pairs of different labels, as Markdown."""
    counts = Counter(pair for pair in pairs if pair[0] != pair[1])
    return examples_table(
        ["correct", "decoded", "count"], [[*pair, n] for pair, n in counts.most_common()]
    )


def _rates_table(correct: list[str], decoded: dict[str, list[str]], unit: str) -> str:
    rows = {_DECODERS[k]: metrics.error_rates(correct, v, unit) for k, v in decoded.items()}
    heads = [name.replace("_", " ") for name in rows["greedy"]]
    body = [[name, *(f"{x:.4f}" for x in rates.values())] for name, rates in rows.items()]
    return markdown_table(["decoder", *heads], body)


def _worst_table(correct: list[str], decoded: list[str], unit: str) -> str:
    rows = []
    for reference, hypothesis in zip(correct, decoded, strict=True):
        pairs = aligned_labels([reference], [hypothesis], unit)
        rows.append([sum(a != b for a, b in pairs), reference[:200], hypothesis[:200]])
    rows = sorted((row for row in rows if row[0]), key=lambda row: -row[0])
    return examples_table(["errors", "correct", "decoded"], rows)


def _name(label: str) -> str:
    return label if label.strip() else "(space)"


def spikes_figure(
    probabilities: dict[str, list[float]], seconds_per_frame: float, title: str
) -> matplotlib.figure.Figure:
    """The probabilities of labels over time. A label is a short spike between blanks."""
    figure = matplotlib.figure.Figure(figsize=(10, 3), layout="constrained")
    axes = figure.subplots()
    for label, values in probabilities.items():
        times = [i * seconds_per_frame for i in range(len(values))]
        color = "lightgray" if label == speech.BLANK else None
        shown = "blank" if label == speech.BLANK else _name(label)
        axes.plot(times, values, color=color, label=shown)
    axes.set(xlabel="seconds", ylabel="probability", ylim=(0, 1.05), title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7)
    return figure


def plot(result: dict, path: Path) -> None:
    """Writes the probabilities of the labels of a recording over time."""
    figure = spikes_figure(
        result["probabilities"], result["seconds_per_frame"], result["transcript"]
    )
    figure.savefig(path, dpi=100)
