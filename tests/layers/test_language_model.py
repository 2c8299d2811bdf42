"""The n-gram language model, its files, and its estimation from texts."""

import copy
import math
import pickle
import sys

import numpy as np
import pytest

from tests.layers.recurrent_checks import assert_refused
from unroll import layers

ARPA = """a comment
\\data\\
ngram 1=6
ngram 2=3
ngram 3=1

\\1-grams:
-1.0\t<unk>\t-0.5
-99\t<s>\t-0.25
-0.75\t</s>
-0.5\tred\t-0.125
-0.625\tread\t-0.375
-0.875\tbook\t-0.0625

\\2-grams:
-0.2 <s> read -0.3
-0.1 read book
-0.4 red book

\\3-grams:
-0.05 <s> read book

\\end\\
"""


def file(tmp_path, text=ARPA):
    path = tmp_path / "words.arpa"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("ngram", "log10"),
    [
        ("read", -0.625),
        ("<s> read", -0.2),
        ("<s> read book", -0.05),
        ("red read book", -0.1),  # no trigram and no back-off of "red read": the bigram
        ("<s> red", -0.25 - 0.5),
        ("<s> read red", -0.3 - 0.375 - 0.5),  # "read red" has no entry either
        ("blue", -1.0),  # unknown
        ("<s> blue", -0.25 - 1.0),
        ("blue book", -0.5 - 0.875),
        ("book red <s> read book", -0.05),  # the last tokens of a long context
    ],
)
def test_probabilities_with_back_off(ngram, log10, tmp_path):
    model = layers.NGramLanguageModel.from_arpa(file(tmp_path))
    assert model.order == 3
    *context, token = ngram.split()
    assert model.log_probability(token, context) == pytest.approx(log10 * math.log(10))


def test_unknown_tokens_without_an_entry_for_unk():
    model = layers.NGramLanguageModel({("a",): (-0.5, 0.0)}, unknown=-3.0)
    assert "a" in model
    assert "b" not in model
    assert model.log_probability("b") == pytest.approx(-3 * math.log(10))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("\\end\\", ""), ["line 23", "\\end\\"]),
        (("ngram 2=3", "ngram 2=4"), ["4 2-grams", "got 3"]),
        (("ngram 1=6", "ngram one=6"), ["line 3", "ngram N=COUNT", "one"]),
        (("-0.1 read book", "-0.1 read"), ["line 17", "2 tokens", "'-0.1 read'"]),
        (("-0.5\tred", "half\tred"), ["line 11", "half"]),
        (("\\3-grams:", "\\4-grams:"), ["line 20", "not declared"]),
        (("\\data\\", "\\dat\\"), ["line 2", "expected \\data\\", "\\dat\\"]),
        (("\\2-grams:", "\\3-grams:"), ["line 15", "expected \\2-grams:", "\\3-grams:"]),
        (("\n\\3-grams:\n-0.05 <s> read book\n", ""), ["line 20", "\\3-grams:", "\\end\\"]),
        (("ngram 3=1", "ngram 4=1"), ["line 20", "not declared"]),
        (("-0.5\tred", "nan\tred"), ["line 11", "finite"]),
        (("-0.3\n", "nan\n"), ["line 16", "finite"]),
        (("-0.3\n", "inf\n"), ["line 16", "finite"]),
        (("-0.5\tred", "0.5\tred"), ["line 11", "at most 0"]),
        (("\tred\t", "\tread\t"), ["line 12", "'read'", "two entries"]),
        (("\tred\t", "\t<UNK>\t"), ["line 11", "'<unk>'", "two entries"]),
        (("-0.4 red book", "-0.4 <s> read"), ["line 18", "two entries"]),
        (("-0.4 red book", "-0.4 red cook"), ["line 18", "'cook'", "1-grams"]),
        (("-0.05 <s> read book", "-0.05 book read book"), ["line 21", "context", "3-gram"]),
    ],
)
def test_errors_name_the_file_and_the_line(change, words, tmp_path):
    path = file(tmp_path, ARPA.replace(*change))
    assert_refused(lambda: layers.NGramLanguageModel.from_arpa(path), "words.arpa", *words)


@pytest.mark.parametrize("text", ["", "\\end\\", "no model", "\\data\\\n\\end\\"])
def test_a_file_without_ngrams_is_refused(text, tmp_path):
    path = file(tmp_path, text)
    assert_refused(lambda: layers.NGramLanguageModel.from_arpa(path), "words.arpa, line")


def test_a_binary_file_is_refused(tmp_path):
    path = tmp_path / "words.bin"
    path.write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0\xff\xfe")
    assert_refused(lambda: layers.NGramLanguageModel.from_arpa(path), "words.bin", "from_kenlm")


