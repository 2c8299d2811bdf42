"""Generated English sentences and their German translations, with known probabilities."""

import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Generated
from unroll.pipelines.datasets.translation.base import Pairs, pair

SIZES = {"train": 12_000, "valid": 400, "test": 1_000}
_HELD_OUT = 8  # one of this number of combinations is in valid and test alone


@dataclass(frozen=True)
class _Noun:
    singular: str
    plural: str
    gender: str  # m, f or n
    german: str
    german_plural: str


@dataclass(frozen=True)
class _Verb:
    """Forms: third person singular, third person plural (the infinitive too), participle."""

    english: tuple[str, str, str]
    german: tuple[str, str, str]
    auxiliary: str = "haben"  # of the German perfect


def _nouns(table: str) -> list[_Noun]:
    return [_Noun(*line.split()) for line in table.strip().splitlines()]


def _verbs(table: str, auxiliary: str = "haben") -> list[_Verb]:
    found = []
    for line in table.strip().splitlines():
        words = line.split()
        found.append(_Verb(tuple(words[:3]), tuple(words[3:]), auxiliary))
    return found


_NOUNS = _nouns("""
    dog dogs m Hund Hunde
    man men m Mann Männer
    bird birds m Vogel Vögel
    king kings m König Könige
    cook cooks m Koch Köche
    cat cats f Katze Katzen
    woman women f Frau Frauen
    mouse mice f Maus Mäuse
    queen queens f Königin Königinnen
    nurse nurses f Pflegerin Pflegerinnen
    child children n Kind Kinder
    girl girls n Mädchen Mädchen
    horse horses n Pferd Pferde
    animal animals n Tier Tiere
""")
_ADJECTIVES = {
    "old": "alt", "small": "klein", "young": "jung", "clever": "klug", "poor": "arm",
    "quick": "schnell", "rich": "reich", "strong": "stark",
}  # fmt: skip
_TRANSITIVE = _verbs("""
    sees see seen sieht sehen gesehen
    finds find found findet finden gefunden
    calls call called ruft rufen gerufen
    seeks seek sought sucht suchen gesucht
    hears hear heard hört hören gehört
    knows know known kennt kennen gekannt
    loves love loved liebt lieben geliebt
    catches catch caught fängt fangen gefangen
""")
_INTRANSITIVE = [
    *_verbs("""
        sleeps sleep slept schläft schlafen geschlafen
        laughs laugh laughed lacht lachen gelacht
        sings sing sung singt singen gesungen
        works work worked arbeitet arbeiten gearbeitet
    """),
    *_verbs(
        """
        goes go gone geht gehen gegangen
        comes come come kommt kommen gekommen
        falls fall fallen fällt fallen gefallen
        runs run run läuft laufen gelaufen
        """,
        "sein",
    ),
]
_AUXILIARIES = {"haben": ("hat", "haben"), "sein": ("ist", "sind")}
_MODALS = [("can", "kann", "können"), ("must", "muss", "müssen"), ("may", "darf", "dürfen")]
_SPEECH = [
    _Verb(("says", "say", ""), ("sagt", "sagen", "")),
    _Verb(("thinks", "think", ""), ("denkt", "denken", "")),
    _Verb(("hopes", "hope", ""), ("hofft", "hoffen", "")),
]
_ADVERBS = {"today": "heute", "here": "hier", "again": "wieder", "now": "jetzt"}
# Adverbs of several translations with their probabilities. The most probable one does not begin
# with the most probable word, which begins the three others.
AMBIGUOUS = {
    "soon": {"bald": 0.4, "in Kürze": 0.2, "in Bälde": 0.2, "in wenigen Tagen": 0.2},
    "often": {"oft": 0.4, "immer wieder": 0.2, "immer öfter": 0.2, "immer noch einmal": 0.2},
    "suddenly": {
        "plötzlich": 0.4, "auf einmal": 0.2, "auf einen Schlag": 0.2, "auf der Stelle": 0.2,
    },
}  # fmt: skip
# By gender, or p for the plural: nominative, accusative.
_THE = {"m": ("der", "den"), "f": ("die", "die"), "n": ("das", "das"), "p": ("die", "die")}
_ENDINGS = {"m": ("er", "en"), "f": ("e", "e"), "n": ("es", "es"), "p": ("e", "e")}
_A = {"m": ("ein", "einen"), "f": ("eine", "eine"), "n": ("ein", "ein"), "p": ("einige", "einige")}
_EVERY = {"m": ("jeder", "jeden"), "f": ("jede", "jede"), "n": ("jedes", "jedes")}


