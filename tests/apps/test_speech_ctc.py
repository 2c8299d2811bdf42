"""The speech app: on its generated data, on unusual recordings, streaming, and exported."""

import ast
import dataclasses
import json
import math
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
import tensorflow_datasets as tfds

from tests.apps import resuming
from unroll.apps.core import cli, config, export, training
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import evaluate, load_trained
from unroll.apps.core.evaluation import report as write_report
from unroll.apps.core.protocol import Trained
from unroll.apps.core.runs import Run
from unroll.apps.speech_ctc import app, decoding, metrics, recordings, report, streaming
from unroll.apps.speech_ctc.examples import litert as litert_example
from unroll.apps.speech_ctc.examples import serving as serving_example
from unroll.layers import NGramLanguageModel
from unroll.pipelines import audio
from unroll.pipelines.datasets import sources
from unroll.pipelines.datasets.speech import spoken_digits
from unroll.pipelines.errors import DataError

# A small part of the generated digits. GRUs without augmentation learn it in a few epochs.
DIGITS = {
    "generated_size": 0.2,
    "epochs": 12,
    "learning_rate": 1e-2,
    "batch_size": 8,
    "cell": "GRU",
    "units": 48,
    "dropout": 0.1,
    "speed": 0.0,
    "noise": 0.0,
    "time_mask": 0,
    "frequency_mask": 0,
}
TEXTS = ["ab a".split(), "b ab".split()]
FRONT_END = audio.FrontEnd(rate=8000, window=200, hop=80, mels=12)
VARIANTS = {
    "both directions": {"normalization": "utterance"},
    "stream": {"bidirectional": False, "normalization": "running"},
    "batch": {"bidirectional": False, "normalization": "batch", "convolutions": 0},
    "deep": {"bidirectional": False, "normalization": "running", "convolutions": 2, "cell": "GRU"},
    "words": {"unit": "words", "normalization": "utterance"},
    "features": {"features": 13},
}


def make(features: int = 0, **options) -> Trained:
    """A model with random weights. With `features`, its recordings are given as MFCCs."""
    keras.utils.set_random_seed(1)
    made = app.Config(units=8, depth=2, beam_width=4, **options)
    interface = {
        "front_end": None if features else dataclasses.asdict(FRONT_END),
        "features": features or FRONT_END.size,
    }
    assets = {
        "labels": ["[BLANK]", *(("ab", "b", "a") if made.unit == "words" else " ab")],
        "interface": interface,
        "language_model": NGramLanguageModel.from_texts(TEXTS, 2).to_arpa(),
    }
    model = app.build(made, assets)
    # Away from the initial values: a bias of zero hides errors, and each frame is a blank.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.6, size=weight.shape))
    return Trained(made, assets, model)


@pytest.fixture(params=VARIANTS, scope="module")
def untrained(request) -> Trained:
    return make(**VARIANTS[request.param])


def wav(seconds: float, rate: int = 8000, seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).normal(size=int(seconds * rate))
    loudness = 0.2 * np.sin(np.arange(len(noise)) / rate * 9)
    return audio.encode_wav(noise * loudness, rate).numpy()


UNUSUAL = {
    "noise": wav(0.7),
    "no bytes": b"",
    "not a recording": b"this is no sound",
    "no samples": wav(0.0),
    "shorter than a frame": wav(0.001),
    "silence": audio.encode_wav(np.zeros(4000), 8000).numpy(),
    "44 kHz": wav(0.5, 44100, 1),
    "16 kHz": wav(1.2, 16000, 2),
    "truncated": wav(0.4)[:1000],
}
EMPTY = ("no bytes", "not a recording", "no samples")


@pytest.fixture(scope="module")
def predictions(untrained) -> dict[str, dict]:
    """The results for all unusual recordings in one batch."""
    results = app.predict(untrained, list(UNUSUAL.values()))
    return dict(zip(UNUSUAL, results, strict=True))


def test_every_recording_has_a_result(untrained, predictions):
    for result in predictions.values():
        assert 0 <= result["score"] <= 1
        times = [each["seconds"] for each in result["labels"]]
        assert times == sorted(times)
        assert {each["label"] for each in result["labels"]} <= set(untrained.assets["labels"][1:])
        assert app.show(result).plain
    assert [predictions[name]["labels"] for name in EMPTY] == [[], [], []]
    json.dumps(list(predictions.values()))


