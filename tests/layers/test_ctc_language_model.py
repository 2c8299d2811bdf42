"""The CTC beam search with a language model and hot words."""

import itertools
import math
import time
import tracemalloc

import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.recurrent_checks import assert_refused
from unroll import layers

CHARACTERS = ["", " ", *"abdekor"]


@pytest.fixture(scope="module")
def model() -> layers.NGramLanguageModel:
    """A bigram model in which "read book" is more probable than "red book"."""
    unigrams = {"<unk>": -1.0, "<s>": -99, "</s>": -0.75, "red": -0.5, "read": -0.6, "book": -0.9}
    bigrams = {("<s>", "read"): -0.2, ("read", "book"): -0.1, ("red", "book"): -0.4}
    entries = {(token,): (log10, -0.125) for token, log10 in unigrams.items()}
    return layers.NGramLanguageModel(entries | {k: (v, 0.0) for k, v in bigrams.items()})


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


def test_the_language_model_changes_the_best_text(model):
    search = layers.ctc_beam_search_with_language_model
    alone, second = search(AMBIGUOUS, CHARACTERS, num_return_sequences=2)
    assert (alone[0], second[0]) == ("red book", "read book")
    ((text, score),) = search(AMBIGUOUS, CHARACTERS, model, language_model_weight=1.0)
    assert text == "read book"
    total = -0.2 - 0.1 - 0.125 - 0.75  # <s> read, read book, back-off of book, </s>
    assert score == pytest.approx(second[1] + total * math.log(10), abs=1e-3)
    assert search(AMBIGUOUS, CHARACTERS, model, language_model_weight=0.01)[0][0] == "red book"


def test_insertion_bonus(model):
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


def every_text(logits, characters, blank: int) -> dict[str, float]:
    """The log probability of each text, by enumeration of all paths."""
    log_probs = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
    texts = {}
    for path in itertools.product(range(len(characters)), repeat=len(logits)):
        labels = [k for k, _ in itertools.groupby(path) if k != blank]
        text = "".join(characters[k] for k in labels)
        log_prob = sum(log_probs[t, k] for t, k in enumerate(path))
        texts[text] = np.logaddexp(texts.get(text, -math.inf), log_prob)
    return texts


LABELS = {
    "letters": ["-", "a", " ", "b"],
    "blank last": ["a", " ", "b", "-"],
    "words": ["-", "a ", "ab ", "b "],
    "pieces": ["-", " a", "b", "ab"],
}


@pytest.mark.parametrize("unit", ["word", "character"])
@pytest.mark.parametrize("labels", LABELS)
def test_scores_are_those_of_the_definition(labels, unit):
    characters, rng = LABELS[labels], np.random.default_rng(4)
    blank, weight, bonus, hot_words = characters.index("-"), 0.7, 0.9, {"ab": 1.5, "b": -0.5}
    texts = ["a b", "ab", "b b a", "aab b"]
    units = str.split if unit == "word" else list
    language_model = layers.NGramLanguageModel.from_texts([units(text) for text in texts], 3)
    for frames in range(6):
        logits = rng.normal(scale=2, size=(frames, len(characters)))
        expected = {}
        for text, log_prob in every_text(logits, characters, blank).items():
            text = " ".join(text.split()) if unit == "word" else text
            expected[text] = np.logaddexp(expected.get(text, -math.inf), log_prob)
        for text in expected:
            tokens = ["<s>", *units(text), "</s>"]
            of_model = sum(
                language_model.log_probability(token, tokens[:k])
                for k, token in enumerate(tokens)
                if k
            )
            expected[text] += weight * of_model + bonus * (len(tokens) - 2)
            expected[text] += sum(hot_words.get(word, 0) for word in text.split())
        found = layers.ctc_beam_search_with_language_model(
            logits,
            characters,
            language_model,
            unit=unit,
            language_model_weight=weight,
            insertion_bonus=bonus,
            hot_words=hot_words,
            beam_width=1000,
            blank=blank,
            num_return_sequences=1000,
        )
        assert [score for _, score in found] == sorted(dict(found).values(), reverse=True)
        assert dict(found) == pytest.approx(expected, abs=1e-9)


def test_spaces_make_no_difference_to_words_and_do_to_characters():
    logits = logits_of("a b", {1: {" ": 0.7, "": 0.3}})
    logits = np.repeat(logits, 3, axis=0)  # also paths with a blank between two spaces
    search = layers.ctc_beam_search_with_language_model
    words = dict(search(logits, CHARACTERS, num_return_sequences=20))
    characters = dict(search(logits, CHARACTERS, unit="character", num_return_sequences=20))
    same = [score for text, score in characters.items() if text.split() == ["a", "b"]]
    assert len(same) > 1
    assert len({tuple(text.split()) for text in words}) == len(words)
    assert words["a b"] == pytest.approx(np.logaddexp.reduce(same), abs=1e-3)
    assert max(same) == characters["a b"]


