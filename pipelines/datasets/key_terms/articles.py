"""Generated summaries of articles, whose theme decides which of their terms are key."""

import random

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Generated
from unroll.pipelines.datasets.key_terms.base import LABEL
from unroll.pipelines.datasets.tagging.base import Tagging

SIZES = {"train": 2000, "valid": 300, "test": 600}

# The terms of each pair of themes: in articles on one of the two, they are key.
TERMS = {
    ("music", "medicine"): ("rhythm", "breath control"),
    ("music", "astronomy"): ("resonance", "harmonic motion"),
    ("music", "cooking"): ("tempering", "blend of tones"),
    ("music", "finance"): ("royalty rate", "scale"),
    ("music", "computing"): ("digital sampling", "signal processing"),
    ("medicine", "astronomy"): ("radiation dose", "spectral imaging"),
    ("medicine", "cooking"): ("sodium intake", "fermentation"),
    ("medicine", "finance"): ("insurance claim", "risk factor"),
    ("medicine", "computing"): ("neural network", "virus"),
    ("astronomy", "cooking"): ("heat transfer", "salt crystal"),
    ("astronomy", "finance"): ("cycle length", "long term forecast"),
    ("astronomy", "computing"): ("image compression", "cloud"),
    ("cooking", "finance"): ("price of wheat", "market share"),
    ("cooking", "computing"): ("recipe search engine", "kernel"),
    ("finance", "computing"): ("portfolio optimization", "ledger"),
}
# What tells the theme.
_CONTEXTS = {
    "music": (
        "the orchestra rehearsed it twice",
        "violin students took part",
        "it was played at a concert",
        "the composer left some notes",
        "singers know this well",
    ),
    "medicine": (
        "the patients gave their consent",
        "nurses wrote down the symptoms",
        "it was tried in two hospitals",
        "the doctors were not told",
        "a clinic took part",
    ),
    "astronomy": (
        "the telescope was out of order",
        "two planets were observed",
        "the night sky was clear",
        "a comet passed by",
        "galaxies of all ages were chosen",
    ),
    "cooking": (
        "the chef tasted it twice",
        "the oven was not cleaned",
        "a kitchen in the old town took part",
        "the soup was served cold",
        "bakers know this well",
    ),
    "finance": (
        "the bank gave its figures",
        "investors took part",
        "the shares fell in spring",
        "brokers know this well",
        "it was paid in bonds",
    ),
    "computing": (
        "the source code is public",
        "programmers took part",
        "it ran on a laptop",
        "the compiler gave a warning",
        "servers in two towns were used",
    ),
}
THEMES = tuple(_CONTEXTS)
# The words around a term say nothing about it.
_SENTENCES = (
    (
        "we study {}",
        "a new view of {} is given",
        "results for {} are reported",
        "the second part deals with {}",
        "no evidence for {} was found",
        "a survey of {} follows",
    ),
    (
        "we study {} and {}",
        "the role of {} is compared with that of {}",
        "earlier work on {} did not consider {}",
        "{} and {} are discussed in detail",
        "we turn from {} to {}",
    ),
)


def _article(rng: random.Random) -> tuple[list[str], list[str]]:
    """The words and tags of an article."""
    theme = rng.choice(THEMES)
    own = [term for pair, terms in TERMS.items() if theme in pair for term in terms]
    other = [term for pair, terms in TERMS.items() if theme not in pair for term in terms]
    terms = rng.sample(own, rng.randint(2, 4)) + rng.sample(other, rng.randint(2, 4))
    mentions = terms + rng.sample(terms, 2)
    rng.shuffle(mentions)
    sentences = []
    while mentions:
        count = min(rng.randint(1, 2), len(mentions))
        words = rng.choice(_SENTENCES[count - 1]).split()
        pairs = []
        for word in words:
            if word != "{}":
                pairs.append((word, "O"))
                continue
            term = mentions.pop()
            for k, part in enumerate(term.split()):
                pairs.append((part, f"{'I' if k else 'B'}-{LABEL}" if term in own else "O"))
        sentences.append(pairs)
    for context in rng.sample(_CONTEXTS[theme], rng.randint(1, 2)):
        pairs = [(word, "O") for word in context.split()]
        sentences.insert(rng.randint(0, len(sentences)), pairs)
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

    Each of 30 terms is key in the articles of two of six themes, and not key in the others, which
    mention it as often. One or two sentences anywhere in the summary tell the theme. The words
    around a term do not tell whether it is key: with the most frequent tag of each word, the F1 of
    spans is about 35 %. There is no noise: a perfect model scores 100 %.
    """

    # Increase it when the articles change: prepared data are read from disk.
    VERSION = tfds.core.Version("1.0.0")
    SIZES = SIZES
    MIN_SIZE = 16

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(rows) for split, rows in generate(self.sizes).items()
        }

    def _generate_examples(self, rows: list[dict]):
        yield from enumerate(rows)
