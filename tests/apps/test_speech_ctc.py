"""The speech app's training, figures and report, on a small part of its generated data."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf

from unroll.apps.core import export, training
from unroll.apps.core.evaluation import evaluate, load_trained
from unroll.apps.core.evaluation import report as write_report
from unroll.apps.core.protocol import Trained
from unroll.apps.core.runs import Run
from unroll.apps.speech_ctc import app, metrics, report
from unroll.apps.speech_ctc.examples import litert as litert_example
from unroll.layers import CTCLoss
from unroll.pipelines import audio
from unroll.pipelines.datasets.speech import spoken_digits

# A small part of the generated digits. GRUs without augmentation learn it in a few epochs.
DIGITS = {
    "generated_size": 0.1,
    "epochs": 12,
    "learning_rate": 1e-2,
    "batch_size": 6,
    "cell": "GRU",
    "units": 48,
    "dropout": 0.1,
    "speed": 0.0,
    "noise": 0.0,
    "time_mask": 0,
    "frequency_mask": 0,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """The preset of the generated digits, trained on a part of them until it recognizes digits."""
    run = Run(tmp_path_factory.mktemp("digits"))
    training.train(app, dataclasses.replace(app.PRESETS["spoken_digits"], **DIGITS), run)
    return run


@pytest.fixture(scope="module")
def trained(run) -> Trained:
    return load_trained(app, run)


@pytest.fixture(scope="module")
def figures(run) -> dict:
    return evaluate(app, run)


@pytest.mark.exhaustive
def test_the_generated_digits_are_learned(run, figures):
    assert figures["examples"] == 24
    assert figures["label_error_rate"] < 0.2
    assert figures["beam_label_error_rate"] < 0.2
    assert figures["language_model_label_error_rate"] < 0.2
    assert set(app.METRICS) <= set(figures)
    data = app.load(run.config(app), (), run.assets())
    assert app.baseline(run.config(app), data, "test")["label_error_rate"] > 0.8


@pytest.mark.exhaustive
@pytest.mark.usefixtures("parity_process")
def test_the_example_scripts_print_the_predictions(run, trained, tmp_path, run_example):
    folder = export.export(app, run, tmp_path / "saved")
    paths = []
    for i, (_, _, samples) in enumerate(spoken_digits.recordings("test", 4)):
        paths.append(str(tmp_path / f"{i}.wav"))
        soundfile.write(paths[-1], samples, spoken_digits.RATE)
    expected = [result["transcript"] for result in app.predict(trained, paths)]
    assert all(expected)
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    for script in ("serving", "litert"):
        lines = [line.split("\t") for line in run_example("speech_ctc", script, folder, *paths)]
        assert [line[:2] for line in lines] == [[*x] for x in zip(paths, expected, strict=True)]
        if script == "serving":
            assert lines[0][2].count("@") == len(expected[0].split())
            [line] = run_example("speech_ctc", script, folder, broken)
            assert line == f"{broken}\terror: not a wav file (RIFF, RF64 or W64)"
    np.testing.assert_allclose(
        litert_example.mel_filters(8000, 256, 40), audio.mel_filters(8000, 256, 40), atol=1e-7
    )


@pytest.mark.exhaustive
def test_the_report_has_tables_alignments_and_figures(run, figures):
    text, files = write_report(app, run)
    assert [path.name for path in files] == ["test.md", "test-spikes.png", "test-confusion.png"]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in files[1:])
    for decoder in ("greedy", "beam search", "with language model"):
        assert f"| {decoder} | " in text
    assert "REF: " in text
    assert "| correct | decoded | count |" in text
    assert f"{figures['label_error_rate']:.4f}" in text


@pytest.mark.exhaustive
def test_the_training_step_compiles_with_xla(run):
    config = dataclasses.replace(run.config(app), units=6, batch_size=2, jit=True)
    data = app.load(config, ("train",), run.assets(), training=True)
    model = app.build(config, run.assets())
    assert model.jit_compile
    [(features, labels)] = data["train"].take(1)
    assert np.isfinite(model.train_on_batch(features, labels)).all()


def test_labels_that_the_model_lacks_are_impossible():
    logits = keras.random.normal([3, 9, 4], seed=0)
    known, unknown = np.array([[1, 2], [3, 0], [1, 3]]), np.array([[1, 2], [3, 0], [1, 4]])
    each = CTCLoss(reduction=None)(known, logits)
    loss = metrics.KnownLabelsLoss(reduction=None)
    np.testing.assert_allclose(loss(known, logits), each, rtol=1e-5)
    found = tf.function(loss)(tf.constant(unknown), logits)
    np.testing.assert_allclose(found, [*each[:2], 0.0], rtol=1e-5)
    errors = metrics.LabelErrorRate()
    errors.update_state(unknown[2:], 9 * np.eye(4, dtype="float32")[[[1, 0, 3]]])
    assert float(errors.result()) == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "LSTN"}, "cell must be one of"),
        ({"unit": "phones"}, "unit=phones needs lexicon"),
        ({"noise": 1.0}, r"noise must be in \[0, 1\), got 1.0"),
        ({"speed": -0.1}, r"speed must be in \[0, 1\), got -0.1"),
        ({"hot_words": "a=x"}, "hot_words must be word=bonus"),
        ({"hot_words": "a"}, "hot_words must be word=bonus"),
        ({"hot_words": "a b=1"}, "hot_words must be word=bonus"),
        ({"lm_weight": -0.5}, "lm_weight must be at least 0 and finite, got -0.5"),
        ({"lm_weight": math.nan}, "lm_weight must be a number, got nan"),
        ({"word_bonus": math.inf}, "word_bonus must be finite, got inf"),
        ({"beam_width": 0}, "beam_width must be at least 1, got 0"),
        ({"bidirectional": False, "normalization": "running", "deltas": 1}, "deltas must be 0"),
        ({"rate": 0}, r"rate must be in \[1000, 768000\], got 0"),
        ({"deltas": 3}, r"deltas must be in \[0, 2\], got 3"),
        ({"units": 0}, "units must be at least 1, got 0"),
        ({"hop": 0.0}, r"hop must be at least one sample \(0.0625 ms\) and at most window"),
        ({"hop": 30.0}, r"at most window \(25.0 ms\), got 30.0"),
        ({"cepstra": 41}, r"cepstra must be at most mels \(40\), got 41"),
        ({"with_language_model": True, "lm_weight": 0.0}, "with_language_model needs lm_weight"),
    ],
)
def test_invalid_options_raise_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        app.Config(**options)


def test_error_rates():
    correct, decoded = ["a b c d", "e f"], ["a x c", "e f"]
    rates = metrics.error_rates(correct, decoded, "words")
    assert rates["word_error_rate"] == rates["label_error_rate"] == pytest.approx(2 / 6)
    assert rates["character_error_rate"] == pytest.approx(3 / 10)
    assert rates["accuracy"] == 0.5
    characters = metrics.error_rates(correct, decoded, "characters")
    assert characters["label_error_rate"] == pytest.approx(0.3)
    phones = metrics.error_rates(correct, decoded, "phones")
    assert phones == {"accuracy": 0.5, "label_error_rate": pytest.approx(2 / 6)}


def test_the_label_error_rate_counts_edits_over_all_labels():
    metric = metrics.LabelErrorRate()
    logits = 9 * np.eye(4, dtype="float32")[[[1, 1, 0, 2, 0], [3, 0, 3, 0, 0]]]
    metric.update_state(np.array([[1, 2], [3, 0]]), logits)  # correct; one insertion
    assert float(metric.result()) == pytest.approx(1 / 3)
    metric.update_state(np.array([[1, 1, 1]]), logits[:1])  # 1 2 for 1 1 1: two edits
    assert float(metric.result()) == pytest.approx(3 / 6)
    metric.reset_state()
    assert float(metric.result()) == 0


@pytest.mark.parametrize("jit", [False, True])
def test_edit_distances_are_those_of_tensorflow(jit):
    rng = np.random.default_rng(0)
    function = tf.function(metrics.edit_distances, jit_compile=jit)
    for longest, longest_correct in ((1, 1), (5, 3), (17, 30), (40, 6)):
        sizes = rng.integers([longest + 1, longest_correct + 1], size=(16, 2))
        rows = [
            np.where(np.arange(n) < sizes[:, [i]], rng.integers(1, 4, (16, n)), 0)
            for i, n in enumerate((longest, longest_correct))
        ]
        sparse = [tf.sparse.from_dense(np.vstack([x, np.ones_like(x[:1])])) for x in rows]
        expected = tf.edit_distance(*sparse, normalize=False)[:16]
        found = function(
            *(tf.constant(x, tf.int32) for i in (0, 1) for x in (rows[i], sizes[:, i]))
        )
        np.testing.assert_array_equal(found, expected)


def test_alignments_show_a_correct_and_a_wrong_transcript():
    text = report.alignments(["one two", "three"], ["one two", "tree"])
    assert "correct" in text
    assert "one two" in text
    assert "wrong" in text
    assert "tree" in text
    assert "S" in text


def test_aligned_labels_name_substitutions_insertions_and_deletions():
    correct, decoded = ["one two", "three"], ["one too", "three four"]
    assert report.aligned_labels(correct, decoded, "words") == [
        ("one", "one"),
        ("two", "too"),
        ("three", "three"),
        ("(none)", "four"),
    ]
    assert report.aligned_labels(["a b"], ["ab"], "characters") == [
        ("a", "a"),
        ("(space)", "(none)"),
        ("b", "b"),
    ]
    table = report.errors_table([("a", "b"), ("c", "d"), ("a", "a"), ("c", "d")])
    assert table.splitlines()[2:] == ["| c | d | 2 |", "| a | b | 1 |"]