def test_excluded_labels():
    logits = np.array([[-math.inf, 0.0, -1.0], [-math.inf, 0.0, -math.inf]])
    found = _search(logits, ["-", "a", "b"], beam_width=9, num_return_sequences=9)
    assert [text for text, _ in found] == ["a", "ba"]
    assert np.exp([score for _, score in found]).sum() == pytest.approx(1)


def test_improbable_labels_are_left_out():
    probabilities = np.array([[0.9, 0.06, 0.04], [0.04, 0.3, 0.66]])
    options = {"beam_width": 9, "num_return_sequences": 9}
    for minimum, expected in (
        (0.05, {"a": 0.9 * 0.3 + 0.06 * 0.3, "b": 0.9 * 0.66, "ab": 0.06 * 0.66}),
        (1.0, {"b": 0.9 * 0.66}),
    ):
        found = _search(
            np.log(probabilities), ["-", "a", "b"], token_min_logp=math.log(minimum), **options
        )
        assert {text: math.exp(score) for text, score in found} == pytest.approx(expected)


def test_no_frames(model):
    [(text, score)] = _search(np.zeros((0, 9)), CHARACTERS, model, insertion_bonus=1.0)
    assert text == ""
    assert score == pytest.approx(0.5 * model.log_probability("</s>", ["<s>"]))


def test_a_weight_of_zero_does_not_use_the_language_model():
    assert _search(AMBIGUOUS, CHARACTERS, object(), language_model_weight=0) == _search(
        AMBIGUOUS, CHARACTERS
    )


def speech(frames: int, rng) -> np.ndarray:
    """Random logits, with a peak in each frame, blanks in every other one and a space in ten."""
    logits = rng.normal(size=(frames, 28))
    labels = rng.integers(2, 28, frames)
    labels[::2], labels[1::10] = 0, 1
    logits[np.arange(frames), labels] += 5
    return logits


LETTERS = ["", " ", *"abcdefghijklmnopqrstuvwxyz"]


@pytest.mark.parametrize("unit", ["word", "character"])
@pytest.mark.exhaustive
def test_time_and_memory_are_linear_in_the_number_of_frames(unit):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(LETTERS, 60)) for _ in range(20)]
    units = [text.split() if unit == "word" else list(text) for text in texts]
    language_model = layers.NGramLanguageModel.from_texts(units)

    def cost(frames: int) -> tuple[float, float]:
        logits = speech(frames, rng)
        times = []
        for _ in range(3):
            start = time.process_time()
            _search(logits, LETTERS, language_model, unit=unit, beam_width=16)
            times.append(time.process_time() - start)
        tracemalloc.start()
        _search(logits, LETTERS, language_model, unit=unit, beam_width=16)
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return min(times), memory

    (seconds, memory), (seconds_of_more, memory_of_more) = cost(250), cost(1000)
    assert memory_of_more < 4.4 * memory
    assert seconds_of_more < 8 * seconds
    assert seconds_of_more < 2  # 40 seconds of speech, 25 frames each


def first_letter(probabilities: dict[str, float]) -> np.ndarray:
    return logits_of("read", {0: probabilities})


def test_a_prefix_that_begins_no_word_has_the_score_of_an_unknown_word(model):
    """ "o" is the better first letter, until the word is complete."""
    logits = first_letter({"o": 0.7, "r": 0.3})
    for beam_width in (1, 2, 50):
        [(text, score)] = _search(
            logits, CHARACTERS, model, language_model_weight=1, beam_width=beam_width
        )
        assert text == "read"
    of_model = math.log(10) * (-0.2 - 0.125 - 0.75)  # <s> read, back-off of read, </s>
    assert score == pytest.approx(math.log(0.3) + of_model, abs=1e-2)


def test_the_look_ahead_depends_on_the_words_before():
    """ "ab" is the more probable word, except after "d"."""
    entries = {(x,): (-1.0, -0.5) for x in ("<s>", "</s>", "d", "eb")} | {("ab",): (-0.3, -0.5)}
    entries |= {("<unk>",): (-3.0, 0.0), ("d", "eb"): (-0.1, 0.0)}
    model = layers.NGramLanguageModel(entries)
    options = {"language_model_weight": 1.0, "beam_width": 1}
    for start, expected in (("d ", "d eb"), ("", "ab")):
        logits = logits_of(f"{start}ab", {len(start): {"a": 0.5, "e": 0.5}})
        assert _search(logits, CHARACTERS, model, **options)[0][0] == expected


@pytest.mark.parametrize("unit", ["word", "character"])
def test_the_look_ahead_of_hot_words(unit):
    options = {"unit": unit, "beam_width": 1, "hot_words": {"read": 4.0, "roared": 9.0}}
    logits = first_letter({"o": 0.6, "r": 0.4})
    found, plain = _search(logits, CHARACTERS, **options), _search(logits, CHARACTERS)
    assert found[0][0] == "read"
    assert plain[0][0] == "oead"
    assert found[0][1] == pytest.approx(plain[0][1] + math.log(0.4 / 0.6) + 4.0, abs=1e-2)


