"""Words and their offsets, ids, spans."""

import unicodedata

import numpy as np
import pytest
import tensorflow as tf

from tests.layers.memory import assert_linear_memory
from unroll.pipelines import lines, tagging

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


def test_offsets_of_words():
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


def test_the_offsets_of_a_text_do_not_need_memory_for_each_word():
    """Of the graph, no string tensor has an element for each word except the words."""
    spec = tf.TensorSpec([1], tf.string)
    graph = tf.function(tagging.split_words).get_concrete_function(spec).graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    assert "UnicodeDecodeWithOffsets" in {node.op for node in nodes}
    assert not [node.name for node in nodes if node.op == "Substr"]


def test_invalid_utf8():
    words, _, ends = tagging.split_words(tf.constant([b"to \xff\xfe bo\xff"]))
    assert words.to_list() == [[b"to", "\ufffd\ufffd".encode(), "bo\ufffd".encode()]]
    assert ends.to_list() == [[2, 5, 9]]


def spans(tags: list[str], begins: list[int], ends: list[int]) -> list[tuple]:
    """The spans of one sentence, tag by tag."""
    result, k = [], 0
    while k < len(tags):
        if tags[k].startswith("B-"):
            last = k
            while tags[last + 1 : last + 2] and tags[last + 1].startswith("I-"):
                last += 1
            result.append((tags[k][2:], begins[k], ends[last]))
            k = last
        k += 1
    return result


def test_spans_of_random_tags():
    names = ["B-a", "B-b", "I-a", "I-b", "O"]
    rng = np.random.default_rng(1)
    lengths = [7, 1, 0, 4, 9, 9]
    tags = np.zeros((6, 9), "int32")
    begins, ends, expected = [], [], []
    for row, length in enumerate(lengths):
        previous = "O"
        for t in range(length):
            allowed = ["B-a", "B-b", "O"] + ([f"I-{previous[2:]}"] if previous != "O" else [])
            previous = rng.choice(allowed)
            tags[row, t] = names.index(previous)
        edges = np.sort(rng.choice(60, 2 * length, replace=False)).tolist()
        begins.append(edges[::2])
        ends.append(edges[1::2])
        own = [names[k] for k in tags[row, :length]]
        expected.append(spans(own, begins[-1], ends[-1]))
    ragged = [tf.ragged.constant(x, dtype=tf.int32) for x in (begins, ends)]
    offsets, labels = (x.numpy() for x in tagging.spans_of(tf.constant(tags), *ragged, names))
    for row in range(6):
        result = [
            (label.decode(), *pair)
            for label, pair in zip(labels[row], offsets[row].tolist(), strict=True)
            if label
        ]
        assert result == expected[row]
        assert (offsets[row, len(result) :] == -1).all()


def test_the_memory_of_spans_is_linear_in_the_text():
    def specs(length):
        offsets = tf.RaggedTensorSpec([2, None], tf.int32, ragged_rank=1)
        return [tf.TensorSpec([2, length], tf.int32), offsets, offsets]

    names = ["B-a", "I-a", "O"]
    assert_linear_memory(lambda *x: tagging.spans_of(*x, names), specs)


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
    example("to Mainz via Bonn", "O B-to B-via B-stop", "hotel"),
    example("at 17", "O I-time", "fare"),
)


def batches(rows: tf.data.Dataset, assets: dict, **options) -> tf.data.Dataset:
    encoder = tagging.WordEncoder(assets["vocabulary"], assets["characters"])
    return tagging.tagged_batches(
        rows, encoder, assets["tags"], assets["intents"], batch_size=2, **options
    )


def test_vocabularies_of_the_training_split():
    assets = tagging.build_vocabularies(TRAIN, 100)
    assert assets["vocabulary"] == ["[PAD]", "[UNK]", "bonn", "0", "at", "to"]
    assert set(assets["characters"][2:]) == set("ToBnat8") | {"0"}
    assert assets["tags"] == ["B-from", "B-time", "B-to", "O"]
    assert assets["intents"] == ["fare", "flight"]


def test_unseen_tags_and_intents_have_ids_and_do_not_enter_the_loss():
    assets = tagging.build_vocabularies(TRAIN, 100)
    [(features, targets)] = batches(TEST, assets)
    assert features["tokens"].numpy().tolist() == [[5, 1, 1, 2], [4, 1, 0, 0]]
    assert features["characters"].shape == (2, 4, 5)
    first, second = targets["tags"].numpy().tolist()
    assert (first[:2], second[0], second[2:]) == ([3, 2], 3, [-1, -1])
    assert min(*first[2:], second[1]) >= len(assets["tags"])
    assert targets["potentials"].numpy().tolist() == [[3, 2, -1, -1], [3, -1, -1, -1]]
    assert targets["intent"].numpy().tolist() == [2, 0]
    # The type of "I-time" is known from "B-time". The other types only differ.
    names = [tagging.tag_name(k, assets["tags"]) for k in (*first, second[1])]
    assert names[:2] + names[4:] == ["O", "B-to", "I-time"]
    assert names[2] != names[3]
    assert all(name.startswith("B-unseen-") for name in names[2:4])


def test_no_target_without_intents():
    rows = dataset(example("to Bonn", "O B-to", ""))
    assets = tagging.build_vocabularies(rows, 100)
    assert assets["intents"] == []
    [(_, targets)] = batches(rows, assets)
    assert set(targets) == {"tags", "potentials"}


MARKS = [
    mark
    for mark in map(chr, range(0x110000))
    if unicodedata.category(mark) in ("Cc", "Cf", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps")
    or unicodedata.category(mark)[0] == "Z"
]


def test_words_are_split_alike_in_files_and_in_the_graph():
    """Every white space, punctuation mark, control and formatting character of Unicode."""
    assert len(MARKS) > 900
    texts = [f"a{mark}b c{mark}" for mark in MARKS]
    graph = tagging.split_words(tf.constant(texts))[0].to_list()
    for mark, text, found in zip(MARKS, texts, graph, strict=True):
        in_python = [part for word in lines.split_words(text) for part in tagging.split_word(word)]
        if mark == ".":  # the one at the end of a text is removed
            in_python[-1] = "c."
            found = [*found[:-1], b"c."]
        assert [word.decode() for word in found] == in_python, f"U+{ord(mark):04X}"
