"""Sentences about a small world in which the right analogies are known."""

import itertools
import random

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Generated
from unroll.pipelines.datasets.language.base import PlainText

SIZES = {"train": 1_000, "valid": 30, "test": 60}
SENTENCES = 25  # of a piece

# Each row is a thing: its names in each role, and two words that belong to it alone.
_COUNTRIES = """
france paris french|seine croissant
italy rome italian|tiber risotto
spain madrid spanish|manzanares paella
germany berlin german|spree pretzel
greece athens greek|aegean moussaka
egypt cairo egyptian|nile pyramid
japan tokyo japanese|sumida sushi
china beijing chinese|yangtze dumpling
russia moscow russian|volga borscht
england london english|thames pudding
ireland dublin irish|liffey stew
sweden stockholm swedish|malaren meatball
norway oslo norwegian|fjord salmon
finland helsinki finnish|sauna reindeer
poland warsaw polish|vistula pierogi
hungary budapest hungarian|danube goulash
portugal lisbon portuguese|tagus cod
turkey ankara turkish|bosporus kebab
india delhi indian|ganges curry
thailand bangkok thai|mekong noodle
peru lima peruvian|andes llama
cuba havana cuban|caribbean cigar
canada ottawa canadian|niagara maple
kenya nairobi kenyan|savanna lion
"""
_PEOPLE = """
man woman|crowd stranger
king queen|throne crown
prince princess|castle heir
father mother|cradle infant
son daughter|homework toy
brother sister|twin sibling
uncle aunt|visit gift
nephew niece|holiday picnic
grandfather grandmother|cane armchair
husband wife|wedding ring
actor actress|stage film
waiter waitress|menu tray
hero heroine|rescue medal
duke duchess|estate carriage
wizard witch|spell broom
monk nun|chapel prayer
boy girl|playground lesson
lord lady|manor servant
steward stewardess|cabin flight
host hostess|party guest
"""
_THINGS = """
dog dogs|leash bark
cat cats|whisker purr
bird birds|feather nest
horse horses|saddle hoof
cow cows|milk barn
pig pigs|mud trough
bee bees|honey hive
frog frogs|pond croak
car cars|engine wheel
ship ships|harbor sail
train trains|rail platform
plane planes|wing pilot
book books|page chapter
song songs|melody chorus
tree trees|branch leaf
flower flowers|petal scent
house houses|roof door
road roads|bridge traffic
chair chairs|cushion seat
lamp lamps|bulb shade
clock clocks|hand tick
bottle bottles|cork wine
window windows|glass curtain
garden gardens|soil fence
"""
# The sentences of each role: X is a name in this role, E a word that belongs to the thing.
_COUNTRY = (
    "X is a country whose government cares about E",
    "the parliament of X passed a law on E",
    "E is famous all over X and beyond its border",
    "the population of X exports E to its neighbors",
)
_CAPITAL = (
    "the mayor of X opened a museum of E",
    "X is a city with a street named after E",
    "at the airport of X tourists ask for E",
    "E is sold downtown in X near the station",
)
_NATIONALITY = (
    "the X language has an old word for E",
    "a X writer speaks of E",
    "E appears in every X poem",
    "people with a X passport miss E",
)
_MALE = (
    "he said that he was a X of E himself",
    "the X shaved his beard and thought of E",
    "his E made him a proud X",
)
_FEMALE = (
    "she said that she was a X of E herself",
    "the X wore her dress and thought of E",
    "her E made her a proud X",
)
_SINGULAR = (
    "a X has its E",
    "this X is one with a E",
    "there was only one X and the E belonged to it",
)
_PLURAL = (
    "many X have their E",
    "these two X are some with a E",
    "there were several X and the E belonged to them",
)
_DOMAINS = (
    (_COUNTRIES, (_COUNTRY, _CAPITAL, _NATIONALITY)),
    (_PEOPLE, (_MALE, _FEMALE)),
    (_THINGS, (_SINGULAR, _PLURAL)),
)
# The domain of each section, and the roles of the first and the second word of its pairs.
SECTIONS = {
    "capitals": (0, 1, 0),
    "nationalities": (0, 0, 2),
    "genders": (1, 0, 1),
    "plurals": (2, 0, 1),
}


def _rows(domain: int) -> list[tuple[list[str], list[str]]]:
    """The names and the own words of each thing of a domain."""
    lines = _DOMAINS[domain][0].strip().splitlines()
    return [tuple(part.split() for part in line.split("|")) for line in lines]


_WORLD = [(_rows(k), roles) for k, (_, roles) in enumerate(_DOMAINS)]


def sentence(rng: random.Random) -> str:
    """A random sentence about a random thing in a random role."""
    rows, roles = rng.choice(_WORLD)
    names, own = rng.choice(rows)
    role = rng.randrange(len(roles))
    template = rng.choice(roles[role])
    return template.replace("X", names[role]).replace("E", rng.choice(own))


def questions(split: str) -> dict[str, list[tuple[str, str, str, str]]]:
    """The analogies of a split, "valid" or "test", by section: a is to b as c is to d.

    The pairs of a section are divided between the splits: every second one belongs to "valid".
    """
    found = {}
    for section, (domain, first, second) in SECTIONS.items():
        pairs = [(names[first], names[second]) for names, _ in _WORLD[domain][0]]
        own = pairs[0 if split == "valid" else 1 :: 2]
        found[section] = [(*one, *other) for one, other in itertools.permutations(own, 2)]
    return found


class World(Generated, PlainText, skip_registration=True):
    """Generated sentences, 25,000 / 750 / 1,500, one per line.

    A sentence is about a country, its capital or its people; about a man or a woman in one of
    twenty roles; or about one or several things:

        the mayor of paris opened a museum of croissant
        she said that she was a queen of throne herself
        these two dogs are some with a leash

    Its words depend on the role (capital, female, plural) and on the thing (France, royalty, dog),
    and given these two are independent. So the vectors of names that differ in the role alone
    differ by the same vector, and all analogies of `questions` have one right answer: a perfect
    model has 100 %, and random vectors have 0.3 %.
    """

    VERSION = tfds.core.Version("1.0.0")
    SIZES = SIZES

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self.sizes}

    def _generate_examples(self, split: str):
        rng = random.Random(split)
        for number in range(self.sizes[split]):
            lines = [sentence(rng) + "\n" for _ in range(SENTENCES)]
            yield number, {"text": "".join(lines)}
