"""Two small translation tasks for attention and beam search.

- Reversing a string: the decoder learns an anti-diagonal alignment.
- Numbers in words to digits, "four hundred two" to 402: beam search is better than greedy search.

    python benchmarks/demonstrations.py        # about a minute

Prints the figures on unseen examples and writes them to `benchmarks/results/demonstrations.md`, and
a plot of the alignments to `demonstrations.png`.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

import keras
import numpy as np
from keras import ops
from measuring import table

from unroll import layers

RESULTS = Path(__file__).parent / "results"
PAD, START, END = 0, 1, 2
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


@dataclass(frozen=True)
class Pairs:
    """Sequences and their translations, as lists of tokens."""

    source: list[list[str]]
    target: list[list[str]]

    def split(self, count: int) -> tuple["Pairs", "Pairs"]:
        """The first `count` pairs, and the rest."""
        return (
            Pairs(self.source[:count], self.target[:count]),
            Pairs(self.source[count:], self.target[count:]),
        )


def reversals(count: int, seed: int = 1) -> Pairs:
    """Strings of 4 to 9 letters out of ten, and the same backwards."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 10, count)
    source = [[*map(str, rng.choice(list("abcdefghij"), n))] for n in lengths]
    return Pairs(source, [row[::-1] for row in source])


def numbers(count: int, seed: int = 1) -> Pairs:
    """Different numbers below a million, in words and in digits."""
    rng = np.random.default_rng(seed)
    found = rng.permutation(1_000_000)[:count]
    return Pairs([in_words(int(n)) for n in found], [list(str(n)) for n in found])