@pytest.mark.parametrize(
    "change",
    [
        ("<unk>", "<UNK>"),
        ("\n", "\r\n"),
        ("a comment", "\ufeff"),
        ("-0.1 read book", "-0.1  read\tbook "),
        ("ngram 3=1\n", "ngram 3=1\nngram 4=0\n", "\n\\end", "\n\\4-grams:\n\\end"),
    ],
)
def test_other_forms_of_an_arpa_file(change, tmp_path):
    text = ARPA
    for old, new in zip(change[::2], change[1::2], strict=True):
        text = text.replace(old, new)
    path = tmp_path / "words.arpa"
    path.write_bytes(text.encode())
    expected = layers.NGramLanguageModel.from_arpa(file(tmp_path)).entries
    path.write_bytes(text.encode())
    assert layers.NGramLanguageModel.from_arpa(path).entries == expected


def test_unknown_in_capitals():
    model = layers.NGramLanguageModel.from_lines(ARPA.replace("<unk>", "<UNK>").splitlines())
    for token in ("blue", "<unk>", "<UNK>"):
        assert model.log_probability(token) == pytest.approx(-math.log(10))


def test_a_token_may_have_a_no_break_space():
    model = layers.NGramLanguageModel.from_texts([["a\u00a0b", "c\u2028d", "\x85"]])
    lines = "\n".join(model.to_arpa()).split("\n")
    assert layers.NGramLanguageModel.from_lines(lines).entries.keys() == model.entries.keys()


@pytest.mark.parametrize("token", ["a b", "", "a\tb"])
def test_a_token_that_an_arpa_file_cannot_have(token):
    model = layers.NGramLanguageModel.from_texts([["a", token]])
    assert model.log_probability(token, ["a"]) > model.log_probability("a", ["a"])
    assert_refused(model.to_arpa, repr(token))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({("a",): (math.nan, 0.0)}, ["'a'", "finite"]),
        ({("a",): (-1.0, math.inf)}, ["'a'", "finite"]),
        ({("a",): (0.1, 0.0)}, ["'a'", "at most 0"]),
        ({("a",): (-1.0, 0.0), ("a", "b"): (-1.0, 0.0)}, ["'a b'", "'b'", "1-grams"]),
        ({("a",): (-1.0, 0.0), ("a", "a", "a"): (-1.0, 0.0)}, ["'a a a'", "context"]),
    ],
)
def test_invalid_entries(entries, words):
    assert_refused(lambda: layers.NGramLanguageModel(entries), *words)


def test_an_invalid_probability_of_unknown_tokens():
    for unknown in (math.nan, -math.inf, 0.5):
        words = ["unknown must", str(unknown)]
        assert_refused(lambda u=unknown: layers.NGramLanguageModel({}, unknown=u), *words)
        lines = (
            ARPA.replace("-1.0\t<unk>\t-0.5\n", "").replace("ngram 1=6", "ngram 1=5").split("\n")
        )
        assert_refused(
            lambda u=unknown, x=lines: layers.NGramLanguageModel.from_lines(x, u), *words
        )


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_a_model(duplicate):
    model = layers.NGramLanguageModel.from_texts(TEXTS, 3)
    again = duplicate(model)
    assert again.entries == model.entries
    assert again.log_probability("b", ["<s>", "a"]) == model.log_probability("b", ["<s>", "a"])


TEXTS = ["a b a c".split(), "a b".split(), "c a b b".split(), []]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_estimated_probabilities_sum_to_one_for_every_context(order):
    model = layers.NGramLanguageModel.from_texts(TEXTS, order)
    assert model.order == order
    for context in ([], ["<s>"], ["a"], ["a", "b"], ["<s>", "a"], ["c", "c"], ["not", "known"]):
        total = sum(
            math.exp(model.log_probability(token, context))
            for token in ("a", "b", "c", "</s>", "<unk>")
        )
        assert total == pytest.approx(1, abs=1e-9)


def test_estimated_probabilities_follow_the_equation():
    model = layers.NGramLanguageModel.from_texts(TEXTS, 2)
    # 14 tokens with the ends, 4 of them distinct; "a" occurs 4 times.
    shorter = (4 + 4 * (1 / 5)) / (14 + 4)
    assert math.exp(model.log_probability("a")) == pytest.approx(shorter, abs=1e-9)
    # "b" is followed by "a", "b" and twice the end.
    after_b = (1 + 3 * shorter) / (4 + 3)
    assert math.exp(model.log_probability("a", ["b"])) == pytest.approx(after_b, abs=1e-9)
    shorter_c = (2 + 4 * (1 / 5)) / (14 + 4)
    assert math.exp(model.log_probability("c", ["b"])) == pytest.approx(3 / 7 * shorter_c, abs=1e-9)


def test_an_estimated_model_is_written_and_read(tmp_path):
    model = layers.NGramLanguageModel.from_texts(TEXTS, 3)
    path = file(tmp_path, "\n".join(model.to_arpa()))
    again = layers.NGramLanguageModel.from_arpa(path)
    assert again.entries.keys() == model.entries.keys()
    for ngram, values in model.entries.items():
        np.testing.assert_allclose(again.entries[ngram], values, atol=1e-6)
    lines = layers.NGramLanguageModel.from_lines(model.to_arpa())
    assert lines.entries == again.entries


