"""The generated world: roles, analogies, splits."""

import itertools
from collections import Counter

from tests.pipelines.datasets.helpers import read_all
from unroll.pipelines.datasets.language import world


def test_the_names_and_own_words_of_the_world_are_distinct():
    names = [name for rows, _ in world._WORLD for parts, _ in rows for name in parts]
    own = [word for rows, _ in world._WORLD for _, parts in rows for word in parts]
    assert len(set(names)) == len(names)
    assert len(set(own)) == len(own)
    templates = {
        word
        for _, roles in world._WORLD
        for role in roles
        for template in role
        for word in template.split()
    }
    assert not templates & (set(names) | set(own))


def test_every_template_has_a_name_and_an_own_word():
    for rows, roles in world._WORLD:
        assert {len(names) for names, _ in rows} == {len(roles)}
        assert {len(own) for _, own in rows} == {2}
        for template in itertools.chain(*roles):
            assert Counter(template.split())["X"] == Counter(template.split())["E"] == 1


def test_questions_of_the_splits_have_no_pair_in_common():
    valid, test = world.questions("valid"), world.questions("test")
    assert set(valid) == set(test) == set(world.SECTIONS)
    for section in valid:
        words = [{w for row in part[section] for w in row} for part in (valid, test)]
        assert not words[0] & words[1]
        count = len({row[:2] for row in test[section]})
        assert len(test[section]) == len(set(test[section])) == count * (count - 1)
    assert sum(map(len, test.values())) == sum(map(len, valid.values())) == 486
    assert ("italy", "italian", "germany", "german") in test["nationalities"]
    assert ("rome", "italy", "berlin", "germany") in test["capitals"]


def test_text(tmp_path):
    found = read_all(world.World, tmp_path, size=0.05)
    lines = {split: "".join(e["text"] for e in rows).splitlines() for split, rows in found.items()}
    assert {split: len(own) for split, own in lines.items()} == {
        "train": 1250, "valid": 200, "test": 200
    }  # fmt: skip
    assert lines == {
        split: "".join(e["text"] for e in rows).splitlines()
        for split, rows in read_all(world.World, tmp_path, size=0.05).items()
    }
    assert lines["valid"][:20] != lines["test"][:20]
    words = {word for line in lines["train"] for word in line.split()}
    names = {name for rows, _ in world._WORLD for parts, _ in rows for name in parts}
    assert len(names & words) > 0.9 * len(names)
