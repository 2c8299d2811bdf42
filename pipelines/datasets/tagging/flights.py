"""Generated questions about flights, in which the context of a city gives its slot."""

import random

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Generated
from unroll.pipelines.datasets.tagging.base import Tagging

SIZES = {"train": 3000, "valid": 400, "test": 1000}

# Of all splits; of the second half of the test split; of the second half of the validation split.
CITIES = (
    "boston denver atlanta dallas pittsburgh baltimore oakland philadelphia washington milwaukee "
    "new_york san_francisco las_vegas salt_lake_city los_angeles st_louis".split(),
    "hangzhou lisbon nairobi helsinki toronto buenos_aires kuala_lumpur cape_town".split(),
    "madrid oslo cairo jakarta santiago hong_kong tel_aviv vancouver".split(),
)
AIRLINES = (
    "delta united lufthansa american_airlines continental us_air northwest".split(),
    "qantas iberia japan_airlines".split(),
    "emirates finnair west_jet".split(),
)
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_MONTHS = "january march april june july august november december".split()
_ORDINALS = "first second third 2nd 5th 11th 21st 30th twentieth".split()
_PERIODS = "morning afternoon evening night".split()

_FROM = ("from {f}", "leaving {f}", "departing from {f}", "out of {f}", "starting in {f}")
_TO = ("to {t}", "arriving in {t}", "into {t}", "that goes to {t}", "going to {t}")
# Both cities: the words between them, or only their order, give their slots.
_ROUTES = (
    "between {f} and {t}",
    "{f} to {t}",
    "to {t} from {f}",
    "into {t} out of {f}",
    "from {f} and on to {t}",
    "reaching {t} and starting in {f}",
)
_STOPS = ("with a stop in {s}", "by way of {s}", "that stops in {s}", "changing planes in {s}")
_DATES = ("on {d}", "on the {o} of {m}", "on {m} {o}", "next {d}", "this {d}")
_TIMES = ("in the {p}", "before {n} {x}", "after {n} {x}", "at {n} {x}", "around {n} {x}")
_OPENINGS = {
    "flight": (
        "show me flights",
        "i need a flight",
        "i would like to fly",
        "are there any flights",
        "find me a plane",
        "list all flights",
    ),
    "airfare": (
        "how much is a ticket",
        "what does it cost to fly",
        "show me the fares",
        "what is the cheapest fare",
    ),
    "airline": ("which airlines fly", "who flies", "what carriers serve the route"),
    "flight_time": (
        "when do flights leave",
        "how long is the flight",
        "what are the departure times",
    ),
    "ground_service": ("is there a bus", "how do i get a taxi", "what ground transport is there"),
}
# Cities that are not slots.
_ASIDES = (
    "i was in {c} last week .",
    "my sister lives in {c} .",
    "not {c} this time .",
    "it rains in {c} .",
)


def _phrase(rng: random.Random, template: str, slots: dict[str, tuple[str, str]]) -> list[tuple]:
    """The words of a template with their tags. `slots` has a name and a value for each letter."""
    pairs = []
    for word in template.split():
        if word.startswith("{"):
            name, value = slots[word[1]]
            own = value.split("_")
            if name == "O":
                pairs += [(w, "O") for w in own]
            else:
                pairs += [(w, f"{'I' if k else 'B'}-{name}") for k, w in enumerate(own)]
        else:
            pairs.append((word, "O"))
    return pairs


def _question(rng: random.Random, cities: list[str], airlines: list[str]) -> dict:
    intent = rng.choices(tuple(_OPENINGS), (45, 20, 12, 13, 10))[0]
    f, t, s, c = rng.sample(cities, 4)
    pairs = _phrase(rng, rng.choice(_OPENINGS[intent]), {})
    if intent == "ground_service":
        pairs += _phrase(rng, rng.choice(("in {t}", "at the airport of {t}")), {"t": ("city", t)})
    else:
        slots = {"f": ("fromloc", f), "t": ("toloc", t)}
        kind = rng.random()
        if kind < 0.4:
            parts = [rng.choice(_ROUTES)]
        elif kind < 0.8:
            parts = [rng.choice(_FROM), rng.choice(_TO)]
            rng.shuffle(parts)
        else:
            parts = [rng.choice(rng.choice((_FROM, _TO)))]
        if rng.random() < 0.2:
            parts.append(rng.choice(_STOPS))
            slots["s"] = ("stoploc", s)
        if rng.random() < 0.25:
            parts.append(rng.choice(("on {a}", "with {a}", "flown by {a}")))
            slots["a"] = ("airline", rng.choice(airlines))
        details = []
        if rng.random() < 0.5:
            details.append(rng.choice(_DATES))
            slots |= {
                "d": ("date", rng.choice(_DAYS)),
                "m": ("date", rng.choice(_MONTHS)),
                "o": ("date", rng.choice(_ORDINALS)),
            }
        if rng.random() < 0.3:
            details.append(rng.choice(_TIMES))
            slots |= {
                "p": ("time", rng.choice(_PERIODS)),
                "n": ("time", str(rng.randrange(1, 13))),
                "x": ("time", rng.choice(("am", "pm"))),
            }
        for part in parts + details:
            pairs += _phrase(rng, part, slots)
    if rng.random() < 0.2:
        aside = _phrase(rng, rng.choice(_ASIDES), {"c": ("O", c)})
        pairs = aside + pairs if rng.random() < 0.5 else [*pairs, (".", "O"), *aside]
    words, tags = zip(*_joined(pairs), strict=True)
    return {"words": list(words), "tags": list(tags), "intent": intent}


def _joined(pairs: list[tuple]) -> list[tuple]:
    """Joins adjacent words of one date or time to one span: "november 2nd", "7 am"."""
    joined, previous = [], "O"
    for word, tag in pairs:
        if tag[2:] in ("date", "time") and previous[2:] == tag[2:]:
            tag = "I-" + tag[2:]
        joined.append((word, tag))
        previous = tag
    return joined


def generate(sizes: dict[str, int] = SIZES, seed: int = 1) -> dict[str, list[dict]]:
    """The questions of each split, without duplicates."""
    rng = random.Random(seed)
    seen: set[tuple] = set()
    splits = {}
    for split, size in sizes.items():
        rows: list[dict] = []
        while len(rows) < size:
            new = 0 if len(rows) < size // 2 else {"train": 0, "test": 1, "valid": 2}[split]
            example = _question(rng, CITIES[new], AIRLINES[new])
            if tuple(example["words"]) not in seen:
                seen.add(tuple(example["words"]))
                rows.append(example)
        splits[split] = rows
    return splits


class Flights(Generated, Tagging, skip_registration=True):
    """Generated questions about flights, 3,000 / 400 / 1,000, seven slots, five intents.

    The same cities are departures, destinations, stops, or not a slot. The words around a city, or
    only the order, give its slot. The second halves of the validation and test splits have cities
    and airlines that no other split has. The most frequent tag of each word finds about half of the
    slots, and almost none of these. There is no noise: a perfect model scores 100 %.
    """

    # Increase it when the sentences change: prepared data are read from disk.
    VERSION = tfds.core.Version("1.1.0")
    SIZES = SIZES
    MIN_SIZE = 32

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(rows) for split, rows in generate(self.sizes).items()
        }

    def _generate_examples(self, rows: list[dict]):
        yield from enumerate(rows)