def test_from_texts_needs_texts_and_an_order():
    assert_refused(lambda: layers.NGramLanguageModel.from_texts([]), "texts", "got none")
    assert_refused(lambda: layers.NGramLanguageModel.from_texts(TEXTS, 0), "order")
    assert_refused(lambda: layers.NGramLanguageModel.from_texts(TEXTS, True), "order")
    assert_refused(lambda: layers.NGramLanguageModel.from_texts(TEXTS, min_count=0), "min_count")
    assert layers.NGramLanguageModel.from_texts(TEXTS, np.int64(2)).order == 2
    assert layers.NGramLanguageModel.from_texts(iter([iter("ab")])).order == 3


@pytest.mark.parametrize("token", ["<s>", "</s>"])
def test_texts_with_the_tokens_of_their_ends_are_refused(token):
    texts = [["a"], ["b", token]]
    assert_refused(lambda: layers.NGramLanguageModel.from_texts(texts), repr(token))


@pytest.mark.parametrize("unknown", ["<unk>", "<UNK>"])
def test_unknown_tokens_in_the_texts_are_counted(unknown):
    texts = [["a", unknown, unknown, "b"], ["a", "b", unknown]]
    model = layers.NGramLanguageModel.from_texts(texts, 2)
    # 9 tokens with the ends, 4 of them distinct; <unk> occurs 3 times.
    shorter = (3 + 4 * (1 / 4)) / (9 + 4)
    assert math.exp(model.log_probability("<unk>")) == pytest.approx(shorter, abs=1e-12)
    # <unk> is followed by itself, "b" and the end.
    after = (1 + 3 * shorter) / (3 + 3)
    assert math.exp(model.log_probability("new", ["<unk>"])) == pytest.approx(after, abs=1e-12)
    for context in ([], ["<s>"], ["a"], ["<unk>"], ["new"]):
        tokens = ("a", "b", "</s>", "<unk>")
        total = sum(math.exp(model.log_probability(token, context)) for token in tokens)
        assert total == pytest.approx(1, abs=1e-12)


def test_rare_ngrams_are_left_out():
    model = layers.NGramLanguageModel.from_texts(TEXTS, 3, min_count=2)
    longer = {" ".join(ngram) for ngram in model.entries if len(ngram) > 1}
    assert longer == {"<s> a", "a b", "b </s>", "<s> a b"}
    # "a" is followed by "b" three times, and once by "c", which is left out: T + R = 3.
    b, c = (4 + 4 * (1 / 5)) / (14 + 4), (2 + 4 * (1 / 5)) / (14 + 4)
    assert math.exp(model.log_probability("b", ["a"])) == pytest.approx((3 + 3 * b) / 6, abs=1e-9)
    assert math.exp(model.log_probability("c", ["a"])) == pytest.approx(3 * c / 6, abs=1e-9)


def test_kenlm_reads_the_files(tmp_path):
    kenlm = pytest.importorskip("kenlm", reason="KenLM reads its files")
    model = layers.NGramLanguageModel.from_texts(TEXTS, 3)
    path = file(tmp_path, "\n".join([*model.to_arpa(), ""]))
    ours, theirs = (
        read(path)
        for read in (layers.NGramLanguageModel.from_arpa, layers.NGramLanguageModel.from_kenlm)
    )
    assert theirs.order == 3
    assert "a" in theirs
    assert "new" not in theirs
    for *context, token in (["a"], ["<s>", "a"], ["a", "b", "a"], ["new", "a"], ["c", "new"]):
        expected = ours.log_probability(token, context)
        assert theirs.log_probability(token, context) == pytest.approx(expected, abs=1e-5)
    text = "a b new c"
    state, total = theirs.initial_state(), 0.0
    for token in (*text.split(), "</s>"):
        log_probability, state = theirs.score(state, token)
        total += log_probability
    assert total == pytest.approx(kenlm.Model(str(path)).score(text) * math.log(10), abs=1e-5)
    with pytest.raises(AttributeError, match="hashes"):
        theirs.to_arpa()
    assert theirs.word_look_ahead is None
    with_words = layers.NGramLanguageModel.from_kenlm(path, ["a", "b", "c", "new"])
    for word in ("a", "b", "c"):
        words = with_words.word_look_ahead.ranges("", [word])
        [log10] = with_words.word_look_ahead.log10(with_words.initial_state(), words)
        assert log10 * math.log(10) == pytest.approx(ours.log_probability(word), abs=1e-5)
    with pytest.raises(OSError, match=r"none\.bin"):
        layers.NGramLanguageModel.from_kenlm(tmp_path / "none.bin")


def test_a_missing_package_is_named_with_its_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(ImportError, match="pip install kenlm"):
        layers.NGramLanguageModel.from_kenlm(tmp_path / "words.bin")
