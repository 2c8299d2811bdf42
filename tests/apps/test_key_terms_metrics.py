"""The figures of key terms by hand, the ranking, the baseline, the report."""

import math

import pytest

from unroll.apps.key_terms import metrics, report
from unroll.apps.key_terms.metrics import Document, TfIdf

WORDS = "Neural networks and a neural network of chips".split()
TAGS = "B-a I-a O O B-a I-a O B-b".split()


def document(predicted: str, ranking=(), scores=None, tags=TAGS) -> Document:
    row = predicted.split()
    return Document(WORDS, tags, row, scores or [0.0] * 8, [*ranking])


def test_figures_by_hand():
    first = document(
        "B-a I-a O O O B-a O B-a", [("neural", "network"), ("network",), ("chip",), ("x",)]
    )
    second = document("O " * 8, [("x",)], tags=["O"] * 8)
    third = document(" ".join(TAGS), [])
    found = metrics.figures([first, second, third])
    # Six spans and six predicted ones, four correct; one more without labels.
    assert found["examples"] == 3
    assert found["span_f1"] == pytest.approx(8 / 12)
    assert found["span_f1_without_labels"] == pytest.approx(10 / 12)
    # Terms: neural networks, neural network, chips; of the first document neural networks,
    # network, chips are predicted.
    assert found["term_f1"] == pytest.approx(2 * 5 / 12)
    # Two stemmed terms; of the first four of the ranking two are correct, of the third none.
    assert found["f1_at_5"] == pytest.approx((2 * 2 / 6 + 0) / 2)
    assert found["f1_at_10"] == found["f1_at_5"]


def test_figures_with_one_label_have_no_others():
    tags = ["B-a" if tag[2:] == "b" else tag for tag in TAGS]
    found = metrics.figures([document("O " * 8, tags=tags)])
    assert found == {"examples": 1, "span_f1": 0, "term_f1": 0, "f1_at_5": 0, "f1_at_10": 0}


def test_only_the_first_terms_count():
    ranking = [("a",), ("b",), ("c",), ("d",), ("chip",), ("neural", "network")]
    found = [document("O " * 8, ranking)]
    assert metrics.f1_at(found, 5) == pytest.approx(2 * 1 / (2 + 5))
    assert metrics.f1_at(found, 10) == pytest.approx(2 * 2 / (2 + 6))


def test_the_ranking_has_each_stem_once_with_its_best_score():
    spans = [(0.5, 0, 2), (0.7, 4, 6), (0.6, 7, 8), (0.6, 1, 2)]
    assert metrics.rank(WORDS, spans) == [("neural", "network"), ("network",), ("chip",)]


def test_tf_idf_by_hand():
    train = ["the chips and the chips".split(), "a chip , old chips".split(), ["x"]]
    model = TfIdf(train)
    assert model.in_documents[("chips",)] == 2
    assert model.in_documents[("old", "chips")] == 1
    # Stop words may be inside; neither they nor punctuation are at the ends.
    assert ("chips", "and", "the", "chips") not in model.in_documents
    assert not [p for p in model.in_documents if p[0] in ("the", "and", ",") or "," in p]
    ranked = {
        (begin, end): score for score, begin, end in model.rank("New chips and chips".split())
    }
    assert ranked[1, 2] == ranked[3, 4] == pytest.approx(2 * (math.log(4 / 3) + 1))
    assert ranked[0, 1] == pytest.approx(math.log(4) + 1)
    assert set(ranked) == {(0, 1), (1, 2), (3, 4), (0, 2), (1, 4)}


def test_the_report_by_hand():
    scores = [0.9, 0.0, 0.0, 0.0, 0.0, 0.4, 0.0, 0.6]
    found = [document("B-a I-a O O O B-a O B-a", scores=scores)]
    assert report._errors(found[0]) == [
        2,
        "Neural networks and a neural network of chips",
        "chips; neural networks",
        "neural network",
        "network",
    ]
    table = report._length_table(found).splitlines()
    assert table[2:] == ["| 1 | 0.000 | 0.000 | 0.000 | 1 |", "| 2 | 1.000 | 0.500 | 0.667 | 2 |"]
    bars = [bar.get_height() for bar in report._calibration(found).axes[0].patches]
    assert bars == [0, 0, 1]