def sentences(rng) -> list[list[str]]:
    """Texts of a vocabulary of 60 words, in which each is followed by one of few others."""
    vocabulary = ["".join(rng.choice(LETTERS[2:9], rng.integers(2, 7))) for _ in range(60)]
    texts = []
    for _ in range(60):
        word, text = 0, []
        for _ in range(8):
            word = (7 * word + int(rng.integers(4)) + 1) % 60
            text.append(vocabulary[word])
        texts.append(text)
    return texts


def test_a_narrow_beam_finds_the_texts_of_a_wide_beam():
    rng = np.random.default_rng(5)
    texts = sentences(rng)
    language_model = layers.NGramLanguageModel.from_texts(texts)
    for text in texts[:10]:
        labels = [LETTERS.index(x) for x in " ".join(text)]
        logits = rng.normal(size=(2 * len(labels), len(LETTERS)))
        logits[np.arange(0, len(logits), 2), labels] += 4
        logits[1::2, 0] += 4
        narrow, wide = (
            _search(logits, LETTERS, language_model, insertion_bonus=1.0, beam_width=beam_width)
            for beam_width in (12, 150)
        )
        assert narrow[0][0] == wide[0][0] == " ".join(text)


def test_the_look_ahead_is_the_highest_probability_of_the_words_that_begin_with_a_prefix():
    """With Witten-Bell smoothing, an n-gram is at least as probable as by back-off."""
    rng = np.random.default_rng(6)
    texts = [list(rng.choice(["a", "ab", "abc", "b", "ba", "cab"], 5)) for _ in range(9)]
    language_model = layers.NGramLanguageModel.from_texts(texts)
    look_ahead = language_model.word_look_ahead
    words = [word for (word, *more) in language_model.entries if not more]
    words = [word for word in words if word not in ("<s>", "</s>")]
    ends = ["", "a", "b", "bc", "x"]
    for context in [(), ("<s>",), ("<unk>",), *itertools.product(words, repeat=2)]:
        state = language_model.initial_state() if context == ("<s>",) else (-1, -1)
        for token in context:
            if token != "<s>":
                _, state = language_model.score(state, token)
        for start in ("", "a", "b", "ca", "bax"):
            found = look_ahead.log10(state, look_ahead.ranges(start, ends))
            expected = [
                max(
                    language_model.score(state, word)[0]
                    for word in words
                    if word == "<unk>" or word.startswith(start + end)
                )
                for end in ends
            ]
            np.testing.assert_allclose(math.log(10) * found, expected, atol=1e-12)


OPTIONS = {
    "beam_width": [0, -1, 1.5, True, None],
    "num_return_sequences": [0, True, 2.0, 51],
    "blank": [-1, 2, True, 1.0],
    "language_model_weight": [-0.1, math.nan, math.inf, True, "1"],
    "token_min_logp": [0.1, math.nan, True, None, "-5"],
    "insertion_bonus": [math.nan, -math.inf, True, None],
}
INVALID = [
    (lambda: _search(np.zeros((5, 3)), ["a", "b"]), ["[T, 2]", "[5, 3]"]),
    (lambda: _search(np.zeros((5, 0)), []), ["[T, 0]", "[5, 0]"]),
    (lambda: _search(np.zeros((5, 2)), ["a", "b"], unit="phone"), ["unit", "'phone'"]),
    (lambda: _search([[0, 1], [0, math.nan]], ["", "a"]), ["NaN", "frame 1"]),
    (lambda: _search([[0, math.inf]], ["", "a"]), ["finite", "frame 0"]),
    (lambda: _search([[-math.inf, -math.inf]], ["", "a"]), ["finite", "frame 0"]),
    (lambda: _search(np.zeros((5, 2)), ["", "a"], hot_words={"a b": 1.0}), ["hot_words", "'a b'"]),
    (lambda: _search(np.zeros((5, 2)), ["", "a"], hot_words={"": 1.0}), ["hot_words", "''"]),
    (lambda: _search(np.zeros((5, 2)), ["", "a"], hot_words={"a": math.nan}), ["'a'", "nan"]),
    *(
        (
            lambda name=name, value=value: _search(np.zeros((5, 2)), ["", "a"], **{name: value}),
            [name, repr(value)],
        )
        for name, values in OPTIONS.items()
        for value in values
    ),
]


def _search(*given, **options):
    return layers.ctc_beam_search_with_language_model(*given, **options)


@pytest.mark.parametrize(("action", "words"), INVALID)
def test_invalid_arguments(action, words):
    assert_refused(action, *words)


def test_numbers_of_numpy_are_allowed():
    found = _search(
        AMBIGUOUS,
        CHARACTERS,
        language_model_weight=np.float32(0.5),
        insertion_bonus=np.int64(0),
        beam_width=np.int64(50),
        blank=np.int32(0),
        num_return_sequences=np.int64(1),
    )
    assert found == _search(AMBIGUOUS, CHARACTERS)
