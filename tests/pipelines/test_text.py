"""Text in the graph."""

import json
import unicodedata

import numpy as np
import pytest
import tensorflow as tf

from tests.pipelines.mutations import outcomes
from unroll.pipelines import text
from unroll.pipelines.errors import DataError


@pytest.mark.parametrize(
    ("raw", "tokens"),
    [
        ("It wasn't bad: 10/10!", ["it", "was", "n't", "bad", ":", "10", "/", "10", "!"]),
        ("Don\u2019t 'quote' me<br />I'd go", "do n't ' quote ' me i 'd go".split()),
        # Text that is tokenized as in the Penn Treebank does not change.
        ("it 's n't -lrb- so -rrb- rock'n'roll", "it 's n't so rock'n'roll".split()),
        ("我是学生。これはペン ABC", [*"我是学生。これはペン", "abc"]),
        ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
        ("😀❤️👨‍👩‍👧 ok", ["😀", "❤", "👨", "👩", "👧", "ok"]),
        ("nul\0byte", ["nul", "byte"]),
        ("", []),
        (" \t\n ", []),
        # NFKC: a combining accent, a ligature, a full-width letter.
        ("cafe\u0301 \ufb01ne \uff21", ["caf\u00e9", "fine", "a"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        (b"bad\xffutf", ["bad", "\ufffd", "utf"]),
    ],
)
def test_tokens(raw, tokens):
    [row] = text.tokenize(tf.constant([raw])).to_list()
    assert [token.decode() for token in row] == tokens


def test_any_white_space_and_control_character_separates_tokens():
    separators = [
        c for c in map(chr, range(0x110000)) if c.isspace() or unicodedata.category(c) == "Cc"
    ]
    assert len(separators) > 80
    texts = [f"{c}a{c}{c}b{c}" for c in separators]
    assert text.tokenize(tf.constant(texts)).to_list() == [[b"a", b"b"]] * len(texts)


def test_punctuation_marks_are_tokens_of_their_own_or_part_of_a_contraction():
    marks = [c for c in map(chr, range(0x110000)) if unicodedata.category(c)[0] == "P"]
    rows = text.tokenize(tf.constant([f"a {c} b" for c in marks])).to_list()
    for mark, found in zip(marks, rows, strict=True):
        normal = unicodedata.normalize("NFKC", mark).replace("\u2018", "'").replace("\u2019", "'")
        inside = b"".join(found).decode().removeprefix("a").removesuffix("b")
        assert inside == "".join(normal.casefold().split()), f"U+{ord(mark):04X}"


def test_normalization_is_idempotent():
    once = text.normalize(tf.constant(["Isn't it -- well -- 'odd', 3.5 stars?!", "我们 don't"]))
    assert text.normalize(once).numpy().tolist() == once.numpy().tolist()


def test_text_is_tokenized_alike_alone_in_a_batch_and_in_a_graph():
    raw = ["One.", "", "Two words, and then some more of them!"]
    together = text.tokenize(tf.constant(raw)).to_list()
    alone = [text.tokenize(tf.constant([one])).to_list()[0] for one in raw]
    graph = tf.function(text.tokenize, input_signature=[tf.TensorSpec([None], tf.string)])
    assert together == alone == graph(tf.constant(raw)).to_list()


def test_vocabulary_is_ordered_by_frequency_then_code_point():
    corpus = tf.data.Dataset.from_tensor_slices(["b a c b", "a d 1987 1988 1"])
    tokens = text.build_vocabulary(corpus, max_size=7)
    assert tokens == ["[PAD]", "[UNK]", "0000", "a", "b", "0", "1"]
    assert text.build_vocabulary(corpus, 100, min_count=2) == ["[PAD]", "[UNK]", "0000", "a", "b"]


def test_unknown_words_and_numbers():
    vocabulary = text.Vocabulary(["[PAD]", "[UNK]", "a", "0000", "1999"])
    ids = vocabulary(tf.constant(["a", "zzz", "1999", "2001", "12"]))
    assert ids.dtype == tf.int32
    assert ids.numpy().tolist() == [2, 1, 4, 3, 1]
    ragged = vocabulary(tf.ragged.constant([["a"], [], ["b", "a"]]))
    assert ragged.to_list() == [[2], [], [1, 2]]


def test_letter_trigrams():
    def trigram_id(trigram):
        digits = [0 if c == "#" else ord(c) - ord("a") + 1 for c in trigram]
        return digits[0] * 729 + digits[1] * 27 + digits[2] + 1

    rows = text.letter_trigrams(text.tokenize(tf.constant(["good no 10", "", "我"]))).to_list()
    good = [trigram_id(t) for t in ("#go", "goo", "ood", "od#")]
    assert rows == [
        [good, [trigram_id("#no"), trigram_id("no#")], [text.NUM_TRIGRAMS]],
        [],
        [[text.NUM_TRIGRAMS]],
    ]
    assert trigram_id("zzz") < text.NUM_TRIGRAMS


def test_batches_of_texts_and_labels():
    rows = {"text": ["good bad", "never good at all", ""], "label": [0, 1, 1]}
    dataset = tf.data.Dataset.from_tensor_slices(rows)
    encoder = text.Encoder(TOKENS, trigrams=True)
    [(features, labels)] = text.text_batches(dataset, encoder, 3, max_length=3)
    assert features["tokens"].numpy().tolist() == [[2, 3, 0], [4, 2, 1], [0, 0, 0]]
    assert features["trigrams"].shape == (3, 3, 5)
    assert labels.numpy().tolist() == [0, 1, 1]


def test_dense_ids_have_at_least_one_step():
    empty = tf.ragged.constant([[], []], dtype=tf.int32)
    assert text.to_dense(empty).numpy().tolist() == [[0], [0]]
    assert text.to_dense(tf.ragged.constant([[5], [6, 7]])).numpy().tolist() == [[5, 0], [6, 7]]
    assert text.to_dense(tf.zeros([0], tf.int32), time_axis=0).shape == [1]
    nested = tf.ragged.constant([[[1, 2], [3]], []], ragged_rank=2)
    assert text.to_dense(nested).shape == [2, 2, 2]


TOKENS = ["[PAD]", "[UNK]", "good", "bad", "never"]


def test_vectors_are_read_from_glove_text_and_json(tmp_path):
    vectors = {"bad": [1.0, -2.0, 0.5], "good": [0.25, 0.0, 3.0], "other": [9.0, 9.0, 9.0]}
    lines = tmp_path / "glove.txt"
    lines.write_text("".join(f"{w} {' '.join(map(str, v))}\n" for w, v in vectors.items()))
    objects = tmp_path / "glove.json"
    objects.write_text(json.dumps(vectors))
    for path in (lines, objects):
        matrix, known = text.read_vectors(path, TOKENS)
        assert matrix.shape == (5, 3)
        assert matrix.dtype == np.float32
        assert known == 2
        assert matrix[2].tolist() == vectors["good"]
        assert matrix[3].tolist() == vectors["bad"]
        assert not matrix[0].any()
        assert matrix[4].any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("good 1 2\nbad 1\n", "row 2: 1 values, but the first row has 2"),
        ("good\nbad 1\n", "row 1: 0 values"),
        ("good 1 2\nbad 1 x\n", "row 2: expected 'word v1 v2 ...'"),
        ("good 1 2\nbad 1 nan\n", "row 2: a value is not finite"),
        ("", "has no vectors"),
        (b"good \xff\xfe\n", "is not a file of word vectors"),
    ],
)
def test_broken_vectors(tmp_path, content, message):
    path = tmp_path / "v.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as error:
        text.read_vectors(path, TOKENS)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "is not a JSON object"),
        ('{"good": 1}', "row 1: expected"),
        ('{"good": ["x"]}', "row 1: expected"),
        ('{"good": [[1, 2]]}', "row 1: expected"),
        ('{"good": [1e999]}', "row 1: a value is not finite"),
        ("{", "line 1: not JSON"),
    ],
)
def test_broken_json_vectors(tmp_path, content, message):
    path = tmp_path / "v.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        text.read_vectors(path, TOKENS)


