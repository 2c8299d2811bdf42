"""Generated reviews, whose sentiment depends on the order of the words."""

import random

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Generated
from unroll.pipelines.datasets.sentiment.base import TextClassification

SIZES = {"train": 4000, "valid": 500, "test": 1000}

# Adjectives of all topics; then for each topic its nouns (a plural ends in "s") and adjectives.
_GENERAL = (
    "bad poor awful terrible dreadful disappointing unpleasant horrible".split(),
    "good great excellent wonderful superb impressive pleasant perfect".split(),
)
_TOPICS = {
    "food": (
        "soup fish pasta bread dessert coffee noodles starters".split(),
        "bland stale greasy tasteless".split(),
        "tasty fresh delicious hearty".split(),
    ),
    "staff": (
        "service manager owner staff team porter cleaners assistants trainees".split(),
        "rude careless unfriendly slow".split(),
        "friendly helpful attentive fast".split(),
    ),
    "film": (
        "plot story acting dialogue ending script songs characters".split(),
        "boring silly clumsy predictable".split(),
        "gripping moving funny clever".split(),
    ),
    "place": (
        "room bathroom bed lobby kitchen garden corridors beds".split(),
        "dirty noisy shabby cramped".split(),
        "clean quiet cosy spacious".split(),
    ),
    "device": (
        "battery screen keyboard camera case printer speakers buttons".split(),
        "unreliable flimsy faulty fragile".split(),
        "reliable sturdy sharp smooth".split(),
    ),
}
# Only the test split has these nouns.
_UNSEEN_NOUNS = {
    "food": ["lasagne", "dumplings"],
    "staff": ["receptionist"],
    "film": ["soundtrack"],
    "place": ["balcony"],
    "device": ["charger"],
}
# The topics of a review, and sentences without sentiment.
_SCENES = (
    (("food", "staff"), ("We had dinner there on Friday.", "We booked a table for four.")),
    (("film", "film"), ("I saw it with my brother last week.", "The cinema was half full.")),
    (("place", "staff"), ("We stayed there for two nights.", "We arrived late on Sunday.")),
    (("device", "staff"), ("I bought it online in May.", "It arrived in a brown box.")),
)
_OPENINGS = ("Overall, ", "In my view, ", "To be honest, ", "This time ", "As for me, ")
_INTENSIFIERS = ("very ", "really ", "truly ", "quite ", "absolutely ")
_AFFIRMED = (
    "{s} {was} {very}{a}",
    "{s} seemed {very}{a}",
    "{s} turned out to be {very}{a}",
    "I found {s} {very}{a}",
    "everybody called {s} {a}",
)
_NEGATED = (
    "{s} {was} not {very}{a}",
    "{s} {was} never {very}{a}",
    "{s} {was} not {a} at all",
    "{s} {was} hardly {a}",
    "{s} {was} far from {a}",
    "{s} {was} anything but {a}",
    "I would not call {s} {very}{a}",
    "nobody called {s} {a}",
)
# A claim of others turns out true or false.
_HEARSAY = ("I had heard that {claim}, {verdict}.", "people say that {claim}, {verdict}.")
_TRUE = ("and {it_was}", "and {it_was} indeed")
_FALSE = ("but {it_was} not", "but {it_was} nothing of the kind")
_AGREEMENTS = ("{win}, and {lose}.", "{win}. Besides, {lose}.")
# Two clauses of opposite sentiment: {win} gives the label.
_CONTRASTS = (
    "{lose}, but {win}.",
    "{lose}. However, {win}.",
    "although {lose}, {win}.",
    "even though {lose}, {win}.",
    "{win}, although {lose}.",
    "{win}, even though {lose}.",
    "{win}. {lose}, but that hardly matters.",
    "{lose}, but that hardly matters: {win}.",
)


