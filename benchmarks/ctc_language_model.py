"""The speed of the CTC beam search with a language model, compared with pyctcdecode.

- Recordings of 5 to 40 seconds: 25 frames a second, 28 characters, and a trigram model that is
  estimated from 200,000 words. The logits are random, with a peak at the right character; in some
  frames, a wrong character is higher. `layers.ctc_beam_search_with_language_model` and pyctcdecode
  get the same logits, the same ARPA file, and the same weights. pyctcdecode runs without its
  pruning, and with its defaults. It is compared with the probabilities of the model, and with its
  default `unk_score_offset`, -10, with which it prunes prefixes that no word begins with. There,
  `layers` gets a model in which `<unk>` is as much less probable.
- The n-gram model: estimation from a million words, and reading of ARPA files.

    python benchmarks/ctc_language_model.py       # about 4 minutes

pyctcdecode is measured if it is installed. It requires NumPy below version 2 but runs with version
2: `pip install --no-deps pyctcdecode pygtrie kenlm`.

All times are CPU seconds of one core. The tables are printed, and written to
`benchmarks/results/ctc_language_model.md`.
"""

import importlib.util
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from measuring import in_a_fresh_process, resident, table

from unroll import layers

RESULTS = Path(__file__).parent / "results"
SECONDS, FRAMES_PER_SECOND = (5, 10, 20, 40), 25
RECORDINGS, BEAM_WIDTH, WEIGHT, BONUS = 5, 16, 0.5, 1.0
UNKNOWN = ("<unk>",)
CHARACTERS = ["", *" abcdefghijklmnopqrstuvwxyz"]
# How much higher than the noise, of standard deviation 1, the right characters are.
PEAKS = {"clear": 8.0, "noisy": 5.0, "very noisy": 3.5}
# How much is added to the log10 probability of an unknown word.
UNKNOWN_OFFSETS = {"as in the model": 0.0, "-10": -10.0}


def corpus(words: int, seed: int = 0) -> list[list[str]]:
    """Texts of twenty random words of a vocabulary with Zipf's frequencies.

    Each word tends to be followed by one of a few others.
    """
    rng = np.random.default_rng(seed)
    vocabulary = np.array(
        ["".join(rng.choice(CHARACTERS[2:], rng.integers(1, 9))) for _ in range(30_000)]
    )
    frequent = np.minimum(rng.zipf(1.2, words), len(vocabulary)) - 1
    follower = (7919 * np.roll(frequent, 1) + rng.integers(3, size=words)) % 5000
    ids = np.where(rng.random(words) < 0.5, follower, frequent)
    return vocabulary[ids].reshape(-1, 20).tolist()