def test_a_prediction_does_not_depend_on_its_batch(untrained, predictions):
    for name in ("noise", "no bytes", "44 kHz"):
        [alone] = app.predict(untrained, [UNUSUAL[name]])
        for field in ("labels", "with_language_model", "probabilities"):
            assert alone[field] == predictions[name][field], name
        assert alone["score"] == pytest.approx(predictions[name]["score"], abs=1e-4)


def test_the_labels_are_the_transcript_and_have_times_within_the_recording(untrained, predictions):
    separator = " " if untrained.config.unit == "words" else ""
    result = predictions["16 kHz"]
    assert separator.join(each["label"] for each in result["labels"]) == result["transcript"]
    if untrained.assets["interface"]["front_end"]:  # the random model of MFCCs outputs blanks here
        assert result["labels"]
    assert all(0 <= each["seconds"] < 1.2 for each in result["labels"])


def test_each_label_is_the_most_probable_in_the_frame_of_its_time(predictions):
    for name, result in predictions.items():
        probabilities = result["probabilities"]
        assert set(probabilities) == {"[BLANK]", *(each["label"] for each in result["labels"])}
        assert len({len(values) for values in probabilities.values()}) == 1
        for each in result["labels"]:
            frame = round(each["seconds"] / result["seconds_per_frame"])
            highest = max(values[frame] for values in probabilities.values())
            assert probabilities[each["label"]][frame] == highest, name


def test_a_result_can_be_plotted_also_without_labels(tmp_path):
    results = app.predict(make(), [UNUSUAL["noise"], UNUSUAL["no samples"]])
    assert results[0]["labels"]
    assert not results[1]["labels"]
    for i, result in enumerate(results):
        app.plot(result, tmp_path / f"{i}.png")
        assert (tmp_path / f"{i}.png").read_bytes()[:4] == b"\x89PNG"


def test_the_best_of_a_beam_is_at_least_as_probable_as_the_greedy_path(untrained):
    config = dataclasses.replace(untrained.config, beam_width=16)
    functions = app.serve(Trained(config, untrained.assets, untrained.model)).functions
    [name] = (spec.name for spec in functions["beam"].input_signature)
    inputs = {name: tf.constant([UNUSUAL["noise"]])}
    found = functions["beam"](**inputs)
    log_probabilities = found["log_probabilities"].numpy()
    assert (np.diff(log_probabilities, axis=1) <= 1e-5).all()
    greedy = functions["serving_default"](**inputs)
    frames = len(recordings.logits(UNUSUAL["noise"], untrained))
    # The outputs of the random model of MFCCs are so flat that the beam loses the greedy path.
    if untrained.assets["interface"]["front_end"]:
        assert log_probabilities[0, 0] >= np.log(greedy["score"].numpy()[0]) * frames - 1e-3
    assert len(set(found["transcripts"].numpy()[0])) > 1


STREAMS = [name for name, options in VARIANTS.items() if options.get("bidirectional") is False]


@pytest.mark.parametrize("variant", STREAMS)
def test_streaming_gives_the_transcript_of_the_whole_recording(variant):
    trained = make(**VARIANTS[variant])
    contents = [UNUSUAL[name] for name in ("noise", "44 kHz", "16 kHz")]
    for recording, result in zip(contents, app.predict(trained, contents), strict=True):
        assert result["transcript"]
        for seconds in (0.04, 0.25, 5):
            pieces = streaming.stream(trained, recording, seconds)
            assert "".join(pieces) == result["transcript"]


def test_a_model_that_needs_later_samples_cannot_stream():
    trained = make()
    assert "step" not in app.serve(trained).functions
    with pytest.raises(UsageError, match="--bidirectional=false, --normalization=running"):
        list(app.stream(trained, UNUSUAL["noise"]))
    trained = make(bidirectional=False, normalization="utterance")
    assert "step" not in app.serve(trained).functions


def test_a_piece_must_be_a_multiple_of_a_frame():
    trained = make(**VARIANTS["stream"])
    step = app.serve(trained).functions["step"]
    states = streaming.initial_states(trained, 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="multiple of 160 samples"):
        step(audio=tf.zeros([1, 161]), **states)


