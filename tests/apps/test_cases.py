"""Small inputs that once failed, from public bug reports, as people use them.

Each case is made again, and what is expected of it is asserted where its user meets it: on the
command line, in the data that an app loads, in an export, in a layer.
"""

import dataclasses
import functools
import importlib
import json
import re
import resource
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
import tensorflow as tf

from tests.apps import (
    image_captioning_cases,
    own_files,
    test_reading_comprehension,
    test_slot_filling,
    test_speech_ctc_serving,
    vqa_cases,
)
from tests.apps.own_writing import SIZES, write
from tests.apps.picture_cases import bmp_palette, coco_null_caption, exif_orientation
from tests.apps.test_speech_ctc_serving import encode, wav
from tests.apps.written_runs import write_run
from tests.layers import (
    robustness_checks,
    test_ctc,
    test_ctc_language_model,
    test_keras_rnn,
    test_recurrent_limits,
    test_tensorflow_graphs,
)
from tests.layers.cases import CASES as LAYERS
from unroll import layers
from unroll.apps.core import evaluation, export, protocol
from unroll.apps.core.protocol import Data, Service, Trained
from unroll.apps.core.runs import Run
from unroll.pipelines import datasets
from unroll.pipelines.errors import report_once

_SPEECH = test_speech_ctc_serving
MODELS = {
    "image_captioning": image_captioning_cases.make,
    "reading_comprehension": test_reading_comprehension.make,
    "slot_filling": test_slot_filling.make,
    "speech_ctc": functools.partial(_SPEECH.make, **_SPEECH.VARIANTS["both directions"]),
    "vqa": vqa_cases.make,
}


def app_of(name: str) -> ModuleType:
    return importlib.import_module(f"unroll.apps.{name}.app")


@dataclasses.dataclass
class Model:
    """A run of an app with random weights."""

    run: str
    trained: Trained
    serve: Callable[[], Service]