def test_vectors_of_word2vec_and_words_with_spaces(tmp_path):
    path = tmp_path / "v.vec"
    path.write_text("3 2\ngood 1 2 \n. . . 5 6\nbad 3 4\n", encoding="utf-8-sig")
    matrix, known = text.read_vectors(path, TOKENS)
    assert known == 2
    assert matrix[2:4].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("name", ["v.txt", "v.json"])
def test_mutated_vectors_are_read_or_refused_in_one_line(tmp_path, name):
    """1,000 mutations of each format."""
    rows = {"good": [1.5, -2.0], "bad": [3e4, 0.25], "é": [1.0, 2.0], "never": [0.0, 7.0]}
    lines = "".join(f"{word} {a} {b}\n" for word, (a, b) in rows.items())
    content = lines if name == "v.txt" else json.dumps(rows, ensure_ascii=False)

    def read(path):
        return text.read_vectors(path, TOKENS)

    for matrix, known in outcomes(tmp_path / name, read, content.encode()):
        assert np.isfinite(matrix).all()
        assert 0 <= known <= 3


def test_ids_that_are_not_in_the_vocabulary_are_unknown():
    ids = text.known_ids(tf.constant([-(2**31), -1, 0, 4, 5, 2**31 - 1]), 5)
    assert ids.numpy().tolist() == [1, 1, 0, 4, 1, 1]


def test_texts_that_are_cut_are_counted(capsys):
    rows = {"text": ["good bad", "never good at all", ""], "label": [0, 1, 1]}
    dataset = tf.data.Dataset.from_tensor_slices(rows)
    [(features, _)] = text.text_batches(dataset, text.Encoder(TOKENS), 3, max_length=2)
    assert features["tokens"].shape == (3, 2)
    assert "1 of 3 training texts are cut after 2 tokens" in capsys.readouterr().err


def test_missing_vectors(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        text.read_vectors(tmp_path / "none.txt", TOKENS)


def test_published_vectors(manual_dir):
    matrix, known = text.read_vectors(manual_dir / "glove" / "glove-50d-5k.json", TOKENS)
    assert matrix.shape == (5, 50)
    assert known == 3

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    assert cosine(matrix[2], matrix[3]) > 0.5