@pytest.mark.usefixtures("parity_process")
@pytest.mark.parametrize("variant", ["both directions", "deep", "batch", "words", "features"])
def test_exports_agree_with_the_model(variant, tmp_path):
    trained = make(**VARIANTS[variant])
    service, to = app.serve(trained), tmp_path / "speech_ctc"
    folder = export.write(service, trained.assets, app.examples(), to)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert max(manifest["largest_difference"].values()) < 1e-5
    assert set(manifest["largest_difference"]) == {"saved_model", "saved_model_session", "litert"}


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
        ({"lm_weight": math.nan}, "lm_weight must be at least 0 and finite, got nan"),
        ({"word_bonus": math.inf}, "word_bonus must be finite, got inf"),
        ({"beam_width": 0}, "beam_width must be at least 1, got 0"),
        ({"bidirectional": False, "normalization": "running", "deltas": 1}, "deltas must be 0"),
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


def test_hot_words_change_the_transcript():
    trained = make(word_bonus=0.0)
    logits = np.full((3, 4), -9.0, "float32")
    logits[0, 2], logits[1, 3], logits[2, 0] = 9, 0.4, 9  # "a", then "b" or a blank
    logits[1, 0] = 0.6
    assets = trained.assets | {"language_model": []}

    def transcripts(hot_words):
        config = dataclasses.replace(trained.config, hot_words=hot_words)
        return decoding.decode_with_language_model([logits], Trained(config, assets, trained.model))

    assert transcripts("") == ["a"]
    assert transcripts("ab=3") == ["ab"]


def test_without_a_weight_the_search_with_the_language_model_is_left_out(monkeypatch):
    trained = make(lm_weight=0.0)
    searches = []
    monkeypatch.setattr(decoding, "decode_with_language_model", lambda *x: searches.append(x))
    [result] = app.predict(trained, [UNUSUAL["noise"]])
    assert result["with_language_model"] is None
    assert "language model" not in app.show(result).plain
    outputs = metrics.Outputs([["a"]], [np.zeros((3, 4), "float32")])
    assert set(metrics.transcripts(outputs, trained)) == {"", "beam_"}
    assert not searches


def test_hot_words_do_not_need_the_language_model():
    trained = make(lm_weight=0.0, hot_words="ab=30")
    trained = Trained(
        trained.config, trained.assets | {"language_model": ["broken"]}, trained.model
    )
    [result] = app.predict(trained, [UNUSUAL["noise"]])
    assert "ab" in result["with_language_model"].split()


def test_the_language_model_is_read_once_for_all_recordings(monkeypatch):
    reads = []

    def from_lines(lines):
        reads.append(lines)
        return NGramLanguageModel.from_texts(TEXTS)

    monkeypatch.setattr(NGramLanguageModel, "from_lines", from_lines)
    assert len(app.predict(make(), [UNUSUAL["noise"], UNUSUAL["16 kHz"]])) == 2
    assert len(reads) == 1


