"""Generated stories in the style of bAbI, about persons, objects, animals and boxes."""

from collections.abc import Iterator

import numpy as np

from unroll.pipelines.datasets.base import Generated
from unroll.pipelines.datasets.stories.base import StoryQuestions

PERSONS = ("Mary", "John", "Sandra", "Daniel", "Julie", "Bill", "Greta", "Fred")
ROOMS = ("kitchen", "garden", "bedroom", "bathroom", "hallway", "office")
THINGS = ("football", "milk", "apple", "book")
ANIMALS = {"mouse": "mice", "wolf": "wolves", "cat": "cats", "sheep": "sheep", "swan": "swans"}
COLORS = ("gray", "white", "green", "yellow")
BOXES = ("box", "chest", "suitcase", "crate", "bag", "bucket")
NUMBERS = ("none", "one", "two", "three", "four")
GO = ("went to", "moved to", "journeyed to", "travelled to")
TAKE = ("took", "got", "picked up", "grabbed")
DROP = ("dropped", "put down", "left", "discarded")

QUESTIONS = {"train": 1000, "valid": 100, "test": 500}  # of each kind
# The least and the most facts of a story.
LENGTHS = {"train": (4, 12), "valid": (4, 24), "test": (4, 24)}
KINDS = ("1", "2", "3", "6", "7", "15", "16", "18")  # as the tasks of bAbI are numbered


class Stories(Generated, StoryQuestions, skip_registration=True):
    """Questions of eight kinds, 1,000 / 100 / 500 of each, numbered as the tasks of bAbI.

    Where is a person (1), where is an object (2), where was it before (3), is a person in a room
    (6), how many objects does a person carry (7), what is a person afraid of, given its species
    (15), what color is it, given others of its species (16), does a box fit in another (18).
    Stories also have irrelevant facts. Those of the validation and test splits have up to twice as
    many facts as the longest of training. The most frequent answer to each kind is right for about
    a third of the questions; a perfect model scores 100 %.
    """

    SIZES = QUESTIONS

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(generate(split, number))
            for split, number in self.sizes.items()
        }


def generate(split: str, number: int) -> Iterator[dict]:
    """The questions of a split, `number` of each kind."""
    for kind in KINDS:
        rng = np.random.default_rng([int(kind), *map(ord, split)])
        make = {"15": _fears, "16": _colors, "18": _box_sizes}.get(kind, _world)
        for _ in range(number):
            story = None
            while story is None:
                low, high = LENGTHS[split]
                story = make(rng, int(rng.integers(low, high + 1)), kind)
            facts, question, answer, supporting = story
            yield {
                "task": kind,
                "facts": facts,
                "question": question,
                "answer": answer,
                "supporting": supporting,
            }


# Facts, a question, the answer, and the indices of the supporting facts.
Story = tuple[list[str], str, str, list[int]]


def _choice(options, rng: np.random.Generator):
    return options[int(rng.integers(len(options)))]