def in_words(n: int) -> list[str]:
    """English words of a number below a million.

    >>> " ".join(in_words(17_402))
    'seventeen thousand four hundred two'
    """
    if n < 20:
        return [ONES[n]]
    for unit, word in ((1000, "thousand"), (100, "hundred")):
        if n >= unit:
            return [*in_words(n // unit), word, *(in_words(n % unit) if n % unit else [])]
    return [TENS[n // 10 - 2], *([ONES[n % 10]] if n % 10 else [])]


class Translator:
    """An encoder in both directions and a decoder with additive attention."""

    def __init__(self, pairs: Pairs, units: int, seed: int = 1):
        keras.utils.set_random_seed(seed)
        self.words = [
            sorted({w for row in side for w in row}) for side in (pairs.source, pairs.target)
        ]
        self.ids = [{w: k for k, w in enumerate(words, start=3)} for words in self.words]
        self.length = max(map(len, pairs.target)) + 1
        sizes = [len(words) + 3 for words in self.words]
        source = keras.Input((None,), dtype="int32")
        given = keras.Input((None,), dtype="int32")
        mask = ops.not_equal(source, PAD)
        x = keras.layers.Embedding(sizes[0], units)(source)
        encoder = keras.layers.Bidirectional(layers.LSTM(units // 2, return_sequences=True))
        memory = encoder(x, mask=mask)
        self.decoder = layers.AttentionDecoder(
            sizes[1],
            units,
            [layers.ContextLSTMCell(units, context_size=units)],
            layers.BahdanauAttention(units),
        )
        logits, _ = self.decoder(given, memory, memory_mask=mask)
        self.model = keras.Model([source, given], logits)
        self.encoder = keras.Model(source, memory)

    def encode(self, rows: list[list[str]], side: int) -> np.ndarray:
        """Ids `[B, length]`, filled up with PAD."""
        ids = [[self.ids[side][w] for w in row] for row in rows]
        longest = max(map(len, ids))
        return np.array([row + [PAD] * (longest - len(row)) for row in ids])

    def train(self, pairs: Pairs, epochs: int, batch_size: int = 64, rate: float = 5e-3):
        source, target = self.encode(pairs.source, 0), self.encode(pairs.target, 1)
        edge = np.zeros((len(target), 1), int)
        given = np.concatenate([edge + START, target], axis=1)
        wanted = np.concatenate([target, edge], axis=1)
        wanted[np.arange(len(target)), (target > PAD).sum(axis=1)] = END
        self.model.compile(
            keras.optimizers.Adam(rate, global_clipnorm=1.0),
            keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight"
            ),
        )
        weights = (wanted > PAD).astype("float32")
        self.model.fit(
            [source, given],
            wanted,
            sample_weight=weights,
            epochs=epochs,
            batch_size=batch_size,
            verbose=0,
        )

    def translate(self, rows: list[list[str]], search=layers.greedy, **options):
        """The translations, and the alignment of each, `[steps, positions]`."""
        source = ops.convert_to_tensor(self.encode(rows, 0), dtype="int32")
        memory, mask = self.encoder(source), ops.not_equal(source, PAD)
        found = search(
            self.decoder.step_function(memory, mask),
            self.decoder.initial_states(memory),
            start=START,
            end=END,
            max_length=self.length,
            **options,
        )
        if search is layers.beam_search:
            found = type(found)(*(x[:, 0] for x in found))  # the best one
        tokens, lengths, alignments = (
            ops.convert_to_numpy(x) for x in (found.tokens, found.lengths, found.alignments)
        )
        texts = [
            ["".join(self.words[1][k - 3 : k - 2]) for k in row[:n]]
            for row, n in zip(tokens, lengths, strict=True)
        ]
        return texts, [
            a[:n, : len(row)] for a, n, row in zip(alignments, lengths, rows, strict=True)
        ]


def right(found: list, wanted: list) -> float:
    """The fraction of correct translations."""
    return float(np.mean([a == b for a, b in zip(found, wanted, strict=True)]))


def reverse(examples: int = 4000, epochs: int = 8, units: int = 64) -> tuple[float, float, list]:
    """Reversing: accuracy, and the fraction of steps that attend most to the mirrored position."""
    train, test = reversals(examples + 200).split(examples)
    translator = Translator(train, units)
    translator.train(train, epochs)
    found, alignments = translator.translate(test.source)
    mirrored = [
        a.argmax(axis=1) == np.arange(len(a))[::-1] for a in alignments if a.shape[0] == a.shape[1]
    ]
    plots = [(s, f, a) for s, f, a in zip(test.source, found, alignments, strict=True)][:2]
    return right(found, test.target), float(np.concatenate(mirrored).mean()), plots


def count(
    examples: int = 2000, epochs: int = 6, units: int = 32, seed: int = 1
) -> tuple[float, float, list]:
    """Numbers: the accuracy of greedy search, and of beam search with a width of five.

    The network is small and trained briefly, so that it is uncertain of the digits.
    """
    train, test = numbers(examples + 1000, seed).split(examples)
    translator = Translator(train, units, seed)
    translator.train(train, epochs)
    greedy, alignments = translator.translate(test.source)
    beam, _ = translator.translate(test.source, layers.beam_search, beam_width=5)
    plots = [(s, f, a) for s, f, a in zip(test.source, greedy, alignments, strict=True)][:2]
    return right(greedy, test.target), right(beam, test.target), plots


def plot(plots: list, path: Path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(1, len(plots), figsize=(4 * len(plots), 4))
    for axes, (source, target, alignment) in zip(grid, plots, strict=True):
        axes.imshow(alignment, cmap="Greys", vmin=0, vmax=1)
        axes.set_xticks(
            range(len(source)), source, rotation=90 if len(max(source, key=len)) > 1 else 0
        )
        axes.set_yticks(range(len(target)), target)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main():
    strings, mirrored, reversed_plots = reverse()
    counted = [count(seed=seed) for seed in (1, 2, 3)]
    by_greedy, by_beam = (" ".join(f"{run[k]:.3f}" for run in counted) for k in (0, 1))
    rows = [
        ["reversing a string", "200", "accuracy, greedy", f"{strings:.3f}"],
        ["", "", "steps with most weight on the mirrored position", f"{mirrored:.3f}"],
        ["numbers in words to digits", "1,000", "accuracy, greedy, three seeds", by_greedy],
        ["", "", "accuracy, beam width 5, three seeds", by_beam],
    ]
    lines = [
        "## Two small translation tasks",
        "",
        *table(["task", "unseen examples", "measure", "result"], rows),
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "demonstrations.md").write_text("\n".join(lines) + "\n")
    plot(reversed_plots + counted[0][2], RESULTS / "demonstrations.png")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
