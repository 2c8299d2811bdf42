"""Generated stories of a small world: who is where with what, who fears whom, what fits in what."""

from collections.abc import Iterator

import numpy as np

from unroll.pipelines.datasets.stories.babi import Reading

PERSONS = ("Mary", "John", "Sandra", "Daniel", "Julie", "Bill", "Greta", "Fred")
PLACES = ("kitchen", "garden", "bedroom", "bathroom", "hallway", "office")
THINGS = ("football", "milk", "apple", "book")
ANIMALS = {"mouse": "mice", "wolf": "wolves", "cat": "cats", "sheep": "sheep", "swan": "swans"}
COLOURS = ("gray", "white", "green", "yellow")
BOXES = ("box", "chest", "suitcase", "crate", "bag", "bucket")
NUMBERS = ("none", "one", "two", "three", "four")
GO = ("went to", "moved to", "journeyed to", "travelled to")
TAKE = ("took", "got", "picked up", "grabbed")
DROP = ("dropped", "put down", "left", "discarded")

QUESTIONS = {"train": 1000, "valid": 100, "test": 500}  # of each kind
# How many facts a story has, at least and at most.
LENGTHS = {"train": (4, 12), "valid": (4, 24), "test": (4, 24)}
KINDS = ("1", "2", "3", "6", "7", "15", "16", "18")  # the tasks of bAbI that ask alike


class Stories(Reading, skip_registration=True):
    """Stories of eight kinds, 1,000 / 100 / 500 questions each, numbered as bAbI's tasks are.

    Where is a person (1), where is what was carried (2), where was it before (3), is a person here
    (6), how many things are carried (7), what does one fear by its kind (15), what colour is it by
    others of its kind (16), does one fit in the other (18). Stories also tell things that do not
    matter. Those of the validation and test split have up to twice as many facts as the longest to
    learn from. The most frequent answer to each kind is right in about a third; a perfect reader
    always.
    """

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(generate(split)) for split in QUESTIONS}


def generate(split: str) -> Iterator[dict]:
    """The questions of a split, kind by kind."""
    for kind in KINDS:
        rng = np.random.default_rng([int(kind), *map(ord, split)])
        tell = {"15": _fears, "16": _colours, "18": _sizes}.get(kind, _lives)
        for _ in range(QUESTIONS[split]):
            told = None
            while told is None:
                low, high = LENGTHS[split]
                told = tell(rng, int(rng.integers(low, high + 1)), kind)
            facts, question, answer, supporting = told
            yield {
                "task": kind,
                "facts": facts,
                "question": question,
                "answer": answer,
                "supporting": supporting,
            }


Told = tuple[list[str], str, str, list[int]]


def _pick(among, rng: np.random.Generator):
    return among[int(rng.integers(len(among)))]


def _lives(rng: np.random.Generator, length: int, kind: str) -> Told | None:
    """Persons go about, and take and drop things; None where there is nothing to ask."""
    facts: list[str] = []
    at: dict[str, tuple[str, int]] = {}  # a person's place, and the fact that tells it
    holder: dict[str, tuple[str, int]] = {}  # who has a thing, and since which fact
    lies: dict[str, tuple[str, list[int]]] = {}  # where a thing was put down, and by which facts
    been: dict[str, list[tuple[str, list[int]]]] = {thing: [] for thing in THINGS}
    changes: dict[str, list[int]] = {}  # the facts that tell what a person took or dropped
    persons = [str(p) for p in rng.permutation(PERSONS)[:4]]

    def has(person):
        return [thing for thing, (who, _) in holder.items() if who == person]

    def note(thing, place, because):
        if not been[thing] or been[thing][-1][0] != place:
            been[thing].append((place, because))

    for k in range(length):
        person = _pick(persons, rng)
        draw = 1.0 if kind in ("1", "6") else rng.random()
        place = at[person][0] if person in at else None
        near = [x for x in THINGS if x not in holder and (x not in lies or lies[x][0] == place)]
        if place and near and draw < 0.35:
            thing = _pick(near, rng)
            facts.append(f"{person} {_pick(TAKE, rng)} the {thing} there.")
            holder[thing] = person, k
            lies.pop(thing, None)
            changes.setdefault(person, []).append(k)
            note(thing, place, [k, at[person][1]])
        elif has(person) and 0.35 <= draw < 0.5:
            thing = _pick(has(person), rng)
            facts.append(f"{person} {_pick(DROP, rng)} the {thing}.")
            lies[thing] = place, [k, at[person][1]]
            del holder[thing]
            changes[person].append(k)
        else:
            goal = _pick([p for p in PLACES if p != place], rng)
            facts.append(f"{person} {_pick(GO, rng)} the {goal}.")
            at[person] = goal, k
            for thing in has(person):
                note(thing, goal, [holder[thing][1], k])

    if kind in ("1", "6"):
        person = _pick(sorted(at), rng)
        place, told = at[person]
        if kind == "1":
            return facts, f"Where is {person}?", place, [told]
        asked = place if rng.random() < 0.5 else _pick([p for p in PLACES if p != place], rng)
        answer = "yes" if asked == place else "no"
        return facts, f"Is {person} in the {asked}?", answer, [told]
    if kind == "7":
        if not changes:
            return None
        person = _pick(sorted(changes), rng)
        number = NUMBERS[len(has(person))]
        if number == "one" and rng.random() < 0.6:  # else most answers were "one"
            return None
        return facts, f"How many things is {person} carrying?", number, changes[person]
    moved = [thing for thing, places in been.items() if len(places) > (kind == "3")]
    if not moved:
        return None
    thing = _pick(moved, rng)
    if kind == "3":
        n = int(rng.integers(1, len(been[thing])))
        (before, why), (after, because) = been[thing][n - 1], been[thing][n]
        if [place for place, _ in been[thing]].count(after) > 1:
            return None  # it was there twice
        why = sorted({*why, *because})
        return facts, f"Where was the {thing} before the {after}?", before, why
    if thing in holder:
        person, since = holder[thing]
        place, told = at[person]
        return facts, f"Where is the {thing}?", place, sorted({since, told})
    place, why = lies[thing]
    return facts, f"Where is the {thing}?", place, sorted(why)