@dataclass
class _Sentence:
    """A sentence while it is generated: random choices, and the combinations of words in it."""

    rng: random.Random
    combinations: set[tuple[str, str]]
    ambiguous: str = ""  # its adverb of several translations, once it has one


def _noun_phrase(s: _Sentence, case: int, depth: int, verb: str = "") -> tuple[str, str, bool]:
    """English, German, and whether it is plural. `case` is 0 for a subject and 1 for an object."""
    noun, plural = s.rng.choice(_NOUNS), s.rng.random() < 0.4
    gender = "p" if plural else noun.gender
    kind = s.rng.choice(("the", "the", "a") if plural else ("the", "a", "every"))
    english = ["some" if kind == "a" and plural else kind]
    german = [{"the": _THE, "a": _A, "every": _EVERY}[kind][gender][case]]
    if s.rng.random() < 0.5:
        adjective = s.rng.choice(list(_ADJECTIVES))
        s.combinations.add((adjective, noun.singular))
        if english[0] == "a" and adjective == "old":
            english[0] = "an"
        english.append(adjective)
        german.append(_ADJECTIVES[adjective] + _ending(kind, gender, case))
    elif english[0] == "a" and noun.singular == "animal":
        english[0] = "an"
    if verb:
        s.combinations.add((verb, noun.singular))
    english.append(noun.plural if plural else noun.singular)
    german.append(noun.german_plural if plural else noun.german)
    if depth and s.rng.random() < 0.25:
        clause = _relative_clause(s, gender, plural, depth - 1)
        english.append(clause[0])
        german.append(f", {clause[1]} ,")
    return " ".join(english), " ".join(german), plural


def _ending(kind: str, gender: str, case: int) -> str:
    """Of an adjective: strong after `ein` and `einige`, otherwise weak."""
    if kind == "a":
        return _ENDINGS[gender][case]
    return "en" if gender == "p" or (gender == "m" and case) else "e"


def _relative_clause(s: _Sentence, gender: str, plural: bool, depth: int) -> tuple[str, str]:
    verb = s.rng.choice(_TRANSITIVE)
    if s.rng.random() < 0.5:  # the noun is the subject
        english, german, _ = _noun_phrase(s, 1, depth, verb.english[1])
        finite, end = verb.english[plural], verb.german[plural]
        return f"that {finite} {english}", f"{_THE[gender][0]} {german} {end}"
    english, german, several = _noun_phrase(s, 0, depth)
    return (
        f"that {english} {verb.english[several]}",
        f"{_THE[gender][1]} {german} {verb.german[several]}",
    )


def _predicate(s: _Sentence, plural: bool) -> tuple[list[str], str, str, bool]:
    """The English words, the German finite verb, its last part, and whether there is an object."""
    has_object = s.rng.random() < 0.6
    verb = s.rng.choice(_TRANSITIVE if has_object else _INTRANSITIVE)
    tense = s.rng.random()
    if tense < 0.4:
        return [verb.english[plural], verb.english[1]], verb.german[plural], "", has_object
    if tense < 0.75:
        english = [f"{'have' if plural else 'has'} {verb.english[2]}", verb.english[1]]
        return english, _AUXILIARIES[verb.auxiliary][plural], verb.german[2], has_object
    modal, *german = s.rng.choice(_MODALS)
    english = [f"{modal} {verb.english[1]}", verb.english[1]]
    return english, german[plural], verb.german[1], has_object


def _adverb(s: _Sentence) -> tuple[str, str]:
    """English and German, both empty for none. An ambiguous one is filled in later."""
    chance = s.rng.random()
    if chance < 0.25 and not s.ambiguous:
        s.ambiguous = s.rng.choice(list(AMBIGUOUS))
        return s.ambiguous, "{}"
    if chance < 0.5:
        return s.rng.choice(list(_ADVERBS.items()))
    return "", ""


def _clause(s: _Sentence, subordinate: bool, depth: int) -> tuple[str, str]:
    """A clause. The German verb is second, or last in a subordinate clause."""
    subject, german_subject, plural = _noun_phrase(s, 0, depth)
    (english, verb), finite, last, has_object = _predicate(s, plural)
    patient = german_patient = ""
    if has_object:
        patient, german_patient, _ = _noun_phrase(s, 1, depth, verb)
    adverb, german_adverb = _adverb(s)
    if subordinate:
        german = [german_subject, german_adverb, german_patient, last, finite]
    elif adverb and s.rng.random() < 0.3:  # the adverb is first
        english_words = [adverb, subject, english, patient]
        german = [german_adverb, finite, german_subject, german_patient, last]
        return _joined(english_words), _joined(german)
    else:
        german = [german_subject, finite, german_adverb, german_patient, last]
    return _joined([subject, english, patient, adverb]), _joined(german)