@pytest.fixture(scope="module")
def model_of(tmp_path_factory) -> Iterator[Callable[[str], Model]]:
    """The run of an app, which is made, loaded and traced once."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:

        @functools.cache
        def model_of(name: str) -> Model:
            app, trained = app_of(name), MODELS[name]()
            serve = functools.cache(functools.partial(app.serve, trained))
            patch.setattr(app, "serve", lambda _: serve())
            write_run(folder / name, app, trained)
            return Model(str(folder / name), trained, serve)

        def load_trained(app: ModuleType, run: Run) -> Trained:
            return dataclasses.replace(model_of(run.path.name).trained, config=run.config(app))

        patch.setattr(evaluation, "load_trained", load_trained)
        yield model_of


@dataclasses.dataclass
class Case:
    """What the cases use: an empty folder, the models, the command line, the standard error."""

    folder: Path
    model_of: Callable[[str], Model]
    call: Callable[..., tuple]
    capsys: pytest.CaptureFixture

    def predict(self, app: str, *inputs) -> list[dict]:
        """The results of `predict`."""
        run = self.model_of(app).run
        code, out, err = self.call(app, "predict", run, *map(str, inputs), "--json")
        assert (code, err) == (0, [])
        return [json.loads(line) for line in out]

    def refused(self, *arguments) -> str:
        """The only line of a command that fails."""
        code, out, err = self.call(*map(str, arguments))
        assert (code, out, len(err)) == (2, [], 1)
        return err[0]

    def load(self, name: str, *splits: str, **options) -> tuple[Data, str]:
        """What an app loads from the folder, and what it says."""
        app = app_of(name)
        preset = protocol.hook(app, "OWN_FILES") or app.Config()
        config = dataclasses.replace(preset, data=str(self.folder), **options)
        report_once.cache_clear()
        self.capsys.readouterr()
        return app.load(config, splits), self.capsys.readouterr().err

    def examples(self, kind: str) -> list[dict]:
        """All examples of the folder."""
        generators = datasets.builder(str(self.folder), kind=kind).source.generators(None)
        return [example for rows in generators.values() for _, example in rows]


@pytest.fixture
def use(call, model_of, tmp_path, capsys, parity_process) -> Case:
    return Case(tmp_path, model_of, call, capsys)


def babi_file_at_predict(use):
    """The numbers and questions of a file are read as in training."""
    path = use.folder / "story.txt"
    write(path, "1 Ann went to the garden.\n2 Dan slept.\n3 Where is Ann? \tgarden\t1\n")
    for questions in (["Where is Ann?"], []):
        [result] = use.predict("reading_comprehension", path, *questions)
        assert result["facts"] == ["Ann went to the garden.", "Dan slept."]
        assert result["question"] == "Where is Ann?"


def babi_heldout_leak(use):
    """No story is trained on and held out."""
    rooms = ("garden", "hall", "kitchen")
    stories = [
        "".join(
            f"{2 * n + 1} Ann{who} went to the {rooms[n % 3]}.\n"
            f"{2 * n + 2} Where is Ann{who}?\t{rooms[n % 3]}\t{2 * n + 1}\n"
            for n in range(5)
        )
        for who in "abcdefghijklmnopqrst"
    ]
    write(use.folder / "train.txt", "".join(stories))
    data, said = use.load("reading_comprehension", "train", "valid", batch_size=100)
    assert "10 of 100 questions are held out for it, by story (2 of 20)." in said
    words = data.assets["vocabulary"]

    def people(split: str) -> set[str]:
        found = set()
        for features, _ in data[split].unbatch().as_numpy_iterator():
            found |= {words[k] for k in features["facts"].ravel() if words[k].startswith("ann")}
        return found

    # Who is in no training story is an unknown word.
    assert len(people("train")) == 18
    assert people("valid") == set()


def common_voice(use):
    """The columns `path` and `sentence` are read; of a single speaker, files are held out."""
    rows = "".join(f"abc\twavs/{k:03}.wav\t{'mid low' if k % 2 else 'top'}\t2\n" for k in range(24))
    write(use.folder / "train.tsv", f"client_id\tpath\tsentence\tup_votes\n{rows}")
    (use.folder / "wavs").mkdir()
    for k in range(24):
        (use.folder / f"wavs/{k:03}.wav").write_bytes(wav(0.3, seed=k))
    data, said = use.load("speech_ctc", unit="words", rate=8000)
    assert data.assets["labels"][1:] == ["low", "mid", "top"]
    assert said.endswith("2 of 24 recordings are held out for it, by file (2 of 24).\n")


def _columns(use, text: str) -> tuple[list[list[str]], list[list[str]], str]:
    """The words and the tags of a file, and what is said."""
    write(use.folder / "train.conll", text)
    _, said = use.load("slot_filling")
    examples = use.examples("tagging")
    return [e["words"] for e in examples], [e["tags"] for e in examples], said


def conll_token_with_space(use):
    """A word between tabs is as in its column."""
    sentence = "The\tO\nNew York\tB-ORG\nTimes\tI-ORG\ncosts\tO\n26 000\tO\n10\u00a0000\tO\n\n"
    words, _, said = _columns(use, 12 * sentence)
    assert words == 12 * [["The", "New York", "Times", "costs", "26 000", "10\u00a0000"]]
    assert "36 of 72 words contain spaces or punctuation at which `predict` splits a text" in said
    data, _ = use.load("slot_filling")
    assert {"new york", "times"} < set(data.assets["vocabulary"])


SENTENCE = "Ada\tI-PER\nlives\tO\nin\tO\nLima\tI-LOC\nPeru\tB-LOC\n\n"
SPANS = ["B-PER", "O", "O", "B-LOC", "B-LOC"]


def conllu_comments(use):
    """Lines before a sentence that begin with # are comments, in a column of tags, too."""
    for before in ("# sent_id = 1\n# text = Ada lives in Lima\n", "# id\tO\n" * 2, "#\n#no text\n"):
        text = before + 12 * SENTENCE.replace("I-", "B-")
        is_word = "\tO" in before
        words, tags, said = _columns(use, text)
        assert SPANS in tags
        assert ("2 lines that begin with # are comments" in said) == (not is_word)
        assert {word for row in words for word in row if "#" in word} == (
            {"# id"} if is_word else set()
        )
    for remark in (" # a person", "\t# a person", "\t"):
        write(use.folder / "train.conll", 12 * f"Ada\tB-PER{remark}\nlives\tO{remark}\n\n")
        line = use.refused("slot_filling", "train", f"--data={use.folder}")
        assert "train.conll, line 1: the tag '" in line


def iob1(use):
    """IOB1, as CoNLL 2003 is distributed: `B-` only between spans of one name."""
    _, tags, said = _columns(use, "-DOCSTART-\tO\n\n" + 12 * SENTENCE)
    assert tags == 12 * [SPANS]
    assert "train.conll has IOB1 tags, which are converted to BIO." in said


def empty_batch(use):
    """The exports answer a batch without examples with empty outputs."""
    for name in MODELS:
        model, examples = use.model_of(name), app_of(name).examples()
        service, assets = model.serve(), model.trained.assets
        folder = export.write(service, assets, examples, use.folder / name, ("saved_model",))
        served = tf.saved_model.load(folder).signatures
        for signature, inputs in service.requests(examples[:1]).items():
            types = {spec.name: spec.dtype for spec in service.functions[signature].input_signature}
            none = {key: tf.constant(value[:0], types[key]) for key, value in inputs.items()}
            found = served[signature](**none)
            assert found
            assert {value.shape[0] for value in found.values()} == {0}, (name, signature)