def _fears(rng: np.random.Generator, length: int, kind: str) -> Told:
    """Kinds fear kinds, and persons are of a kind."""
    kinds = [str(each) for each in rng.permutation(list(ANIMALS))]
    fear = {each: _pick([x for x in kinds if x != each], rng) for each in kinds}
    told = [(f"{ANIMALS[a].capitalize()} are afraid of {ANIMALS[b]}.", a) for a, b in fear.items()]
    of = {person: _pick(kinds, rng) for person in rng.permutation(PERSONS)[: max(1, length - 5)]}
    told += [(f"{person} is a {each}.", person) for person, each in of.items()]
    facts, who = zip(*(told[k] for k in rng.permutation(len(told))), strict=True)
    person = str(_pick(list(of), rng))
    why = sorted([who.index(person), who.index(of[person])])
    return list(facts), f"What is {person} afraid of?", fear[of[person]], why


def _colours(rng: np.random.Generator, length: int, kind: str) -> Told | None:
    """Persons of one kind have one colour; that of the last one asked of is not told."""
    colour = {each: _pick(COLOURS, rng) for each in ANIMALS}
    of = {str(p): _pick(list(ANIMALS), rng) for p in rng.permutation(PERSONS)[: length // 2 + 1]}
    asked = _pick(list(of), rng)
    alike = [person for person in of if of[person] == of[asked] and person != asked]
    if not alike:
        return None
    told = [(f"{person} is a {each}.", person, "kind") for person, each in of.items()]
    told += [(f"{p} is {colour[x]}.", p, "colour") for p, x in of.items() if p != asked]
    told = [told[k] for k in rng.permutation(len(told))]
    facts = [fact for fact, *_ in told]
    place = {(who, what): k for k, (_, who, what) in enumerate(told)}
    other = max(alike, key=lambda person: place[person, "colour"])
    why = sorted([place[asked, "kind"], place[other, "kind"], place[other, "colour"]])
    return facts, f"What color is {asked}?", colour[of[asked]], why


def _sizes(rng: np.random.Generator, length: int, kind: str) -> Told:
    """Things of a known order of size, each fact of which compares two."""
    order = [str(each) for each in rng.permutation(BOXES)]  # from the largest down
    pairs = [(order[k], order[k + 1]) for k in range(len(order) - 1)]
    while len(pairs) < length:
        a, b = sorted(rng.choice(len(order), 2, replace=False))
        pairs.append((order[a], order[b]))
    pairs = [pairs[k] for k in rng.permutation(len(pairs))]
    facts = [
        f"The {a} is bigger than the {b}." if rng.random() < 0.5 else f"The {b} fits in the {a}."
        for a, b in pairs
    ]
    a, b = sorted(rng.choice(len(order), 2, replace=False))
    path = sorted(pairs.index((order[k], order[k + 1])) for k in range(a, b))
    small, large = order[b], order[a]
    if rng.random() < 0.5:
        return facts, f"Does the {small} fit in the {large}?", "yes", path
    return facts, f"Does the {large} fit in the {small}?", "no", path