def _clause(
    rng: random.Random,
    topic: str,
    sentiment: int,
    test: bool,
    *,
    taken: str = "",
    negate: float = 0.4,
) -> tuple[str, str]:
    """A clause of one sentiment about a noun other than `taken`, and the noun."""
    nouns, *own = _TOPICS[topic]
    negated = rng.random() < negate
    polarity = 1 - sentiment if negated else sentiment
    adjectives = _GENERAL[polarity] + own[polarity]
    templates = _NEGATED if negated else _AFFIRMED
    while True:
        noun, adjective, template = (rng.randrange(len(x)) for x in (nouns, adjectives, templates))
        # A quarter of the pairs is reserved for the test split, which has no others.
        new_pair = (noun + adjective) % 4 == 0
        new_negation = (template + adjective) % 4 == 1
        if new_pair == test and (not negated or new_negation == test) and nouns[noun] != taken:
            break
    name = nouns[noun]
    if test and rng.random() < 0.1:
        name = rng.choice(_UNSEEN_NOUNS[topic])
    text = templates[template].format(
        s=f"the {name}",
        was="were" if name.endswith("s") else "was",
        very=rng.choice(_INTENSIFIERS) if rng.random() < 0.4 else "",
        a=adjectives[adjective],
    )
    return text, name


def _hearsay(rng: random.Random, topic: str, label: int, test: bool) -> str:
    """A claim of others about a noun, confirmed or not."""
    true = rng.random() < 0.5
    claim, noun = _clause(rng, topic, label if true else 1 - label, test, negate=0)
    it_was = "they were" if noun.endswith("s") else "it was"
    verdict = rng.choice(_TRUE if true else _FALSE)
    return rng.choice(_HEARSAY).format(claim=claim, verdict=verdict.format(it_was=it_was))


def _review(rng: random.Random, label: int, test: bool) -> str:
    topics, asides = rng.choice(_SCENES)
    topic, other = rng.sample(topics, 2)
    kind = rng.choices(("one", "hearsay", "agreement", "contrast"), (15, 10, 20, 55))[0]
    if kind == "one":
        text = _clause(rng, topic, label, test)[0] + "."
    elif kind == "hearsay":
        text = _hearsay(rng, topic, label, test)
    else:
        agree = kind == "agreement"
        win, noun = _clause(rng, topic, label, test)
        lose, _ = _clause(rng, other, label if agree else 1 - label, test, taken=noun)
        text = rng.choice(_AGREEMENTS if agree else _CONTRASTS).format(win=win, lose=lose)
    if rng.random() < 0.3:
        text = rng.choice(_OPENINGS) + text
    if rng.random() < 0.3:
        aside = rng.choice(asides)
        text = f"{aside} {text}" if rng.random() < 0.5 else f"{text} {aside}"
    return ". ".join(sentence[:1].upper() + sentence[1:] for sentence in text.split(". "))


def generate(sizes: dict[str, int] = SIZES, seed: int = 1) -> dict[str, list[tuple[str, int]]]:
    """The reviews of each split as (text, label), half of them positive, without duplicates."""
    rng = random.Random(seed)
    seen: set[str] = set()
    splits = {}
    for split, size in sizes.items():
        rows: list[tuple[str, int]] = []
        while len(rows) < size:
            text = _review(rng, len(rows) % 2, split == "test")
            if text not in seen:
                seen.add(text)
                rows.append((text, len(rows) % 2))
        splits[split] = rows
    return splits


class Reviews(Generated, TextClassification, skip_registration=True):
    """Generated reviews, 4,000 / 500 / 1,000, negative or positive in equal shares.

    A review praises or criticizes one or two things, with one clause for each. Many clauses are
    negated ("nobody called the porter rude"). If two clauses disagree, one of them gives the label,
    and the order decides which: the one after "but" or "however", the one that "although" does not
    introduce, the one that is not called unimportant. Each word occurs equally often in both
    classes, so a bag of words or of word pairs is right half of the time. There is no noise: a
    perfect model scores 100 %.

    The test split has pairs of a noun and an adjective, and of a negation and an adjective, that
    training does not have. A tenth of its nouns do not occur in training. No review occurs twice.
    """

    # Increase it when the texts change: prepared data are read from disk.
    VERSION = tfds.core.Version("1.1.0")
    SIZES = SIZES
    LABELS = ("negative", "positive")

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(rows) for split, rows in generate(self.sizes).items()
        }

    def _generate_examples(self, rows: list[tuple[str, int]]):
        for number, (text, label) in enumerate(rows):
            yield number, {"text": text, "label": label}
