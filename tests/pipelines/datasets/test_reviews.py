"""The generated reviews: the label depends on word order, and the test split is unseen."""

import hashlib
import re
from collections import Counter

import numpy as np
import pytest
from scipy import sparse

from unroll.pipelines.datasets.sentiment.reviews import SIZES, Reviews, generate


@pytest.fixture(scope="module")
def reviews():
    return generate()


def words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())


def bag(text: str, order: int) -> set[str]:
    """The n-grams of a text, up to `order`."""
    tokens = words(text)
    return {
        " ".join(tokens[i : i + n]) for n in range(1, order + 1) for i in range(len(tokens) - n + 1)
    }


def bag_of_words_accuracy(train, test, order: int, decay: float = 1e-3) -> float:
    """The accuracy of logistic regression, trained with gradient descent and momentum."""
    columns = {
        word: i for i, word in enumerate(sorted(set.union(*(bag(t, order) for t, _ in train))))
    }

    def counts(rows):
        x = sparse.lil_matrix((len(rows), len(columns) + 1), dtype=np.float32)
        x[:, -1] = 1  # bias
        for i, (text, _) in enumerate(rows):
            x[i, [columns[word] for word in bag(text, order) if word in columns]] = 1
        return x.tocsr(), np.array([label for _, label in rows], np.float32)

    x, y = counts(train)
    weights, step = np.zeros(x.shape[1], np.float32), np.zeros(x.shape[1], np.float32)
    for _ in range(150):
        predicted = 1 / (1 + np.exp(-x @ weights))
        step = 0.9 * step - 0.3 * (x.T @ (predicted - y) / len(y) + decay * weights)
        weights += step
    x, y = counts(test)
    return float(((x @ weights > 0) == y).mean())


def test_sizes_labels_and_lengths(reviews):
    assert {split: len(rows) for split, rows in reviews.items()} == SIZES
    for rows in reviews.values():
        assert Counter(label for _, label in rows) == {0: len(rows) // 2, 1: len(rows) // 2}
        lengths = [len(words(text)) for text, _ in rows]
        assert min(lengths) >= 5
        assert max(lengths) <= 40


def test_no_review_occurs_twice(reviews):
    texts = [" ".join(words(text)) for rows in reviews.values() for text, _ in rows]
    assert len(set(texts)) == len(texts)


def test_deterministic_in_the_seed_and_the_size(reviews):
    sizes = {"train": 40, "valid": 10, "test": 10}
    small = generate(sizes)
    assert generate(sizes) == small
    assert generate(sizes, seed=2) != small
    assert small["train"] == reviews["train"][:40]


def test_version_changes_with_the_texts(reviews):
    """If this fails, the texts have changed: increase `VERSION`, or prepared ones are read."""
    digest = hashlib.sha256(repr(reviews).encode()).hexdigest()[:12]
    assert (str(Reviews.VERSION), digest) == ("1.1.0", "5afd48dfbfac")


@pytest.mark.parametrize(("order", "limit"), [(1, 0.60), (2, 0.70)])
def test_bag_of_words_fails(order, limit, reviews):
    assert 0.4 < bag_of_words_accuracy(reviews["train"], reviews["test"], order) < limit


def test_bag_of_words_learns_labels_that_depend_on_words(reviews):
    """The baseline fails on the reviews, but not because it cannot learn."""
    rows = {
        split: [(text, int("but" in words(text))) for text, _ in reviews[split][:1000]]
        for split in ("train", "test")
    }
    assert bag_of_words_accuracy(rows["train"], rows["test"], 1) > 0.99


def test_words_are_seen_and_their_combinations_are_not(reviews):
    vocabulary = {
        split: Counter(w for t, _ in rows for w in words(t)) for split, rows in reviews.items()
    }
    new = set(vocabulary["test"]) - set(vocabulary["train"])
    assert new == {"lasagne", "dumplings", "receptionist", "soundtrack", "balcony", "charger"}
    # A noun and an adjective in an affirmed clause.
    plain = re.compile(
        r"\bthe (\w+) (?:was|were|seemed) (?:(?:very|really|truly|quite|absolutely) )?(\w+)"
    )
    pairs = {
        split: {p for text, _ in rows for p in plain.findall(text.lower())}
        for split, rows in reviews.items()
    }
    helpers = {"not", "never", "hardly", "far", "anything", "half"}
    known = {pair for pair in pairs["train"] if pair[1] not in helpers}
    unseen = {pair for pair in pairs["test"] if pair[1] not in helpers}
    assert len(known) > 300
    assert len(unseen) > 100
    assert not known & unseen


POSITIVE = set(
    "good great excellent wonderful superb impressive pleasant perfect tasty fresh delicious "
    "hearty friendly helpful attentive fast gripping moving funny clever clean quiet cosy spacious "
    "reliable sturdy sharp smooth".split()
)
NEGATIVE = set(
    "bad poor awful terrible dreadful disappointing unpleasant horrible bland stale greasy "
    "tasteless rude careless unfriendly slow boring silly clumsy predictable dirty noisy shabby "
    "cramped unreliable flimsy faulty fragile".split()
)


def clause_sentiment(clause: str) -> int | None:
    tokens = set(words(clause))
    quality = 1 if tokens & POSITIVE else 0 if tokens & NEGATIVE else None
    negated = tokens & {"not", "never", "hardly", "nobody"}
    return 1 - quality if negated and quality is not None else quality


def perfect_reader(text: str) -> int:
    """Applies the rule in the docstring of `Reviews`, without the templates."""
    text = text.lower().replace("anything but", "not").replace("far from", "not")
    if match := re.search(r"(?:heard|say) that (.*), (and|but) (?:it was|they were)", text):
        claim, conjunction = match.groups()
        return clause_sentiment(claim) if conjunction == "and" else 1 - clause_sentiment(claim)
    # Unimportant and conceded clauses do not count; the clause after "but" or "however" does.
    text = re.sub(r"[^.]*, but that hardly matters", "", text)
    text = re.sub(r"(although|even though) [^,.]*", "", text)
    text = re.split(r", but |however, ", text)[-1]
    [sentiment] = {clause_sentiment(clause) for clause in re.split(r"[,.:]", text)} - {None}
    return sentiment


def test_perfect_reader_is_always_right(reviews):
    for rows in reviews.values():
        assert [text for text, label in rows if perfect_reader(text) != label] == []