def _joined(parts: list[str]) -> str:
    return " ".join(filter(None, parts))


def sample(rng: random.Random) -> tuple[str, dict[str, float], set[tuple[str, str]]]:
    """A random sentence, its translations with their probabilities, and its combinations.

    The combinations are those of adjectives and nouns, and of verbs and their objects.
    """
    s = _Sentence(rng, set())
    if rng.random() < 0.2:
        subject, german_subject, plural = _noun_phrase(s, 0, 0)
        verb = rng.choice(_SPEECH)
        english, german = _clause(s, subordinate=True, depth=0)
        english = f"{subject} {verb.english[plural]} that {english}"
        german = f"{german_subject} {verb.german[plural]} , dass {german}"
    else:
        english, german = _clause(s, subordinate=False, depth=1)
    choices = AMBIGUOUS.get(s.ambiguous, {"": 1.0})
    translations = {_written(german.format(own)): p for own, p in choices.items()}
    return _written(english), translations, s.combinations


def _written(words: str) -> str:
    """Words as a sentence, with a capital and a period. A comma before the period is none."""
    text = words.replace(" ,", ",").replace(",,", ",").rstrip(",")
    return f"{text[0].upper()}{text[1:]}."


def is_held_out(combination: tuple[str, str]) -> bool:
    """Whether a combination of words is in the validation and test splits alone."""
    return hashlib.sha256(" ".join(combination).encode()).digest()[0] % _HELD_OUT == 0


def combinations() -> list[tuple[str, str]]:
    """All combinations of adjectives and nouns, and of verbs and their objects."""
    first = [*_ADJECTIVES, *(verb.english[1] for verb in _TRANSITIVE)]
    return list(product(first, (noun.singular for noun in _NOUNS)))


def has_garden_path(source: str) -> bool:
    """Whether greedy search with the true probabilities misses the most probable translation.

    >>> has_garden_path("Soon the dog comes.")
    True
    """
    return not AMBIGUOUS.keys().isdisjoint(source.lower().rstrip(".").split())


def perfect_scores(sources: Iterable[str]) -> dict[str, float]:
    """The shares in percent that a model with the true probabilities gets right on "test".

    With `greedy` and with `exact` search; a beam of two is exact.
    """
    greedy = [not has_garden_path(source) for source in sources]
    return {"greedy": 100 * sum(greedy) / len(greedy), "exact": 100.0}


class Phrases(Generated, Pairs, skip_registration=True):
    """Generated English sentences with German translations, 12,000 / 400 / 1,000.

        The old dogs that a girl calls have caught some mice.
        Die alten Hunde, die ein Mädchen ruft, haben einige Mäuse gefangen.

    A synchronous grammar: articles, adjectives, relative pronouns and verbs agree in gender, case
    and number; verbs are last in subordinate clauses, participles and infinitives in all; the
    second word of a clause (`hat`, `ist`) depends on the last. Each sentence of "valid" and "test"
    has at least one combination of an adjective with its noun, or of a verb with its object, that
    "train" does not have.

    Of three adverbs there are four translations (`AMBIGUOUS`): `soon` is `bald` with a probability
    of 0.4, and begins with `in` with 0.6, but no longer translation has more than 0.2. So greedy
    search misses the most probable translation, and beam search finds it. "train" has translations
    at random, "valid" and "test" the most probable one. A perfect model scores 100 % with beam
    search; `perfect_scores` has its score with greedy search, 76.1 % on "test".
    """

    # Increase it when the sentences change: prepared data are read from disk.
    VERSION = tfds.core.Version("1.0.0")
    SIZES = SIZES
    MIN_SIZE = 16

    def _split_generators(self, dl_manager):
        return {split: self._pairs(split) for split in self.sizes}

    def _pairs(self, split: str):
        yield from self._generate_examples(pair(*row) for row in pairs(split, self.sizes[split]))


def pairs(split: str, count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """The sentences and translations of a split, without duplicates."""
    rng = random.Random(f"{split} {seed}")
    seen: set[str] = set()
    while len(seen) < count:
        source, translations, own = sample(rng)
        if source in seen or any(map(is_held_out, own)) == (split == "train"):
            continue
        seen.add(source)
        if split == "train":
            [target] = rng.choices(list(translations), list(translations.values()))
        else:
            target = max(translations, key=translations.get)
        yield source, target
