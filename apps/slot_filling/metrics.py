"""What slots and intents are worth: the field's figures, a table of slots, a plot of confusions.

    unroll slot_filling report RUN [--split=test]

writes `slots.md` and `confusion.png` of a trained run into its folder.
"""

import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, fields
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from seqeval.metrics import f1_score
from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support

from unroll.apps.core.protocol import Assets
from unroll.pipelines import text


@dataclass(frozen=True)
class Answers:
    """The sentences of a split: what is right, and what a model says.

    Attributes:
        tags, found_tags: of each word of each sentence.
        intents, found_intents: of each sentence; none where there are no intents.
        unknown: whether a sentence has a word that training lacks.
    """

    tags: list[list[str]]
    found_tags: list[list[str]]
    intents: list[str]
    found_intents: list[str]
    unknown: list[bool]


def answers(model: keras.Model, assets: Assets, dataset: tf.data.Dataset) -> Answers:
    """The tags and intents of a split, and what the model says they are."""
    tags = np.array(assets["tags"] + assets["unseen_tags"] + ["B-unseen"])
    intents = np.array(assets["intents"] + assets["unseen_intents"] + ["unseen"])
    rows = defaultdict(list)
    for features, right in dataset:
        found = model.predict_on_batch(features)
        for k, gold in enumerate(right["tags"].numpy()):
            rows["tags"].append(tags[gold[gold >= 0]].tolist())
            rows["found_tags"].append(tags[found["tags"][k][gold >= 0]].tolist())
        if assets["intents"]:
            rows["intents"] += intents[right["intent"]].tolist()
            rows["found_intents"] += intents[np.argmax(found["intent"], axis=-1)].tolist()
        unknown = features["tokens"] == text.UNKNOWN
        rows["unknown"] += tf.reduce_any(unknown, axis=1).numpy().tolist()
    return Answers(*(rows[field.name] for field in fields(Answers)))


class MostFrequent:
    """Gives each word its most frequent tag in training, each sentence the most frequent intent."""

    def __init__(self, train: tf.data.Dataset, assets: Assets):
        self.intents = len(assets["intents"])
        of_word, of_all, intents = defaultdict(Counter), Counter(), Counter()
        for features, right in train:
            for words, tags in zip(features["tokens"].numpy(), right["tags"].numpy(), strict=True):
                for word, tag in zip(words[tags >= 0], tags[tags >= 0], strict=True):
                    of_word[word][tag] += 1
                    of_all[tag] += 1
            if self.intents:
                intents.update(right["intent"].numpy().tolist())
        self.of_word = {word: counts.most_common(1)[0][0] for word, counts in of_word.items()}
        self.tag = of_all.most_common(1)[0][0]
        self.intent = intents.most_common(1)[0][0] if intents else None

    def predict_on_batch(self, features: dict) -> dict:
        """As a model's."""
        of_word = np.vectorize(lambda word: self.of_word.get(word, self.tag))
        found = {"tags": of_word(features["tokens"].numpy())}
        if self.intents:
            found["intent"] = np.eye(self.intents)[[self.intent] * len(found["tags"])]
        return found


def figures(answers: Answers) -> dict:
    """The figures of a split.

    `slot_f1` counts spans as conlleval does (micro-averaged, by seqeval). A sentence is right when
    all its tags and its intent are. Sentences with an unknown word are counted apart too.
    """
    right = [a == b for a, b in zip(answers.tags, answers.found_tags, strict=True)]
    found = {"examples": len(right), "slot_f1": _f1(answers.tags, answers.found_tags)}
    if answers.intents:
        intents = np.array(answers.intents) == np.array(answers.found_intents)
        found["intent_accuracy"] = float(intents.mean())
        right = np.logical_and(right, intents)
    found["sentence_accuracy"] = float(np.mean(right))
    for name, kind in (("known", False), ("unknown", True)):
        chosen = [k for k, unknown in enumerate(answers.unknown) if unknown == kind]
        tags, found_tags = (
            [rows[k] for k in chosen] for rows in (answers.tags, answers.found_tags)
        )
        if any(tag != "O" for row in tags for tag in row):
            found[f"slot_f1_{name}_words"] = _f1(tags, found_tags)
            found[f"examples_{name}_words"] = len(chosen)
    return found


def _f1(tags: list, found: list) -> float:
    return float(f1_score(tags, found, zero_division=0))


@keras.saving.register_keras_serializable(package="unroll")
class SentenceAccuracy(keras.metrics.Mean):
    """The share of sentences whose tags are all right; tags below zero are padding."""

    def __init__(self, name="sentence_accuracy", dtype=None):
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true = ops.cast(y_true, "int32")
        right = ops.logical_or(y_true < 0, y_true == ops.cast(y_pred, "int32"))
        return super().update_state(ops.cast(ops.all(right, axis=-1), "float32"))


def slot_table(answers: Answers) -> list[str]:
    """Precision, recall and F1 of each slot, the most frequent first."""
    values = precision_recall_fscore_support(
        answers.tags, answers.found_tags, average=None, zero_division=0
    )
    spans = {name for rows in (answers.tags, answers.found_tags) for name, *_ in get_entities(rows)}
    rows = sorted(zip(sorted(spans), *values, strict=True), key=lambda row: -row[4])
    lines = ["| slot | precision | recall | F1 | spans |", "| --- | --- | --- | --- | --- |"]
    return lines + [f"| {n} | {p:.3f} | {r:.3f} | {f:.3f} | {s} |" for n, p, r, f, s in rows]


def confusions(answers: Answers, most: int = 25) -> tuple[list[str], np.ndarray]:
    """How often a word of one slot was given another: the slots with most mistakes, and counts."""
    pairs = Counter(
        (a[2:] or "O", b[2:] or "O")
        for row, found in zip(answers.tags, answers.found_tags, strict=True)
        for a, b in zip(row, found, strict=True)
    )
    mistakes = Counter()
    for (a, b), count in pairs.items():
        if a != b:
            mistakes[a] += count
            mistakes[b] += count
    names = [name for name, _ in mistakes.most_common(most)]
    return names, np.array([[pairs[a, b] for b in names] for a in names])


def plot(answers: Answers, path: Path) -> None:
    """A picture of the confusions."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names, counts = confusions(answers)
    size = 3 + 0.3 * len(names)
    figure, axes = pyplot.subplots(figsize=(size, size))
    wrong = np.where(np.eye(len(names), dtype=bool), 0, counts) if names else np.zeros((1, 1))
    axes.imshow(wrong, cmap="Reds")
    for place in zip(*np.nonzero(wrong), strict=True):
        axes.annotate(int(wrong[place]), place[::-1], ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(xlabel="found", ylabel="right", title="words given a wrong slot")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main(folder: str, split: str = "--split=test") -> None:
    """Writes the table and the plot."""
    from unroll.apps.core.evaluation import load_model, split_of
    from unroll.apps.core.runs import Run
    from unroll.apps.slot_filling import app

    run = Run(Path(folder))
    model, config, assets = load_model(app, run)
    name = split.removeprefix("--split=")
    data = app.load(config, assets)
    found = answers(model, assets, split_of(data, name, config.data))
    (run.path / "slots.md").write_text("\n".join(slot_table(found)) + "\n")
    plot(found, run.path / "confusion.png")
    print("\n".join(slot_table(found)))
    print(f"written to {run.path}/slots.md and {run.path}/confusion.png")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("usage: unroll slot_filling report RUN [--split=test]")
    main(*sys.argv[1:])
