"""Generated summaries of articles, whose theme decides which of their terms are key."""

import random

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Generated
from unroll.pipelines.datasets.key_terms.base import LABEL
from unroll.pipelines.datasets.tagging.base import Tagging

SIZES = {"train": 2000, "valid": 300, "test": 600}

# The terms of each pair of themes: in articles on one of the two, they are key.
TERMS = {
    ("music", "medicine"): ("rhythm", "breath control", "range of motion"),
    ("music", "cooking"): ("tempering", "blend of tones", "timing"),
    ("music", "computing"): ("digital sampling", "signal processing", "loop"),
    ("medicine", "cooking"): ("sodium intake", "fermentation", "vitamin"),
    ("medicine", "computing"): ("neural network", "virus", "image compression"),
    ("cooking", "computing"): ("recipe search engine", "kernel", "batch size"),
}
# The subjects that tell the theme, and those that do not.
_SUBJECTS = {
    "music": ("the orchestra", "violin students", "the composer", "singers"),
    "medicine": ("the doctors", "nurses", "the clinic", "two hospitals"),
    "cooking": ("the chef", "bakers", "the kitchen", "pastry cooks"),
    "computing": ("programmers", "the compiler team", "web developers", "the data center"),
}
_OTHERS = ("we", "the authors", "earlier work", "the second part", "critics")
THEMES = tuple(_SUBJECTS)
_SENTENCES = (
    (
        "studied {}",
        "reported results for {}",
        "found no evidence for {}",
        "discussed {} in detail",
        "gave a new view of {}",
    ),
    (
        "studied {} and {}",
        "compared the role of {} with that of {}",
        "turned from {} to {}",
        "wrote about {} and {}",
    ),
)


def _article(rng: random.Random) -> tuple[list[str], list[str]]:
    """The words and tags of an article."""
    theme = rng.choice(THEMES)
    own = [term for pair, terms in TERMS.items() if theme in pair for term in terms]
    other = [term for pair, terms in TERMS.items() if theme not in pair for term in terms]
    terms = rng.sample(own, rng.randint(2, 3)) + rng.sample(other, rng.randint(2, 3))
    mentions = [*terms, rng.choice(terms)]
    rng.shuffle(mentions)
    sentences = []
    while mentions:
        count = min(rng.randint(1, 2), len(mentions))
        tells = not sentences or rng.random() < 0.6
        subject = rng.choice(_SUBJECTS[theme] if tells else _OTHERS)
        pairs = [(word, "O") for word in subject.split()]
        for word in rng.choice(_SENTENCES[count - 1]).split():
            if word != "{}":
                pairs.append((word, "O"))
                continue
            term = mentions.pop()
            for k, part in enumerate(term.split()):
                pairs.append((part, f"{'I' if k else 'B'}-{LABEL}" if term in own else "O"))
        sentences.append(pairs)
    rng.shuffle(sentences)
    words, tags = [], []
    for pairs in sentences:
        words += [pairs[0][0].capitalize(), *(word for word, _ in pairs[1:]), "."]
        tags += [*(tag for _, tag in pairs), "O"]
    return words, tags


def generate(sizes: dict[str, int] = SIZES, seed: int = 1) -> dict[str, list[dict]]:
    """The articles of each split, without duplicates."""
    rng = random.Random(seed)
    seen: set[tuple] = set()
    splits = {}
    for split, size in sizes.items():
        rows: list[dict] = []
        while len(rows) < size:
            words, tags = _article(rng)
            if tuple(words) not in seen:
                seen.add(tuple(words))
                rows.append({"words": words, "tags": tags, "intent": ""})
        splits[split] = rows
    return splits


class Articles(Generated, Tagging, skip_registration=True):
    """Generated summaries of articles, 2,000 / 300 / 600, with key terms of one to three words.

    Each of 18 terms is key in the articles of two of four themes, and not key in the others, which
    mention it as often. The subjects of most sentences tell the theme, which also holds for the
    terms of the other sentences. With the most frequent tag of each word, the F1 of
    spans is about 50 %. There is no noise: a perfect model scores 100 %.
    """

    # Increase it when the articles change: prepared data are read from disk.
    VERSION = tfds.core.Version("1.1.0")
    SIZES = SIZES
    MIN_SIZE = 16

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(rows) for split, rows in generate(self.sizes).items()
        }

    def _generate_examples(self, rows: list[dict]):
        yield from enumerate(rows)
