"""What transcripts are worth: error rates, alignments, a picture of the spikes.

    unroll speech_ctc report RUN [--split=test]

writes `alignments.txt` (a right and a wrong utterance, and the most frequent mistakes) and
`spikes.png` (the probabilities of the labels over time) of a trained run into its folder.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jiwer
import keras
import numpy as np
import tensorflow as tf
from keras import ops

from unroll import layers
from unroll.apps.core.protocol import Assets, settings_of
from unroll.pipelines import speech
from unroll.pipelines.errors import DataError


@keras.saving.register_keras_serializable(package="unroll")
class LabelErrorRate(keras.metrics.Metric):
    """Insertions, deletions and substitutions of the greedy labels, as a share of the right ones.

    Of `y_true`, `[B, L]`, what is 0 or less is padding.
    """

    def __init__(self, name="label_error_rate", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.errors = self.add_weight(name="errors", initializer="zeros")
        self.labels = self.add_weight(name="labels", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        right = tf.cast(y_true, tf.int32)
        found = layers.ctc_greedy(y_pred)
        lengths = tf.reduce_sum(tf.cast(right > 0, tf.int32), axis=1)
        errors = edit_distances(found.labels, found.lengths, right, lengths)
        self.errors.assign_add(tf.cast(tf.reduce_sum(errors), "float32"))
        self.labels.assign_add(tf.cast(tf.reduce_sum(lengths), "float32"))

    def result(self):
        return ops.divide_no_nan(self.errors, self.labels)


def edit_distances(found, found_lengths, right, right_lengths) -> tf.Tensor:
    """Levenshtein's distances `[B]` of the rows of `[B, T]` and `[B, L]`, also under XLA.

    `tf.edit_distance` does not compile. A row of the table is made at once: an insertion is one
    more than what stands left of it, so the least so far, less the way there, is what it costs.
    """
    places = tf.range(tf.shape(found)[1] + 1)
    row = tf.broadcast_to(places, [tf.shape(found)[0], tf.shape(found)[1] + 1])

    def least_so_far(x):
        def double(shift, x):
            before = tf.where(places >= shift, tf.roll(x, shift, axis=1), x)
            return 2 * shift, tf.minimum(x, before)

        return tf.while_loop(lambda shift, x: shift < tf.shape(x)[1], double, [1, x])[1]

    def next_row(k, row):
        wrong = tf.cast(found != right[:, k, tf.newaxis], tf.int32)
        best = tf.minimum(row[:, 1:] + 1, row[:, :-1] + wrong)
        best = tf.concat([row[:, :1] + 1, best], axis=1)
        best = tf.ensure_shape(least_so_far(best - places) + places, row.shape)
        return k + 1, tf.where((k < right_lengths)[:, tf.newaxis], best, row)

    _, row = tf.while_loop(lambda k, _: k < tf.shape(right)[1], next_row, [0, row])
    return tf.gather(row, found_lengths, axis=1, batch_dims=1)


@dataclass(frozen=True)
class Answers:
    """What was said in the recordings of a split, and the logits `[T, K]` of what was heard."""

    references: list[list[str]]
    logits: list[np.ndarray]


def references(dataset: tf.data.Dataset, assets: Assets) -> Iterator[list[str]]:
    """The labels of each recording."""
    names = np.array(assets["labels"])
    for _, labels in dataset:
        yield from (names[row[row > 0]].tolist() for row in labels.numpy())


def answers(model: keras.Model, assets: Assets, dataset: tf.data.Dataset) -> Answers:
    """What was said in a split, and what the model hears."""
    shrinks = 2 ** settings_of(assets)["convolutions"]
    logits = []
    for features, _ in dataset:
        found = model.predict_on_batch(features)
        lengths = features["lengths"].numpy() // shrinks
        logits += [row[:length] for row, length in zip(found, lengths, strict=True)]
    return Answers(list(references(dataset, assets)), logits)


def figures(found: Answers, assets: Assets) -> dict:
    """The error rates of a split: greedy, and with the prefix `beam_` and `language_model_`."""
    settings = settings_of(assets)
    unit = settings["unit"]
    right = [speech.join_units(labels, unit) for labels in found.references]
    results = {"examples": len(right)}
    heard = {
        "": by_beam(found.logits, assets, width=1),
        "beam_": by_beam(found.logits, assets, settings["beam_width"]),
    }
    if assets["language_model"]:
        heard["language_model_"] = with_language_model(found.logits, assets)
    for prefix, texts in heard.items():
        rates = error_rates(right, texts, unit)
        results |= {prefix + name: value for name, value in rates.items()}
    return results


def error_rates(right: list[str], heard: list[str], unit: str) -> dict[str, float]:
    """Those of labels, words and characters, and how many transcripts are wholly right."""
    words = jiwer.wer(right, heard)
    found = {"accuracy": float(np.mean([a == b for a, b in zip(right, heard, strict=True)]))}
    if unit == "phones":
        return found | {"label_error_rate": words}
    characters = jiwer.cer(right, heard)
    labels = words if unit == "words" else characters
    return found | {
        "label_error_rate": labels,
        "word_error_rate": words,
        "character_error_rate": characters,
    }


def by_beam(logits: list[np.ndarray], assets: Assets, width: int) -> list[str]:
    """The best transcripts that a beam of this width finds; of one, the greedy ones."""
    names, unit = np.array(assets["labels"]), settings_of(assets)["unit"]
    search = tf.function(
        lambda logits, frames: layers.ctc_beam_search(logits, frames, beam_width=width).labels,
        input_signature=[
            tf.TensorSpec([None, None, len(names)], tf.float32),
            tf.TensorSpec([None], tf.int32),
        ],
    )
    found = []
    for begin in range(0, len(logits), 32):
        rows = logits[begin : begin + 32]
        frames = np.array([len(row) for row in rows], "int32")
        padded = np.zeros((len(rows), max(1, *frames, 1), len(names)), "float32")
        for k, row in enumerate(rows):
            padded[k, : len(row)] = row
        if width == 1:
            labels = ops.convert_to_numpy(layers.ctc_greedy(padded, frames).labels)
        else:
            labels = search(padded, frames).numpy()[:, 0]
        found += [speech.join_units(names[row[row >= 0]], unit) for row in labels]
    return found


def with_language_model(logits: list[np.ndarray], assets: Assets) -> list[str]:
    """The best transcripts by a beam search with the language model and the hot words."""
    settings = settings_of(assets)
    unit = settings["unit"]
    lines = assets["language_model"]
    model = layers.NGramLanguageModel.from_lines(lines) if lines else None
    pieces = assets["labels"] if unit == "characters" else [f"{x} " for x in assets["labels"]]
    found = []
    for row in logits:
        [(text, _)] = layers.ctc_beam_search_with_language_model(
            row,
            pieces,
            model,
            language_model_weight=settings["lm_weight"],
            insertion_bonus=settings["word_bonus"],
            hot_words=read_hot_words(settings["hot_words"]),
            beam_width=settings["beam_width"],
        )
        found.append(text.strip())
    return found


def language_model_lines(config, texts: list[str], lexicon: dict) -> list[str]:
    """An ARPA file's lines: those of the file given, or of a model made of the transcripts.

    Raises:
        DataError: if the file is not of the format.
    """
    if not config.language_model:
        words = (text.split() for text in texts)
        if config.unit == "phones":
            words = (speech.split_units(text, "phones", lexicon) for text in texts)
        return layers.NGramLanguageModel.from_texts(words, config.order).to_arpa()
    try:
        layers.NGramLanguageModel.from_arpa(config.language_model)
        return Path(config.language_model).read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"--language-model={config.language_model}: {error}") from None


def read_hot_words(given: str) -> dict[str, float]:
    """`"word=2.0,other=1.5"` as a dictionary.

    Raises:
        ValueError: if it is not of that form.
    """
    found = {}
    for part in filter(None, given.split(",")):
        word, equals, bonus = part.partition("=")
        try:
            found[word.strip()] = float(bonus)
        except ValueError:
            equals = ""
        if not equals or not word.strip():
            raise ValueError(f"hot_words must be word=bonus,word=bonus, got {given!r}.")
    return found


def alignments(right: list[str], heard: list[str]) -> str:
    """A right and a wrong utterance, word below word, and the most frequent mistakes."""
    same = [k for k, text in enumerate(right) if text == heard[k]][:1]
    other = [k for k, text in enumerate(right) if text != heard[k]]
    wrong = sorted(other, key=lambda k: len(right[k]))[len(other) // 2 :][:1]
    parts = []
    for k in same + wrong:
        found = jiwer.process_words([right[k]], [heard[k]])
        shown = jiwer.visualize_alignment(found, show_measures=False, skip_correct=False)
        heading = "right" if right[k] == heard[k] else "wrong"
        parts.append(shown.replace("SENTENCE 1", heading))
    mistakes = jiwer.process_words(right, heard)
    return "\n".join([*parts, jiwer.visualize_error_counts(mistakes)])


def picture(logits: np.ndarray, said: list[str], assets: Assets, seconds: float, path: Path):
    """Draws the probabilities of an utterance's labels over time: spikes, and blanks between."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    probabilities = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
    times = np.arange(len(logits)) * seconds
    figure, axes = pyplot.subplots(figsize=(10, 3))
    axes.plot(times, probabilities[:, 0], color="lightgray", label="blank")
    for label in dict.fromkeys(said):
        shown = label if label.strip() else "space"
        axes.plot(times, probabilities[:, assets["labels"].index(label)], label=shown)
    axes.set(xlabel="seconds", ylabel="probability", title=repr(" ".join(said)))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main(folder: str, split: str = "--split=test") -> None:
    """Writes the alignments and the picture."""
    from unroll.apps.core.evaluation import load_model, split_of
    from unroll.apps.core.runs import Run
    from unroll.apps.speech_ctc import app, serving

    run = Run(Path(folder))
    model, config, assets = load_model(app, run)
    data = app.load(config, assets)
    found = answers(model, assets, split_of(data, split.removeprefix("--split="), config.data))
    right = [speech.join_units(labels, config.unit) for labels in found.references]
    text = alignments(right, by_beam(found.logits, assets, width=1))
    (run.path / "alignments.txt").write_text(text + "\n")
    longest = max(range(len(right)), key=lambda k: (len(found.references[k]) < 12, len(right[k])))
    seconds = serving.seconds_a_frame(settings_of(assets))
    said = found.references[longest]
    picture(found.logits[longest], said, assets, seconds, run.path / "spikes.png")
    print(text)
    print(f"written to {run.path}/alignments.txt and {run.path}/spikes.png")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("usage: unroll speech_ctc report RUN [--split=test]")
    main(*sys.argv[1:])
