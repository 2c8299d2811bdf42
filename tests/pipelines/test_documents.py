"""Words of documents: sentences, percent signs, possessives, and their offsets."""

import pytest
import tensorflow as tf

from unroll.pipelines import tagging


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A survey. We study it.", "A survey . We study it ."),
        ("(see Ritchie et al.). It works.", "( see Ritchie et al . ) . It works ."),
        ("The U.S. market, at 3.5 p.m., e.g. 5%.", "The U.S. market , at 3.5 p.m. , e.g. 5 % ."),
        ("Networks: a survey (2nd ed.)", "Networks : a survey ( 2nd ed . )"),
        ("Knuth's book; it’s “old” – yes", "Knuth 's book ; it ’s “ old ” – yes"),
        ("version 2:1 of C++ in I/O", "version 2:1 of C++ in I/O"),
        ("Zürich. 杭州很大. 😀. End", "Zürich . 杭州很大 . 😀. End"),
        ("a\x01b\x02c. d", "a b c. d"),
        ("...", "..."),
        ("", ""),
    ],
)
def test_words_of_a_document(text, words):
    found, begins, ends = tagging.split_words(tf.constant([text]), documents=True)
    found = [word.decode() for word in found.to_list()[0]]
    assert found == words.split()
    offsets = zip(begins.to_list()[0], ends.to_list()[0], strict=True)
    assert [text[begin:end] for begin, end in offsets] == found


def test_sentences_of_slots_are_split_as_before():
    words = tagging.split_words(tf.constant(["St. Louis. It's 5%: go."]))[0].to_list()[0]
    assert words == [b"St.", b"Louis.", b"It's", b"5%:", b"go"]


def test_invalid_utf8():
    words, _, ends = tagging.split_words(tf.constant([b"to \xff\xfe. bo\xff."]), documents=True)
    assert words.to_list() == [[b"to", "\ufffd\ufffd".encode(), b".", "bo\ufffd".encode(), b"."]]
    assert ends.to_list() == [[2, 5, 6, 10, 11]]


def test_a_text_of_a_megabyte():
    text = "Knuth's book. Yes: 5%. " * 40_000
    words, _, ends = tagging.split_words(tf.constant([text]), documents=True)
    assert words.row_lengths().numpy().tolist() == [9 * 40_000]
    assert int(ends[0, -1]) == len(text) - 1


def dataset_of(rows: list[dict]) -> tf.data.Dataset:
    specs = {name: tf.TensorSpec([None], tf.string) for name in ("words", "tags")}
    specs["intent"] = tf.TensorSpec([], tf.string)
    return tf.data.Dataset.from_generator(lambda: rows, output_signature=specs)


@pytest.mark.parametrize("with_words", [False, True])
def test_targets_have_the_words_on_request(with_words):
    rows = [{"words": ["A", "b", "c"], "tags": ["O", "B-x", "I-x"], "intent": ""}] * 2
    rows.append({"words": ["D"], "tags": ["B-y"], "intent": ""})
    dataset = dataset_of(rows)
    encoder = tagging.WordEncoder(["[PAD]", "[UNK]", "b"], ["[PAD]", "[UNK]", "b"])
    tags = ["B-x", "I-x", "O"]
    made = tagging.tagged_batches(dataset, encoder, tags, [], 3, with_words=with_words)
    [(features, targets)] = made.as_numpy_iterator()
    assert features["tokens"].tolist() == [[1, 2, 1], [1, 2, 1], [1, 0, 0]]
    assert targets["potentials"].tolist() == [[2, 0, 1], [2, 0, 1], [-1, -1, -1]]
    assert set(targets) == {"tags", "potentials"} | ({"words"} if with_words else set())
    if with_words:
        assert targets["words"].tolist() == [
            [b"A", b"b", b"c"],
            [b"A", b"b", b"c"],
            [b"D", b"", b""],
        ]


def test_a_word_of_invisible_characters_is_unknown():
    words = ["a", "\u00ad", "\u200b"]
    row = {"words": words, "tags": ["O"] * 3, "intent": ""}
    made = tagging.build_vocabularies(dataset_of([row]), 100)
    assert made["vocabulary"] == ["[PAD]", "[UNK]", "a"]
    encoder = tagging.WordEncoder(made["vocabulary"], made["characters"])
    assert encoder(tf.ragged.constant([words]))["tokens"].numpy().tolist() == [[2, 1, 1]]