@pytest.mark.parametrize(
    "contents", [b"\\data\\\r\n", b"\xff\xfe", b"mmap lm http://kheafield.com/code"]
)
def test_a_file_that_is_not_a_language_model(contents, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kenlm", None)
    path = tmp_path / "broken"
    path.write_bytes(contents)
    with pytest.raises(DataError, match=f"--language-model={path}: ") as error:
        decoding.language_model_asset(app.Config(language_model=str(path)), [], {})
    assert "\n" not in str(error.value)


def test_a_binary_file_of_kenlm_is_an_asset(tmp_path, monkeypatch):
    contents = b"mmap lm http://kheafield.com/code format version 5\n\0\xff"

    def from_kenlm(path):
        assert Path(path).read_bytes() == contents
        return NGramLanguageModel.from_texts(TEXTS)

    monkeypatch.setattr(NGramLanguageModel, "from_kenlm", from_kenlm)
    path = tmp_path / "words.bin"
    path.write_bytes(contents)
    asset = decoding.language_model_asset(app.Config(language_model=str(path)), [], {})
    assert asset == contents
    trained = make()
    logits = [np.random.default_rng(0).normal(size=(20, 4))]
    expected = decoding.decode_with_language_model(
        logits,
        Trained(
            trained.config,
            trained.assets | {"language_model": NGramLanguageModel.from_texts(TEXTS).to_arpa()},
            trained.model,
        ),
    )
    found = decoding.decode_with_language_model(
        logits, Trained(trained.config, trained.assets | {"language_model": asset}, trained.model)
    )
    assert found == expected != [""]


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


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """The preset of the generated digits, trained on a part of them until it recognizes digits."""
    run = Run(tmp_path_factory.mktemp("digits"))
    training.train(app, dataclasses.replace(app.PRESETS["spoken_digits"], **DIGITS), run)
    return run


@pytest.fixture(scope="module")
def trained(run) -> Trained:
    return load_trained(app, run)


def test_the_generated_digits_are_learned(run):
    figures = evaluate(app, run)
    assert figures["examples"] == 48
    assert figures["label_error_rate"] < 0.2
    assert figures["beam_label_error_rate"] < 0.2
    assert figures["language_model_label_error_rate"] < 0.2
    assert set(app.METRICS) <= set(figures)
    data = app.load(run.config(app), ("train", "test"), run.assets())
    assert app.baseline(run.config(app), data, "test")["label_error_rate"] > 0.8


@pytest.mark.usefixtures("parity_process")
def test_the_example_scripts_print_the_predictions(run, trained, tmp_path, capsys):
    folder = export.export(app, run, tmp_path / "saved")
    paths = []
    for i, (_, _, samples) in enumerate(spoken_digits.recordings("test", 4)):
        paths.append(str(tmp_path / f"{i}.wav"))
        soundfile.write(paths[-1], samples, spoken_digits.RATE)
    expected = [result["transcript"] for result in app.predict(trained, paths)]
    assert all(expected)
    for script in (serving_example, litert_example):
        script.main(str(folder), *paths)
        lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        assert [line[:2] for line in lines] == [[*x] for x in zip(paths, expected, strict=True)]
        if script is serving_example:
            assert lines[0][2].count("@") == len(expected[0].split())
    np.testing.assert_allclose(
        litert_example.mel_filters(8000, 256, 40), audio.mel_filters(8000, 256, 40), atol=1e-7
    )


def test_the_example_scripts_import_only_what_they_name():
    allowed = {
        serving_example: {"sys", "pathlib", "tensorflow"},
        litert_example: {"json", "sys", "wave", "pathlib", "numpy", "ai_edge_litert"},
    }
    for script, names in allowed.items():
        found = set()
        for node in ast.walk(ast.parse(Path(script.__file__).read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split(".")[0])
        assert found == names


def test_a_flac_file_has_the_transcript_of_the_wav_file(trained, tmp_path):
    *_, samples = next(spoken_digits.recordings("test", 1))
    for name in ("a.wav", "a.flac"):
        soundfile.write(tmp_path / name, samples, 8000)
    paths = [str(tmp_path / "a.wav"), str(tmp_path / "a.flac")]
    of_wav, of_flac = app.predict(trained, paths)
    assert of_wav["transcript"] == of_flac["transcript"] != ""
    assert of_wav["recording"].endswith("a.wav")
    for name, contents, message in (
        ("none.wav", None, "No such file"),
        ("b.flac", b"fLaC and nothing more", "b.flac: "),
    ):
        if contents:
            (tmp_path / name).write_bytes(contents)
        with pytest.raises(UsageError, match=message) as error:
            app.predict(trained, [str(tmp_path / name)])
        assert "\n" not in str(error.value)


def test_the_report_has_tables_alignments_and_figures(run):
    text, files = write_report(app, run)
    assert [path.name for path in files] == ["test.md", "test-spikes.png", "test-confusion.png"]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in files[1:])
    for decoder in ("greedy", "beam search", "with language model"):
        assert f"| {decoder} | " in text
    assert "REF: " in text
    assert "| correct | decoded | count |" in text
    figures = run.read_metrics()["test"] if run.metrics.is_file() else evaluate(app, run)
    assert f"{figures['label_error_rate']:.4f}" in text


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder of recordings. The last transcript is too long for its recording."""
    folder = tmp_path / "mine"
    folder.mkdir()
    lines = []
    for i, (words, _, samples) in enumerate(spoken_digits.recordings("train", 24)):
        soundfile.write(folder / f"{i}.wav", samples, 8000)
        lines.append(f"{i}.wav\t{' '.join(words)}\n")
    lines.append(f"0.wav\t{'one two ' * 200}\n")
    (folder / "train.tsv").write_text("".join(lines))
    return folder


SMALL = ["--rate=8000", "--units=6", "--depth=1", "--mels=12", "--epochs=2", "--batch-size=8"]


def test_streaming_on_the_command_line(own, tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--unit=characters", "--bidirectional=false", "--normalization=running"]
    where = [f"--data={own}", f"--run={run}"]
    assert cli.main(["speech_ctc", "train", *where, *SMALL, *options]) == 0
    assert "1 training transcripts are too long for their recordings" in capsys.readouterr().err
    recording = str(own / "0.wav")
    assert cli.main(["speech_ctc", "predict", str(run), recording, "--json"]) == 0
    whole = json.loads(capsys.readouterr().out.splitlines()[-1])["transcript"]
    assert cli.main(["speech_ctc", "predict", str(run), recording, "--stream"]) == 0
    assert capsys.readouterr().out == f"{whole}\n"


def test_librispeech_can_be_loaded(monkeypatch):
    def examples_of(builder, **_):
        # The recordings that TFDS mocks are too short for their transcripts.
        rows = {"speech": np.zeros([3, 16_000], "int64"), "speaker_id": np.arange(3)}
        return tf.data.Dataset.from_tensor_slices(rows | {"text": ["ONE", "TWO", "A TEN"]})

    monkeypatch.setattr(sources, "require_reachable", lambda *_: None)
    with tfds.testing.mock_data(as_dataset_fn=examples_of):
        options = config.parse(app, ["--data=librispeech", "--batch-size=3"])
        data = app.load(options, ("valid",))
        inputs, labels = next(iter(data["valid"]))
    assert data.assets["labels"] == ["[BLANK]", *" AENOTW"]
    assert inputs["features"].shape == [3, 100, 40]
    assert labels.shape == [3, 5]


def test_phones_and_a_language_model_from_a_file(own, tmp_path, capsys):
    lexicon = tmp_path / "digits.dic"
    names = spoken_digits.PRONUNCIATIONS.items()
    lexicon.write_text("".join(f"{word} {phones.replace('- ', '')}\n" for word, phones in names))
    run = tmp_path / "run"
    options = ["--unit=phones", f"--lexicon={lexicon}", "--cepstra=8", "--deltas=2"]
    where = [f"--data={own}", f"--run={run}"]
    assert cli.main(["speech_ctc", "train", *where, *SMALL, *options]) == 0
    labels = Run(run).assets()["labels"]
    assert labels == ["[BLANK]", *sorted({p for _, x in names for p in x.split()} - {"-"})]
    figures = evaluate(app, Run(run), "valid")
    assert "label_error_rate" in figures
    assert "word_error_rate" not in figures
    broken = tmp_path / "broken.arpa"
    broken.write_text("\\data\\\n")
    again = [f"--data={own}", f"--language-model={broken}", f"--run={tmp_path / 'no'}"]
    assert cli.main(["speech_ctc", "train", *again]) == 2
    assert (
        "broken.arpa, line 1: expected \\end\\, got the end of the file" in capsys.readouterr().err
    )
    assert not (tmp_path / "no").exists()


def test_a_resumed_run_equals_an_uninterrupted_one(own, tmp_path, monkeypatch):
    config = dataclasses.replace(
        app.PRESETS["spoken_digits"], data=str(own), units=6, epochs=3, batch_size=8, mels=12
    )
    whole, resumed = resuming.histories(app, config, tmp_path, monkeypatch)
    assert whole == resumed


def test_the_training_step_compiles_with_xla(own, tmp_path):
    line, *_ = (own / "train.tsv").read_text().splitlines(keepends=True)
    for split in ("train", "valid"):  # one shape, since each takes time to compile
        (own / f"{split}.tsv").write_text(2 * line)
    config = dataclasses.replace(
        app.PRESETS["spoken_digits"], data=str(own), units=6, epochs=1, batch_size=2, jit=True
    )
    result = training.train(app, config, Run(tmp_path))
    assert result["epochs"] == 1