def few_rows_no_valid(use):
    """Too few rows to hold some out: a line says so, and what to add."""
    with mock.patch.dict(SIZES):  # restores the order, too
        for split in ("valid", "test"):
            del SIZES[split]
        for name in sorted(own_files.LAYOUTS):
            plain_text = own_files.KINDS[name] == "plain_text"
            for rows in (1, 2 if plain_text else 4):
                SIZES["train"] = rows
                data = use.folder / f"{name} {rows}"
                next(iter(own_files.LAYOUTS[name].values())).write(data)
                run = use.folder / "run"
                code, out, err = use.call(name, "train", f"--data={data}", f"--run={run}")
                assert (code, out) == (2, [])
                *said, line = err
                usual = "are not read|is read as quoted|the frequency is|are held out for it"
                assert all(re.search(usual, each) for each in said)
                expected = (
                    rf"{data}/.*: \d+ bytes of text for 'train', at least 1000 are needed\."
                    if plain_text
                    else rf"{data}\S* has no validation split, and a tenth of \d \w+ cannot be "
                    r"held out for one: add .+, or more data\."
                )
                if name == "forecasting":  # a split is a period
                    expected = rf"{data}.*[Nn]o series (has two times|is long enough).*\."
                assert re.fullmatch(f"unroll: {expected}", line) or "same label" in line
                assert not run.exists()


def layers_api(use):
    """Stateful layers, labels out of range, NaN in masked steps, arguments of Keras's layers."""
    test_recurrent_limits.test_a_last_batch_may_be_smaller_in_fit()
    for out_of_range in test_ctc.OUT_OF_RANGE:
        test_ctc.test_labels_and_lengths_out_of_range(*out_of_range)
    for name in ("LSTM", "GRU"):
        robustness_checks.check_nan_in_masked_steps(next(c for c in LAYERS if c.name == name))
        for options in test_keras_rnn.WITHOUT_EFFECT:
            test_keras_rnn.test_arguments_about_keras_loops_are_accepted_and_change_nothing(
                getattr(layers, name), options
            )
    test_tensorflow_graphs.test_a_stateful_layer_does_not_convert()


def lm_beam_cubic(use):
    """The time of the search with a language model is linear in the length of a recording."""
    test_ctc_language_model.test_time_and_memory_are_linear_in_the_number_of_frames("character")
    # Twenty seconds on the command line, where each frame has several probable labels.
    path = use.folder / "twenty.wav"
    path.write_bytes(wav(20))
    [result] = use.predict("speech_ctc", path, "--with-language-model")
    assert len(result["labels"]) > 20
    assert isinstance(result["with_language_model"], str)


def nbsp_at_predict(use):
    """A no-break space and an ideographic space separate words."""
    texts = ["Ada lives in\u00a0Lima", "Ada lives in\u3000Lima", "Ada\u2028lives\u202fin\x85Lima"]
    for text, result in zip(texts, use.predict("slot_filling", *texts), strict=True):
        assert result["tokens"] == ["Ada", "lives", "in", "Lima"]
        assert result["text"] == text


def seq_trailing_line(use):
    """A blank line at the end of `label` is no sentence, and any other line is named."""
    train = use.folder / "train"
    write(train / "seq.in", "".join(f"go {k}\n" for k in range(12)))
    write(train / "seq.out", "O B-n\n" * 12)
    write(train / "label", "leave\n" * 12 + "\n")
    assert use.load("slot_filling")[0].assets["intents"] == ["leave"]
    write(train / "label", "leave\n" * 13)
    line = use.refused("slot_filling", "train", f"--data={use.folder}")
    assert line.startswith(f"unroll: {train / 'label'} has 13 lines, but {train}/seq.in has 12")


def slot_spans_quadratic(use):
    """The memory for a text is linear in its number of words."""
    use.predict("slot_filling", "Ada lives in Lima")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    [result] = use.predict("slot_filling", "Ada lives in Lima and " * 1200)
    assert len(result["slots"]) == 6000
    # A number for each pair of words would be 144 MB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # in KiB