def recording(seconds: int, peak: float, words: list[str], rng) -> tuple[np.ndarray, str]:
    """Logits `[T, K]` and the text, a character or a blank in each frame."""
    frames = seconds * FRAMES_PER_SECOND
    text = " ".join(words)[: frames // 2].rsplit(" ", 1)[0]
    labels = np.zeros(frames, int)
    labels[1 : 2 * len(text) : 2] = [CHARACTERS.index(character) for character in text]
    logits = rng.normal(size=(frames, len(CHARACTERS)))
    logits[np.arange(frames), labels] += peak
    wrong = rng.random(frames) < 0.05
    logits[wrong, rng.integers(len(CHARACTERS), size=wrong.sum())] += peak
    # No space at the end: pyctcdecode would score an empty last word, as an unknown one.
    logits[2 * len(text) - 1 :, CHARACTERS.index(" ")] = -60
    return logits, text


def cpu_seconds(function: Callable) -> tuple[float, object]:
    """The CPU time of a call, and its result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def score(text: str, logits: np.ndarray, model: layers.NGramLanguageModel) -> float:
    """The score of a text, over all of its paths."""
    words = [*text.split(), "</s>"]
    state, total = model.initial_state(), log_probability(text, logits) + BONUS * (len(words) - 1)
    for word in words:
        of_word, state = model.score(state, word)
        total += WEIGHT * of_word
    return total


def log_probability(text: str, logits: np.ndarray) -> float:
    """The log probability of a text that is not empty, over all of its paths.

    Spaces at the ends, and more than one between two words, make no difference.
    """
    size, blank, space = len(CHARACTERS), 0, 1
    either = size  # a blank or a space
    # The labels with which a path enters a state and stays there, and if it can skip a state.
    states = [(either, either, False)]
    for word in text.split():
        if len(states) > 1:
            states += [(blank, blank, False), (space, either, True)]
        before = None
        for label in map(CHARACTERS.index, word):
            if before is not None:
                states.append((blank, blank, False))
            states.append((label, label, before not in (None, label)))
            before = label
    states.append((either, either, False))
    enter, stay, skips = (np.array(column) for column in zip(*states, strict=True))
    forward = np.full(len(states) + 2, -np.inf)
    forward[2] = 0.0
    for frame in logits - np.logaddexp.reduce(logits, axis=1, keepdims=True):
        frame = np.append(frame, np.logaddexp(frame[blank], frame[space]))
        entering = np.logaddexp(forward[1:-1], np.where(skips, forward[:-2], -np.inf))
        forward[2:] = np.logaddexp(entering + frame[enter], forward[2:] + frame[stay])
    return float(np.logaddexp(forward[-1], forward[-2]))


def word_error_rate(texts: list[str], correct: list[str]) -> float:
    errors = 0
    for text, reference in zip(texts, correct, strict=True):
        found, words = text.split(), reference.split()
        row = list(range(len(words) + 1))
        for i, word in enumerate(found, start=1):
            before, row[0] = row[0], i
            for j, other in enumerate(words, start=1):
                before, row[j] = (
                    row[j],
                    min(row[j] + 1, row[j - 1] + 1, before + (word != other)),
                )
        errors += row[-1]
    return errors / sum(len(reference.split()) for reference in correct)


def decoders(path: Path, model: layers.NGramLanguageModel, offset: float) -> dict[str, Callable]:
    """Functions from logits to a text."""

    def ours(logits):
        [(text, _)] = layers.ctc_beam_search_with_language_model(
            logits,
            CHARACTERS,
            model,
            language_model_weight=WEIGHT,
            insertion_bonus=BONUS,
            beam_width=BEAM_WIDTH,
        )
        return text

    found = {"ours": ours}
    if importlib.util.find_spec("pyctcdecode") and importlib.util.find_spec("kenlm"):
        logging.disable(logging.WARNING)
        from pyctcdecode import build_ctcdecoder

        decoder = build_ctcdecoder(
            CHARACTERS,
            str(path),
            [token for (token, *more) in model.entries if not more],
            alpha=WEIGHT,
            beta=BONUS,
            unk_score_offset=offset,
        )
        exact = {"token_min_logp": -np.inf, "beam_prune_logp": -np.inf}
        for name, options in (("pyctcdecode", exact), ("pyctcdecode, its defaults", {})):
            found[name] = lambda logits, options=options: decoder.decode(
                logits, beam_width=BEAM_WIDTH, **options
            )
    return found


def search_table() -> list[str]:
    rows, texts = [], corpus(200_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.arpa"
        path.write_text("\n".join(layers.NGramLanguageModel.from_texts(texts).to_arpa()) + "\n")
        entries = layers.NGramLanguageModel.from_arpa(path).entries
        unknown, back_off = entries[UNKNOWN]
        for unknown_words, offset in UNKNOWN_OFFSETS.items():
            model = layers.NGramLanguageModel(entries | {UNKNOWN: (unknown + offset, back_off)})
            functions, rng = decoders(path, model, offset), np.random.default_rng(1)
            for name, peak in PEAKS.items():
                for seconds in SECONDS:
                    inputs = []
                    for _ in range(RECORDINGS):
                        words = [w for k in rng.integers(len(texts), size=20) for w in texts[k]]
                        inputs.append(recording(seconds, peak, words, rng))
                    name_and_length = [unknown_words, name, seconds]
                    rows += measured(functions, model, name_and_length, inputs)
    header = ["unknown words", "logits", "seconds of speech", "search", "CPU seconds"]
    header += ["word error rate", "same transcripts", "higher score", "lower score"]
    return table(header, rows)


def measured(functions, model, given: list, inputs: list) -> list[list]:
    """The rows of the table for the recordings of one length."""
    times, texts = {}, {}
    for search, function in functions.items():
        results = [cpu_seconds(lambda x=x, f=function: f(x)) for x, _ in inputs]
        times[search] = statistics.median(t for t, _ in results)
        texts[search] = [text for _, text in results]
    rows = []
    for search in functions:
        rate = word_error_rate(texts[search], [text for _, text in inputs])
        row = [*given, search, f"{times[search]:.3f}", f"{rate:.3f}"]
        if search == "ours":
            rows.append([*row, "", "", ""])
            continue
        differences = [
            score(text, x, model) - score(our_text, x, model)
            for text, our_text, (x, _) in zip(texts[search], texts["ours"], inputs, strict=True)
            if text != our_text
        ]
        higher, lower = (sum(sign * d > 0 for d in differences) for sign in (1, -1))
        rows.append([*row, len(inputs) - len(differences), higher, lower])
    return rows


def estimation() -> tuple[float, float, int]:
    """CPU seconds, MiB and n-grams of a model of a million words."""
    texts = corpus(1_000_000)
    layers.NGramLanguageModel.from_texts(texts[:10])  # memory of the libraries
    before = resident()
    seconds, model = cpu_seconds(lambda: layers.NGramLanguageModel.from_texts(texts))
    return seconds, resident() - before, len(model.entries)


def write(words: int, path: Path) -> None:
    lines = layers.NGramLanguageModel.from_texts(corpus(words)).to_arpa()
    path.write_text("\n".join(lines) + "\n")


def reading(path: Path) -> tuple[float, float, int]:
    """CPU seconds, MiB and n-grams of the model in an ARPA file."""
    before = resident()
    seconds, model = cpu_seconds(lambda: layers.NGramLanguageModel.from_arpa(path))
    return seconds, resident() - before, len(model.entries)


def model_table() -> list[str]:
    found = {"`from_texts`, 1,000,000 words, trigrams": in_a_fresh_process(estimation)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.arpa"
        for words in (60_000, 1_000_000):
            in_a_fresh_process(write, words, path)
            found[f"`from_arpa`, the model of {words:,} words"] = in_a_fresh_process(reading, path)
    rows = [
        [name, f"{ngrams:,}", f"{seconds:.2f}", f"{memory:.0f}"]
        for name, (seconds, memory, ngrams) in found.items()
    ]
    return table(["", "n-grams", "CPU seconds", "MiB of the model"], rows)


def main() -> None:
    lines = [
        "## CTC beam search with a language model",
        "",
        f"A trigram model of 200,000 words, a beam of {BEAM_WIDTH}, {FRAMES_PER_SECOND} frames a "
        f"second and {len(CHARACTERS)} labels. CPU seconds of one core, the median of {RECORDINGS} "
        f"recordings. NumPy {np.__version__}. The scores are those of the definition, over all "
        "paths. The last columns compare the transcripts with those of `ours`: how many are the "
        "same, and how many have a higher or a lower score.",
        "",
        "Why transcripts differ: without an offset, pyctcdecode does not score a word before its "
        "end. With an offset, it knows which prefixes begin a word, but not which are probable. It "
        "counts the paths of a prefix that end in a blank and in a label as two members of the "
        "beam.",
        "",
        *search_table(),
        "",
        "## The language model",
        "",
        *model_table(),
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ctc_language_model.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
