"""Words and where they stand, ids, spans."""

import numpy as np
import pytest
import tensorflow as tf

from unroll.pipelines import tagging

TEXTS = [
    "To Zürich, please.",
    "a flight from st. louis at 7 p.m.",
    "what's the 838 flight?",
    'say "yes" (or no); thanks!!',
    "  two  spaces\tand\na line ",
    "",
    "   ",
    "😀 to são paulo 😀",
    "end...",
    "我 要 去 杭州",
]


def test_words_stand_where_their_offsets_say():
    words, begins, ends = (x.to_list() for x in tagging.split_words(tf.constant(TEXTS)))
    for text, *row in zip(TEXTS, words, begins, ends, strict=True):
        for word, begin, end in zip(*row, strict=True):
            assert text[begin:end] == word.decode()
            assert word.strip()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXTS[0], ["To", "Zürich", ",", "please"]),
        (TEXTS[1], ["a", "flight", "from", "st.", "louis", "at", "7", "p.m."]),
        (TEXTS[2], ["what's", "the", "838", "flight", "?"]),
        (TEXTS[3], ["say", '"', "yes", '"', "(", "or", "no", ")", ";", "thanks", "!", "!"]),
        (TEXTS[4], ["two", "spaces", "and", "a", "line"]),
        (TEXTS[6], []),
        (TEXTS[8], ["end"]),
        ("nul\0byte", ["nul", "byte"]),
    ],
)
def test_words_of_a_text(text, words):
    assert [w.decode() for w in tagging.split_words(tf.constant([text]))[0].to_list()[0]] == words


def test_bytes_that_are_no_text():
    words, _, ends = tagging.split_words(tf.constant([b"to \xff\xfe bo\xff"]))
    assert words.to_list() == [[b"to", "\ufffd\ufffd".encode(), "bo\ufffd".encode()]]
    assert ends.to_list() == [[2, 5, 9]]


def spans(tags: list[str], begins: list[int], ends: list[int]) -> list[tuple]:
    """One sentence, tag by tag."""
    found, k = [], 0
    while k < len(tags):
        if tags[k].startswith("B-"):
            last = k
            while tags[last + 1 : last + 2] and tags[last + 1].startswith("I-"):
                last += 1
            found.append((tags[k][2:], begins[k], ends[last]))
            k = last
        k += 1
    return found


def test_spans_of_random_tags():
    names = ["B-a", "B-b", "I-a", "I-b", "O"]
    rng = np.random.default_rng(1)
    lengths = [7, 1, 0, 4, 9, 9]
    tags = np.zeros((6, 9), "int32")
    begins, ends, expected = [], [], []
    for row, length in enumerate(lengths):
        before = "O"
        for t in range(length):
            allowed = ["B-a", "B-b", "O"] + ([f"I-{before[2:]}"] if before != "O" else [])
            before = rng.choice(allowed)
            tags[row, t] = names.index(before)
        edges = np.sort(rng.choice(60, 2 * length, replace=False)).tolist()
        begins.append(edges[::2])
        ends.append(edges[1::2])
        own = [names[k] for k in tags[row, :length]]
        expected.append(spans(own, begins[-1], ends[-1]))
    ragged = [tf.ragged.constant(x, dtype=tf.int32) for x in (begins, ends)]
    places, labels = tagging.spans_of(tf.constant(tags), *ragged, names)
    for row in range(6):
        found = [
            (label.decode(), *place)
            for label, place in zip(labels.numpy()[row], places.numpy()[row].tolist(), strict=True)
            if label
        ]
        assert found == expected[row]
        assert all(place == [-1, -1] for place in places.numpy()[row, len(found) :].tolist())


def example(words: str, tags: str, intent: str) -> dict:
    return {"words": words.split(), "tags": tags.split(), "intent": intent}


def dataset(*rows: dict) -> tf.data.Dataset:
    def generate():
        yield from rows

    strings = tf.TensorSpec([None], tf.string)
    signature = {"words": strings, "tags": strings, "intent": tf.TensorSpec([], tf.string)}
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


TRAIN = dataset(
    example("To Bonn at 8", "O B-to O B-time", "flight"),
    example("Bonn", "B-from", "fare"),
)
TEST = dataset(
    example("to Mainz via Bonn", "O B-to O B-via", "hotel"),
    example("at 17", "O I-time", "fare"),
)


def test_what_training_lacks_is_known_by_name_and_out_of_the_loss():
    assets = tagging.vocabularies({"train": TRAIN, "test": TEST}, 100)
    assert assets["vocabulary"] == ["[PAD]", "[UNK]", "bonn", "0", "at", "to"]
    assert set(assets["characters"][2:]) == set("ToBnat8") | {"0"}
    assert assets["tags"] == ["B-from", "B-time", "B-to", "O"]
    assert assets["intents"] == ["fare", "flight"]
    assert assets["unseen_tags"] == ["B-via", "I-time"]
    assert assets["unseen_intents"] == ["hotel"]
    encoder = tagging.WordEncoder(assets["vocabulary"], assets["characters"])
    ((features, targets),) = tagging.tagged_batches(TEST, encoder, assets, batch_size=2)
    assert features["tokens"].numpy().tolist() == [[5, 1, 1, 2], [4, 1, 0, 0]]
    assert features["characters"].shape == (2, 4, 5)
    assert targets["tags"].numpy().tolist() == [[3, 2, 3, 4], [3, 5, -1, -1]]
    assert targets["potentials"].numpy().tolist() == [[3, 2, 3, -1], [3, -1, -1, -1]]
    assert targets["intent"].numpy().tolist() == [2, 0]


def test_without_intents_there_is_no_target_for_them():
    rows = dataset(example("to Bonn", "O B-to", ""))
    assets = tagging.vocabularies({"train": rows}, 100)
    assert assets["intents"] == assets["unseen_intents"] == []
    encoder = tagging.WordEncoder(assets["vocabulary"], assets["characters"])
    ((_, targets),) = tagging.tagged_batches(rows, encoder, assets, batch_size=2)
    assert set(targets) == {"tags", "potentials"}
