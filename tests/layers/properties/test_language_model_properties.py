"""`NGramLanguageModel` on random texts, against its equations, NLTK and KenLM."""

import math
from collections import Counter, defaultdict

import pytest

from tests.layers.properties.common import FIFTY, assume, given, st
from unroll.layers import NGramLanguageModel

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
TOKENS = [*"abcd", UNKNOWN]
TEXTS = st.lists(st.lists(st.sampled_from(TOKENS), max_size=8), min_size=1, max_size=8)
# Tokens that the texts do not have, and the start of a text, may occur in a context.
CONTEXTS = st.lists(st.sampled_from([START, *TOKENS, "new"]), max_size=5)
ORDERS, MIN_COUNTS = st.integers(1, 4), st.integers(1, 3)


def vocabulary(texts) -> set[str]:
    """The tokens that a model of the texts predicts."""
    return {END, UNKNOWN}.union(*texts)


def counts_of(texts, order: int) -> dict[tuple, Counter]:
    """How often each token follows each context of up to `order - 1` tokens."""
    counts = defaultdict(Counter)
    for text in texts:
        tokens = [START, *text, END]
        for end in range(1, len(tokens)):
            for start in range(max(0, end - order + 1), end + 1):
                counts[tuple(tokens[start:end])][tokens[end]] += 1
    return counts


def witten_bell(counts, texts, min_count: int, token: str, context: tuple) -> float:
    """P(token | context), by recursion as in the docstring of `from_texts`."""
    followers = counts.get(context, Counter())
    if context:
        shorter = witten_bell(counts, texts, min_count, token, context[1:])
        kept = {each: n for each, n in followers.items() if n >= min_count}
    else:
        shorter, kept = 1 / len(vocabulary(texts)), followers
    total, distinct = followers.total(), len(followers)
    left_out = total - sum(kept.values())
    if not total:
        return shorter
    return (kept.get(token, 0) + (distinct + left_out) * shorter) / (total + distinct)


def known(tokens, texts) -> tuple[str, ...]:
    return tuple(x if x in vocabulary(texts) or x == START else UNKNOWN for x in tokens)


@FIFTY
@given(texts=TEXTS, order=ORDERS, min_count=MIN_COUNTS, context=CONTEXTS)
def test_probabilities_sum_to_one(texts, order, min_count, context):
    model = NGramLanguageModel.from_texts(texts, order, min_count)
    total = sum(math.exp(model.log_probability(token, context)) for token in vocabulary(texts))
    assert total == pytest.approx(1, abs=1e-12)


@FIFTY
@given(texts=TEXTS, order=ORDERS, min_count=MIN_COUNTS, context=CONTEXTS)
def test_estimates_follow_the_equations(texts, order, min_count, context):
    model = NGramLanguageModel.from_texts(texts, order, min_count)
    counts = counts_of(texts, order)
    last = known(context, texts)[max(0, len(context) - order + 1) :]
    for token in vocabulary(texts):
        expected = witten_bell(counts, texts, min_count, token, last)
        assert math.exp(model.log_probability(token, context)) == pytest.approx(expected, rel=1e-12)


@FIFTY
@given(texts=TEXTS, order=ORDERS, min_count=MIN_COUNTS, tokens=CONTEXTS)
def test_scores_of_a_text_token_by_token(texts, order, min_count, tokens):
    """The state gives what the entries give, by the definition of back-off."""
    model = NGramLanguageModel.from_texts(texts, order, min_count)
    entries = model.entries

    def log10(ngram):
        if ngram in entries:
            return entries[ngram][0]
        return entries.get(ngram[:-1], (0, 0))[1] + log10(ngram[1:])

    state, before = model.initial_state(), (START,)
    for token in (*tokens, END):
        found, state = model.score(state, token)
        before = (*before, *known([token], texts))
        assert found == pytest.approx(math.log(10) * log10(before[-order:]), rel=1e-12)


@FIFTY
@given(texts=TEXTS, order=ORDERS, context=CONTEXTS)
def test_agreement_with_nltk(texts, order, context):
    nltk = pytest.importorskip("nltk.lm", reason="NLTK is the oracle")

    class WittenBell(nltk.smoothing.WittenBell):
        def unigram_score(self, word):
            # NLTK's unigrams are not smoothed.
            frequencies = self.counts.unigrams
            gamma = frequencies.B() / (frequencies.B() + frequencies.N())
            return (1 - gamma) * frequencies.freq(word) + gamma / len(vocabulary(texts))

    wrapped = [[START, *text, END] for text in texts]
    ngrams = [
        [
            tuple(text[i:j])
            for j in range(2, len(text) + 1)  # not the start alone, which is never predicted
            for i in range(max(0, j - order), j)
        ]
        for text in wrapped
    ]
    expected = nltk.models.InterpolatedLanguageModel(WittenBell, order)
    expected.fit(ngrams, [START, *vocabulary(texts)])
    model = NGramLanguageModel.from_texts(texts, order)
    for token in vocabulary(texts):
        score = expected.unmasked_score(token, known(context, texts))
        assert math.exp(model.log_probability(token, context)) == pytest.approx(score, rel=1e-12)


@FIFTY
@given(texts=TEXTS, order=ORDERS, min_count=MIN_COUNTS, context=CONTEXTS)
def test_an_arpa_file_keeps_the_probabilities(texts, order, min_count, context):
    model = NGramLanguageModel.from_texts(texts, order, min_count)
    again = NGramLanguageModel.from_lines(model.to_arpa())
    assert again.entries.keys() == model.entries.keys()
    for token in (*vocabulary(texts), "new"):
        expected = model.log_probability(token, context)
        assert again.log_probability(token, context) == pytest.approx(expected, abs=1e-5)


@FIFTY
@given(texts=TEXTS, order=st.integers(2, 4), min_count=MIN_COUNTS, tokens=CONTEXTS)
def test_agreement_with_kenlm(tmp_path_factory, texts, order, min_count, tokens):
    pytest.importorskip("kenlm", reason="KenLM is the oracle")
    model = NGramLanguageModel.from_texts(texts, order, min_count)
    assume(model.order > 1)  # KenLM does not read unigrams alone
    path = tmp_path_factory.mktemp("kenlm") / "model.arpa"
    path.write_text("\n".join([*model.to_arpa(), ""]))
    kenlm = NGramLanguageModel.from_kenlm(path)
    states = model.initial_state(), kenlm.initial_state()
    for token in [x for x in tokens if x != START] + [END]:
        (ours, ours_after), (theirs, theirs_after) = (
            each.score(state, token) for each, state in zip((model, kenlm), states, strict=True)
        )
        states = ours_after, theirs_after
        assert theirs == pytest.approx(ours, abs=1e-4)
