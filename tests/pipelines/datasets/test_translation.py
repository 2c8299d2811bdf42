"""Datasets of translations and dialogs: the generated phrases, and the published ones."""

import gzip
import hashlib
import random
from collections import defaultdict

import pytest

from tests.pipelines.datasets.helpers import read_all
from unroll.pipelines import datasets
from unroll.pipelines.datasets.translation import phrases
from unroll.pipelines.datasets.translation.base import read_gzip_lines
from unroll.pipelines.datasets.translation.dailydialog import DailyDialog, without_shared
from unroll.pipelines.datasets.translation.multi30k import Multi30k
from unroll.pipelines.datasets.translation.tatoeba_zh_en import TatoebaZhEn, split_of
from unroll.pipelines.errors import DataError

EXAMPLES = {
    "A quick king has gone.": "Ein schneller König ist gegangen.",
    "An old king has slept.": "Ein alter König hat geschlafen.",
    "Every woman sees a king.": "Jede Frau sieht einen König.",
    "Some old dogs have sung.": "Einige alte Hunde haben gesungen.",
    "Today the children have run.": "Heute sind die Kinder gelaufen.",
    "The queens hope that some horses may fall.": (
        "Die Königinnen hoffen, dass einige Pferde fallen dürfen."
    ),
    "Every dog that sees the animal goes.": "Jeder Hund, der das Tier sieht, geht.",
    "The queen that the child catches must laugh.": (
        "Die Königin, die das Kind fängt, muss lachen."
    ),
    "Here some cooks that love every man work.": (
        "Hier arbeiten einige Köche, die jeden Mann lieben."
    ),
}


@pytest.fixture(scope="module")
def generated() -> dict[str, list[tuple[str, str]]]:
    return {split: list(phrases.pairs(split, count)) for split, count in phrases.SIZES.items()}


class TestPhrases:
    def test_they_are_unique_and_depend_on_split_and_seed_alone(self, generated):
        sources = [source for rows in generated.values() for source, _ in rows]
        assert len(sources) == len(set(sources)) == sum(phrases.SIZES.values())
        assert list(phrases.pairs("train", 30)) == generated["train"][:30]
        assert list(phrases.pairs("train", 30, seed=1)) != generated["train"][:30]

    def test_version_changes_with_the_sentences(self, generated):
        """If this fails, they have changed: increase `VERSION`, or prepared ones are read."""
        digest = hashlib.sha256(repr(generated).encode()).hexdigest()[:12]
        assert (str(phrases.Phrases.VERSION), digest) == ("1.0.0", "f0ca10a78149")

    def test_grammar(self):
        """Agreement, reordering, and a second word that depends on the last."""
        rng, found = random.Random(5), {}
        while len(found) < 60_000:
            source, translations, _ = phrases.sample(rng)
            assert found.setdefault(source, translations) == translations
        for english, german in EXAMPLES.items():
            assert found[english] == {german: 1.0}
        subordinate = [text for text in found if " says that " in text or " think that " in text]
        for text in subordinate:
            [own] = {each.rsplit(" ", 1)[1] for each in found[text]}
            assert own.removesuffix(".") in _FINITE

    def test_probabilities_lead_greedy_search_astray(self, generated):
        for choices in phrases.AMBIGUOUS.values():
            assert sum(choices.values()) == pytest.approx(1)
            of_first = defaultdict(float)
            for words, p in choices.items():
                of_first[words.split()[0]] += p
            best = max(choices, key=choices.get)
            # Greedy search takes another first word, and a beam of two keeps both.
            assert max(of_first, key=of_first.get) != best.split()[0]
            assert len(of_first) == 2
            others = [p for words, p in choices.items() if words != best]
            assert choices[best] >= 2 * max(others)
        scores = phrases.perfect_scores(source for source, _ in generated["test"])
        assert scores == {"greedy": pytest.approx(76.1), "exact": 100}

    def test_only_train_has_less_probable_translations(self, generated):
        counts: dict[str, dict[str, int]] = {adverb: {} for adverb in phrases.AMBIGUOUS}
        for split, rows in generated.items():
            for source, target in rows:
                words = source.lower().rstrip(".").split()
                for adverb in phrases.AMBIGUOUS.keys() & set(words):
                    first, *others = phrases.AMBIGUOUS[adverb]
                    [own] = [each for each in (first, *others) if _has(target, each)]
                    assert split == "train" or own == first
                    if split == "train":
                        counts[adverb][own] = counts[adverb].get(own, 0) + 1
        for adverb, own in counts.items():
            total = sum(own.values())
            for words, p in phrases.AMBIGUOUS[adverb].items():
                assert own[words] / total == pytest.approx(p, abs=0.05)

    def test_combinations_are_held_out(self, generated):
        held_out = [pair for pair in phrases.combinations() if phrases.is_held_out(pair)]
        assert 0.08 < len(held_out) / len(phrases.combinations()) < 0.16
        adjectives = {f" {first} {second}" for first, second in held_out}
        in_train = " ".join(source for source, _ in generated["train"])
        assert not [
            each for each in adjectives if f"{each} " in in_train or f"{each}s " in in_train
        ]
        # All words are known from the training split.
        for side in (0, 1):
            known = {w for row in generated["train"] for w in _words(row[side])}
            for split in ("valid", "test"):
                assert {w for row in generated[split] for w in _words(row[side])} <= known


