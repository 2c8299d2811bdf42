"""Modified Kneser-Ney smoothing, against the definition and a published perplexity."""

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from unroll.layers import NGramLanguageModel
from unroll.layers.structured import kneser_ney

RNG = np.random.default_rng(3)
# Word frequencies that fall like Zipf's law, so that all discounts can be estimated.
TEXTS = [
    [f"w{min(int(w), 40)}" for w in RNG.zipf(1.6, size=int(RNG.integers(1, 9)))] for _ in range(400)
]


class Oracle:
    """The definition, with dictionaries of n-grams and recursion."""

    def __init__(self, texts: list[list[str]], order: int):
        self.order = order
        padded = [["<s>", *text, "</s>"] for text in texts]
        self.raw = Counter(
            tuple(text[i : i + n])
            for text in padded
            for n in range(1, order + 1)
            for i in range(len(text) - n + 1)
        )
        before = defaultdict(set)
        for gram in self.raw:
            before[gram[1:]].add(gram[0])
        self.adjusted = {
            gram: self.raw[gram] if len(gram) == order or gram[0] == "<s>" else len(before[gram])
            for gram in self.raw
            if gram != ("<s>",)
        }
        self.words = {gram[0] for gram in self.raw if len(gram) == 1} - {"<s>"} | {"<unk>"}
        self.discounts = {n: self.estimate(n) for n in range(1, order + 1)}

    def estimate(self, n: int) -> list[float]:
        own = [a for gram, a in self.adjusted.items() if len(gram) == n]
        n1, n2, n3, n4 = (own.count(k) for k in (1, 2, 3, 4))
        if 0 in (n1, n2, n3, n4):
            return [0.5, 1.0, 1.5]
        y = n1 / (n1 + 2 * n2)
        found = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
        valid = all(0 < d <= k for k, d in enumerate(found, start=1))
        return found if valid else [0.5, 1.0, 1.5]

    def probability(self, word: str, context: tuple) -> float:
        follows = {gram[-1]: a for gram, a in self.adjusted.items() if gram[:-1] == context}
        lower = self.probability(word, context[1:]) if context else 1 / len(self.words)
        if not follows:
            return lower
        discounts = self.discounts[len(context) + 1]
        taken = {w: discounts[min(a, 3) - 1] for w, a in follows.items()}
        own = follows.get(word, 0) - taken.get(word, 0)
        return (own + sum(taken.values()) * lower) / sum(follows.values())


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("texts", [TEXTS, [["a", "b", "a"], ["b"]]], ids=["large", "small"])
def test_probabilities_are_those_of_the_definition(texts, order):
    model = NGramLanguageModel.from_texts(texts, order, smoothing="kneser_ney")
    oracle = Oracle(texts, order)
    contexts = [(), *itertools.islice((g[:-1] for g in oracle.raw if len(g) == order), 0, None, 40)]
    contexts += [("<s>",), ("never", "seen")][: 1 + (order > 2)]
    for context in contexts:
        given = context[-(order - 1) :] if order > 1 else ()
        total = 0.0
        for word in sorted(oracle.words):
            found = math.exp(model.log_probability(word, context))
            assert found == pytest.approx(oracle.probability(word, given), rel=1e-9)
            total += found
        assert total == pytest.approx(1)


def test_discounts_are_estimated_where_the_texts_allow():
    oracle = Oracle(TEXTS, 3)
    assert oracle.discounts[2] != [0.5, 1.0, 1.5]
    counts = [a for gram, a in oracle.adjusted.items() if len(gram) == 2]
    np.testing.assert_allclose(
        kneser_ney._discounts(np.array(counts)), [0, *oracle.discounts[2]], rtol=1e-12
    )
    assert kneser_ney._discounts(np.array([1, 1, 2])).tolist() == [0, 0.5, 1, 1.5]


def test_the_model_can_be_written_and_read():
    model = NGramLanguageModel.from_texts(TEXTS, 3, smoothing="kneser_ney")
    again = NGramLanguageModel.from_lines(model.to_arpa())
    for text in TEXTS[:20]:
        assert again.log_probability(text[-1], text[:-1]) == pytest.approx(
            model.log_probability(text[-1], text[:-1]), abs=1e-5
        )


def test_arguments():
    with pytest.raises(ValueError, match="smoothing must be 'witten_bell' or 'kneser_ney'"):
        NGramLanguageModel.from_texts(TEXTS, smoothing="none")
    with pytest.raises(ValueError, match="min_count must be 1 with Kneser-Ney"):
        NGramLanguageModel.from_texts(TEXTS, min_count=2, smoothing="kneser_ney")


def test_the_penn_treebank_has_the_published_perplexity(manual_dir):
    """141.2, the 5-gram KN5 of Mikolov et al. 2011, "Empirical evaluation and combination of
    advanced language modeling techniques", table 1."""

    def texts(split: str) -> list[list[str]]:
        path = manual_dir / "ptb" / f"ptb.{split}.txt"
        return [line.split() for line in path.read_text().splitlines()]

    model = NGramLanguageModel.from_texts(texts("train"), 5, smoothing="kneser_ney")
    total, count = 0.0, 0
    for text in texts("test"):
        state = model.initial_state()
        for token in [*text, "</s>"]:
            log_probability, state = model.score(state, token)
            total, count = total + log_probability, count + 1
    assert count == 82_430
    assert math.exp(-total / count) == pytest.approx(141.2, abs=0.05)
