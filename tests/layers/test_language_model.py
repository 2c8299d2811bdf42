"""The n-gram language model, its ARPA files, and the CTC search with it and with hot words."""

import math

import numpy as np
import pytest
from keras import ops

from tests.layers import running
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
CHARACTERS = ["", " ", *"abdekor"]


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
    ],
)
def test_errors_name_the_file_and_the_line(change, words, tmp_path):
    path = file(tmp_path, ARPA.replace(*change))
    assert_refused(lambda: layers.NGramLanguageModel.from_arpa(path), "words.arpa", *words)


def test_without_a_language_model_it_equals_ctc_beam_search():
    rng = np.random.default_rng(3)
    for _ in range(5):
        logits = rng.normal(size=(9, 5)).astype("float32")
        found = layers.ctc_beam_search_with_language_model(
            logits, list("-abcd"), beam_width=6, num_return_sequences=3
        )
        graph = layers.ctc_beam_search(
            ops.convert_to_tensor(logits[None]), beam_width=6, num_return_sequences=3
        )
        for k, (text, score) in enumerate(found):
            ids = running.numpy(graph.labels)[0, k, : int(graph.lengths[0, k])]
            assert text == "".join("-abcd"[i] for i in ids)
            assert score == pytest.approx(float(graph.log_probabilities[0, k]), abs=1e-4)


def logits_of(text: str, ambiguous: dict) -> np.ndarray:
    """Logits of a text with ambiguous letters: `{position: {letter: probability}}`."""
    rows = []
    for position, letter in enumerate(text):
        probabilities = ambiguous.get(position, {letter: 1.0})
        row = np.full(len(CHARACTERS), 1e-4)
        for k, probability in probabilities.items():
            row[CHARACTERS.index(k)] = probability
        rows += [row, np.eye(len(CHARACTERS))[0] + 1e-4]
    return np.log(np.array(rows) / np.sum(rows, axis=1, keepdims=True))


# "read book" or "red book", which is more probable.
AMBIGUOUS = logits_of("read book", {2: {"a": 0.4, "": 0.6}})


def test_the_language_model_changes_the_best_text(tmp_path):
    model = layers.NGramLanguageModel.from_arpa(file(tmp_path))
    search = layers.ctc_beam_search_with_language_model
    alone, second = search(AMBIGUOUS, CHARACTERS, num_return_sequences=2)
    assert (alone[0], second[0]) == ("red book", "read book")
    ((text, score),) = search(AMBIGUOUS, CHARACTERS, model, language_model_weight=1.0)
    assert text == "read book"
    total = -0.2 - 0.05 - 0.0625 - 0.75  # <s> read, read book, back-off of book, </s>
    assert score == pytest.approx(second[1] + total * math.log(10), abs=1e-3)
    assert search(AMBIGUOUS, CHARACTERS, model, language_model_weight=0.01)[0][0] == "red book"


def test_insertion_bonus(tmp_path):
    model = layers.NGramLanguageModel.from_arpa(file(tmp_path))
    search = layers.ctc_beam_search_with_language_model
    logits = logits_of("red book", {3: {" ": 0.3, "": 0.7}})
    assert search(logits, CHARACTERS, insertion_bonus=0.0)[0][0] == "redbook"
    assert search(logits, CHARACTERS, insertion_bonus=2.0)[0][0] == "red book"
    assert (
        search(logits, CHARACTERS, model, language_model_weight=0.0, insertion_bonus=2.0)[0][0]
        == "red book"
    )


def test_hot_words():
    search = layers.ctc_beam_search_with_language_model
    found = search(AMBIGUOUS, CHARACTERS, hot_words={"read": 2.0})
    plain = dict(search(AMBIGUOUS, CHARACTERS, num_return_sequences=2))
    assert found == [("read book", pytest.approx(plain["read book"] + 2.0, abs=1e-2))]
    assert search(AMBIGUOUS, CHARACTERS, hot_words={"rea": 2.0})[0][0] == "red book"


def test_a_language_model_of_characters():
    entries = {(c,): (-1.0, 0.0) for c in CHARACTERS[1:]} | {("e", "a"): (-0.01, 0.0)}
    model = layers.NGramLanguageModel(entries | {("</s>",): (-0.1, 0.0), ("<s>",): (-9.0, 0.0)})
    search = layers.ctc_beam_search_with_language_model
    options = {"unit": "character", "language_model_weight": 1.0, "insertion_bonus": 2.4}
    assert search(AMBIGUOUS, CHARACTERS, model, **options)[0][0] == "read book"


INVALID = [
    (lambda: _search(np.zeros((5, 3)), ["a", "b"]), ["[T, 2]", "[5, 3]"]),
    (lambda: _search(np.zeros((5, 2)), ["a", "b"], unit="phone"), ["unit", "'phone'"]),
]


def _search(*given, **options):
    return layers.ctc_beam_search_with_language_model(*given, **options)


@pytest.mark.parametrize(("action", "words"), INVALID)
def test_invalid_arguments(action, words):
    assert_refused(action, *words)


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