_FINITE = {
    *(form for verb in (*phrases._TRANSITIVE, *phrases._INTRANSITIVE) for form in verb.german[:2]),
    *(form for _, *forms in phrases._MODALS for form in forms),
    *(form for forms in phrases._AUXILIARIES.values() for form in forms),
}


def _words(text: str) -> list[str]:
    return text.lower().replace(",", "").rstrip(".").split()


def _has(text: str, words: str) -> bool:
    return f" {words.lower()} " in f" {' '.join(_words(text))} "


class TestPublished:
    @pytest.mark.parametrize(("source", "target"), [("de", "en"), ("fr", "cs")])
    def test_multi30k(self, source, target, manual_dir, tmp_path):
        splits = read_all(Multi30k, tmp_path, source=source, target=target)
        assert [len(rows) for rows in splits.values()] == [29_000, 1_014, 1_000]
        assert all(row["source"] and row["target"] for rows in splits.values() for row in rows)
        assert splits["test"][0]["history"] == []
        if (source, target) == ("de", "en"):
            assert splits["test"][0] == {
                "source": "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",
                "target": "A man in an orange hat starring at something.",
                "history": [],
            }

    def test_tatoeba(self, manual_dir, tmp_path):
        splits = read_all(TatoebaZhEn, tmp_path)
        assert [len(rows) for rows in splits.values()] == [26_232, 1_465, 1_458]
        for side in ("source", "target"):
            sets = [{row[side] for row in rows} for rows in splits.values()]
            assert sum(map(len, sets)) == len(set.union(*sets))
        assert {"source": "嗨。", "target": "Hi.", "history": []} in splits["train"]
        backwards = read_all(TatoebaZhEn, tmp_path, source="en", target="zh")
        pairs = [(row["target"], row["source"]) for row in splits["test"]]
        assert [(row["source"], row["target"]) for row in backwards["test"]] == pairs

    @pytest.mark.exhaustive
    def test_dailydialog(self, manual_dir, tmp_path):
        splits = read_all(DailyDialog, tmp_path, history=2)
        assert [len(rows) for rows in splits.values()] == [71_062, 7_069, 6_740]
        assert {len(row["history"]) for row in splits["test"]} == {0, 1}
        first, second = splits["train"][:2]
        assert first["source"].startswith("Say, Jim, how about going")
        assert second["history"] == [first["source"]]
        assert second["source"] == first["target"]

    def test_pairs_with_a_common_sentence_are_in_one_split(self):
        rows = [(f"e{k}", f"z{k}") for k in range(400)]
        bridges = [(f"e{k}", f"z{k + 1}") for k in range(0, 100, 2)]
        found = split_of(rows + bridges)
        assert found[0:100:2] == found[1:100:2] == found[400:]
        assert 5 < found[:400].count("test") < 40
        assert split_of((rows + bridges)[::-1]) == found[::-1]

    def test_dialogs_that_share_an_exchange_are_left_out(self):
        own = ["How are you today?", "I am fine, thanks.", "Good."]
        others = [["Hello you there!", "how are YOU, today", "I am fine thanks", "Bye."]]
        assert without_shared([own, own[1:], own[:1]], others) == [own[1:], own[:1]]


def test_options_are_checked(tmp_path):
    def message(name: str, **options) -> str:
        with pytest.raises(DataError) as error:
            datasets.builder(name, kind="translation", data_dir=tmp_path, **options)
        return str(error.value)

    two = "source and target must be two of de, en, fr, cs, got"
    assert message("multi30k", source="de", target="de") == f"multi30k: {two} 'de' and 'de'."
    assert message("multi30k", source="de") == f"multi30k: {two} 'de' and ''."
    assert message("multi30k", source="de", target="es").endswith("got 'de' and 'es'.")
    assert "multi30k has no dialogs: history must be 1, got 2" in message("multi30k", history=2)
    assert "history must be at least 1, got 0" in message("dailydialog", history=0)
    assert "phrases has no choice of languages" in message("phrases", source="en", target="de")
    # What a dataset by name does not have is for folders alone.
    assert datasets.builder("dailydialog", history=3, data_dir=tmp_path).source.history == 3
    assert datasets.builder("reviews", history=3, data_dir=tmp_path).name == "reviews"


def test_a_broken_gzip_file_is_named(tmp_path):
    path = tmp_path / "train.de.gz"
    whole = gzip.compress(b"Ein Hund.\n" * 50)
    for contents in (whole[:-9], b"Ein Hund."):
        path.write_bytes(contents)
        with pytest.raises(DataError, match=r"train.de.gz is not a complete gzip file"):
            read_gzip_lines(path)
    path.write_bytes(whole)
    assert read_gzip_lines(path) == ["Ein Hund."] * 50