def speech_unreadable_is_silence(use):
    """What training decodes, `predict` decodes; anything else is one line, or an error output."""
    plain = wav(0.7)
    formats = {
        "plain": plain,
        "float64": encode(plain, "WAV", "DOUBLE"),
        "24 bits": encode(plain, "WAVEX", "PCM_24"),
        "rf64": encode(plain, "RF64", "PCM_16"),
        "w64": encode(plain, "W64", "PCM_16"),
        "aiff named": encode(plain, "AIFF", "PCM_16"),
        "mulaw": encode(plain, "WAV", "ULAW"),
        "alaw": encode(plain, "WAV", "ALAW"),
        "adpcm": encode(plain, "WAV", "IMA_ADPCM"),
        "mp3 named": encode(plain, "MP3", "MPEG_LAYER_III"),
        "ogg named": encode(plain, "OGG", "VORBIS"),
    }
    in_graph = ("plain", "float64", "24 bits", "rf64", "w64", "mulaw", "alaw")
    for name, contents in formats.items():
        (use.folder / f"{name}.wav").write_bytes(contents)
    paths = [use.folder / f"{name}.wav" for name in formats]
    results = dict(zip(formats, use.predict("speech_ctc", *paths), strict=True))
    assert all(result["transcript"] and 0 < result["score"] < 1 for result in results.values())
    exact = [results[name]["transcript"] for name in list(formats)[:6]]
    assert len(set(exact)) == 1
    assert results["mulaw"]["score"] == pytest.approx(results["plain"]["score"], abs=0.05)
    unreadable = {k: v for k, v in _SPEECH.UNREADABLE.items() if k != "shorter than a frame"}
    for name, contents in unreadable.items():
        path = use.folder / f"{name}.wav"
        path.write_bytes(contents)
        line = use.refused("speech_ctc", "predict", use.model_of("speech_ctc").run, path)
        assert str(path) in line
    serve = use.model_of("speech_ctc").serve().functions["serving_default"]
    contents = {**formats, **unreadable}
    served = serve(tf.constant(list(contents.values())))
    for k, name in enumerate(contents):
        assert bool(served["error"][k] == b"") == (name in in_graph), name
        assert bool(served["score"][k] > 0) == (name in in_graph)
        expected = results[name]["transcript"] if name in in_graph else ""
        assert served["transcript"][k].numpy().decode() == expected


def tsv_pandas_quotes(use):
    """The quotation marks of pandas are not part of a text, which may have line breaks."""
    own = 'I love film number {}, "great"'
    rows = "".join(f'"{own.format(k).replace(chr(34), 2 * chr(34))}"\tgood\n' for k in range(19))
    write(use.folder / "train.tsv", f'text\tlabel\n{rows}"two\nlines here"\tbad\nso so\tbad\n')
    data, said = use.load("sentiment")
    assert "train.tsv is read as quoted, as spreadsheets write it" in said
    texts = {example["text"] for example in use.examples("text_classification")}
    assert texts == {*(own.format(k) for k in range(19)), "two\nlines here", "so so"}
    assert {"lines", '"'} < set(data.assets["vocabulary"])


def wav_rate_zero(use):
    """A header with a sample rate of 0 or 1 takes no memory: one line, or no samples."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run, contents = use.model_of("speech_ctc").run, []
    for samples, rate in ((100, 0), (1600, 0), (400, 1), (400, 999), (400, 2**32 - 1)):
        plain = wav(samples / 8000)
        contents.append(plain[:24] + struct.pack("<I", rate) + plain[28:])
        path = use.folder / f"{rate} {samples}.wav"
        path.write_bytes(contents[-1])
        line = use.refused("speech_ctc", "predict", run, path)
        assert line.startswith(f"unroll: {path}")
        assert (
            f"sample rate {rate} Hz, must be 1000 to " in line or "no possible sample rate" in line
        )
    service = use.model_of("speech_ctc").serve()
    served = service.functions["serving_default"](tf.constant(contents))
    assert (served["score"].numpy() == 0).all()
    assert all(b"sample rate" in error for error in served["error"].numpy())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # in KiB


CASES = {
    each.__name__.replace("_", "-"): each
    for each in (
        babi_file_at_predict, babi_heldout_leak, bmp_palette, coco_null_caption, common_voice,
        conll_token_with_space, conllu_comments, empty_batch, exif_orientation, few_rows_no_valid,
        iob1, layers_api, lm_beam_cubic, nbsp_at_predict, seq_trailing_line, slot_spans_quadratic,
        speech_unreadable_is_silence, tsv_pandas_quotes, wav_rate_zero,
    )
}  # fmt: skip
# Exports of all apps; what the tests of a layer or of a decoder show.
EXPENSIVE = (
    "bmp-palette",
    "empty-batch",
    "exif-orientation",
    "layers-api",
    "lm-beam-cubic",
    "speech-unreadable-is-silence",
)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.exhaustive if name in EXPENSIVE else [])
        for name in CASES
    ],
)
def test_case(name, use):
    CASES[name](use)