def _world(rng: np.random.Generator, length: int, kind: str) -> Story | None:
    """Persons move, and take and drop objects. `None` if the story allows no question."""
    facts: list[str] = []
    at: dict[str, tuple[str, int]] = {}  # the room of a person, and the fact that states it
    holder: dict[str, tuple[str, int]] = {}  # the person who has a thing, and since which fact
    dropped: dict[str, tuple[str, list[int]]] = {}  # the room of a dropped thing, and the facts
    history: dict[str, list[tuple[str, list[int]]]] = {thing: [] for thing in THINGS}  # its rooms
    changes: dict[str, list[int]] = {}  # the facts in which a person took or dropped something
    persons = [str(p) for p in rng.permutation(PERSONS)[:4]]

    def has(person):
        return [thing for thing, (who, _) in holder.items() if who == person]

    def record(thing, room, supporting):
        if not history[thing] or history[thing][-1][0] != room:
            history[thing].append((room, supporting))

    for k in range(length):
        person = _choice(persons, rng)
        event = 1.0 if kind in ("1", "6") else rng.random()
        room = at[person][0] if person in at else None
        near = [
            x for x in THINGS if x not in holder and (x not in dropped or dropped[x][0] == room)
        ]
        if room and near and event < 0.35:
            thing = _choice(near, rng)
            facts.append(f"{person} {_choice(TAKE, rng)} the {thing} there.")
            holder[thing] = person, k
            dropped.pop(thing, None)
            changes.setdefault(person, []).append(k)
            record(thing, room, [k, at[person][1]])
        elif has(person) and 0.35 <= event < 0.5:
            thing = _choice(has(person), rng)
            facts.append(f"{person} {_choice(DROP, rng)} the {thing}.")
            dropped[thing] = room, [k, at[person][1]]
            del holder[thing]
            changes[person].append(k)
        else:
            goal = _choice([r for r in ROOMS if r != room], rng)
            facts.append(f"{person} {_choice(GO, rng)} the {goal}.")
            at[person] = goal, k
            for thing in has(person):
                record(thing, goal, [holder[thing][1], k])

    if kind in ("1", "6"):
        person = _choice(sorted(at), rng)
        room, fact = at[person]
        if kind == "1":
            return facts, f"Where is {person}?", room, [fact]
        guess = room if rng.random() < 0.5 else _choice([r for r in ROOMS if r != room], rng)
        answer = "yes" if guess == room else "no"
        return facts, f"Is {person} in the {guess}?", answer, [fact]
    if kind == "7":
        if not changes:
            return None
        person = _choice(sorted(changes), rng)
        number = NUMBERS[len(has(person))]
        if number == "one" and rng.random() < 0.6:  # otherwise most answers would be "one"
            return None
        return facts, f"How many things is {person} carrying?", number, changes[person]
    moved = [thing for thing, rooms in history.items() if len(rooms) > (kind == "3")]
    if not moved:
        return None
    thing = _choice(moved, rng)
    if kind == "3":
        n = int(rng.integers(1, len(history[thing])))
        (before, support_before), (after, support_after) = history[thing][n - 1 : n + 1]
        if [room for room, _ in history[thing]].count(after) > 1:
            return None  # ambiguous: it was there twice
        supporting = sorted({*support_before, *support_after})
        return facts, f"Where was the {thing} before the {after}?", before, supporting
    if thing in holder:
        person, since = holder[thing]
        room, fact = at[person]
        return facts, f"Where is the {thing}?", room, sorted({since, fact})
    room, supporting = dropped[thing]
    return facts, f"Where is the {thing}?", room, sorted(supporting)


def _fears(rng: np.random.Generator, length: int, kind: str) -> Story:
    """Each species is afraid of another, and each person has a species."""
    animals = [str(each) for each in rng.permutation(list(ANIMALS))]
    fear = {each: _choice([x for x in animals if x != each], rng) for each in animals}
    rows = [(f"{ANIMALS[a].capitalize()} are afraid of {ANIMALS[b]}.", a) for a, b in fear.items()]
    persons = rng.permutation(PERSONS)[: max(1, length - 5)]
    species = {person: _choice(animals, rng) for person in persons}
    rows += [(f"{person} is a {each}.", person) for person, each in species.items()]
    facts, subjects = zip(*(rows[k] for k in rng.permutation(len(rows))), strict=True)
    person = str(_choice(list(species), rng))
    supporting = sorted([subjects.index(person), subjects.index(species[person])])
    return list(facts), f"What is {person} afraid of?", fear[species[person]], supporting


def _colors(rng: np.random.Generator, length: int, kind: str) -> Story | None:
    """All persons of a species have one color. The story does not state it for the target."""
    color = {each: _choice(COLORS, rng) for each in ANIMALS}
    persons = rng.permutation(PERSONS)[: length // 2 + 1]
    species = {str(person): _choice(list(ANIMALS), rng) for person in persons}
    target = _choice(list(species), rng)
    others = [p for p in species if species[p] == species[target] and p != target]
    if not others:
        return None
    rows = [(f"{person} is a {each}.", person, "species") for person, each in species.items()]
    rows += [(f"{p} is {color[x]}.", p, "color") for p, x in species.items() if p != target]
    rows = [rows[k] for k in rng.permutation(len(rows))]
    facts = [fact for fact, *_ in rows]
    index = {(person, what): k for k, (_, person, what) in enumerate(rows)}
    other = max(others, key=lambda person: index[person, "color"])
    keys = ((target, "species"), (other, "species"), (other, "color"))
    supporting = sorted(index[key] for key in keys)
    return facts, f"What color is {target}?", color[species[target]], supporting


def _box_sizes(rng: np.random.Generator, length: int, kind: str) -> Story:
    """Boxes in an order of size. Each fact compares two of them."""
    order = [str(each) for each in rng.permutation(BOXES)]  # from the largest to the smallest
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
