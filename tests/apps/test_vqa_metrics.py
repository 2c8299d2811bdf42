"""The question app: the loss, the accuracy by type of question, VQA's accuracy, the baseline."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from unroll.apps.core.protocol import Data
from unroll.apps.shared.reports import confusion_figure
from unroll.apps.vqa import app, metrics, network
from unroll.pipelines.visual_questions import FIRST_ANSWER, NO_QUESTION, UNKNOWN_ANSWER

ASSETS = {
    "vocabulary": ["[PAD]", "[UNK]", "what", "is", "it", "red", "?", "yes", "no"],
    "answers": ["yes", "no", "red"],
    "question_types": ["is it", "what is"],
}


def test_the_loss_ignores_questions_without_a_known_answer():
    logits = tf.constant(np.random.default_rng(0).normal(size=(2, 2, 3)), tf.float32)
    labels = np.array([[[2], [4]], [[UNKNOWN_ANSWER], [NO_QUESTION]]])
    losses = keras.losses.sparse_categorical_crossentropy(
        tf.constant([0, 2]), logits[0], from_logits=True
    )
    loss = network.AnswerLoss()(labels, logits)
    assert float(loss) == pytest.approx(float(np.mean(losses)), rel=1e-5)
    nothing = network.AnswerLoss()(np.zeros((2, 2, 1), "int32"), logits)
    assert float(nothing) == 0


def test_the_training_metric_counts_unknown_answers_as_errors():
    logits = np.zeros((1, 4, 2), "float32")
    logits[..., 1] = 1
    metric = network.AnswerAccuracy()
    labels = np.array([[[FIRST_ANSWER + 1], [FIRST_ANSWER], [UNKNOWN_ANSWER], [NO_QUESTION]]])
    metric.update_state(labels, logits)
    assert float(metric.result()) == pytest.approx(1 / 3)


def test_figures_by_hand():
    people = [[FIRST_ANSWER] * 8 + [FIRST_ANSWER + 1] * 2, [FIRST_ANSWER + 2] * 10]
    found = metrics.Predictions(
        tokens=[np.array([3, 4, 6]), np.array([2, 3, 0])],
        labels=[np.array(row) for row in people],
        predicted=[FIRST_ANSWER + 1, FIRST_ANSWER + 2],
    )
    figures = metrics.figures(found, ASSETS)
    assert (figures["examples"], figures["accuracy"]) == (2, 0.5)
    assert (figures["accuracy_is_it"], figures["accuracy_what_is"]) == (0, 1)
    # Two of ten: eight subsets of nine people contain both, and two contain one.
    assert figures["vqa_accuracy"] == pytest.approx((0.6 + 1) / 2)
    single = metrics.Predictions(found.tokens, [np.array([2]), np.array([3])], [2, 4])
    assert "vqa_accuracy" not in metrics.figures(single, ASSETS)


def test_baseline_by_hand():
    labels = np.array([[[FIRST_ANSWER], [FIRST_ANSWER]], [[FIRST_ANSWER + 1], [NO_QUESTION]]])
    tokens = np.array([[[3, 4], [3, 4]], [[3, 4], [0, 0]]])
    rows = tf.data.Dataset.from_tensors(({"tokens": tokens}, labels))
    data = Data({"train": rows, "valid": rows}, ASSETS)
    found = app.baseline(app.Config(), data, "valid")
    assert found["accuracy"] == pytest.approx(2 / 3)


def test_classes_are_drawn_as_they_are(tmp_path):
    """Matplotlib would read the first one as a formula, and refuse it."""
    figure = confusion_figure(["$x_$", "a_b"], ["a_b", "$x_$"])
    figure.savefig(tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").stat().st_size > 1000
