"""Speech to text with CTC: recurrent layers that are trained on transcripts without alignments."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal

import keras
import tensorflow as tf
from keras import ops
from rich.text import Text

from unroll import layers
from unroll.apps.core.config import TrainingConfig, optimizer
from unroll.apps.core.data import RawSplits
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Assets, Axes, Data, Page, Report, Service, Trained
from unroll.apps.shared.recurrent import recurrent_layers, require_cell
from unroll.apps.speech_ctc import decoding, metrics, recordings, serving, streaming
from unroll.apps.speech_ctc import report as reports
from unroll.pipelines import speech
from unroll.pipelines.audio import FrontEnd
from unroll.pipelines.datasets.speech.fsdd import SPEAKERS
from unroll.pipelines.sound import RATES

KERNEL_SIZE, STRIDE = 5, 2  # of the convolutions
# The least and the largest value of options.
_BOUNDS = (
    ("beam_width", 1, math.inf),
    ("rate", *RATES),
    ("window", 1, 1000),
    ("mels", 1, 1000),
    ("cepstra", 0, 1000),
    ("deltas", 0, 2),
    ("convolutions", 0, 8),
    ("units", 1, math.inf),
    ("depth", 1, math.inf),
    ("gain", 0, 60),
    ("time_mask", 0, math.inf),
    ("frequency_mask", 0, math.inf),
    ("lm_order", 1, math.inf),
)


@dataclass(frozen=True)
class Search:
    # number of prefixes that the beam searches keep
    beam_width: int = 16
    # weight of the language model; 0 does without it
    lm_weight: float = 0.5
    # bonus of each word; a language model alone prefers transcripts of few words
    word_bonus: float = 1.0
    # words to favor, each with its bonus: "word=2.0,other=1.5"
    hot_words: str = ""
    # predict: also search with the language model, as evaluate and report do
    with_language_model: bool = False


@dataclass(frozen=True)
class Config(Search, TrainingConfig):
    # name of a dataset, or a folder of recordings and transcripts
    data: str = "spoken_digits"
    # labels of the output
    unit: Literal["characters", "words", "phones"] = "characters"
    # pronouncing dictionary for unit=phones: a file with a word and its phones on each line
    lexicon: str = ""
    # sample rate in Hz; recordings are resampled to it
    rate: int = 16_000
    # length of a frame in ms
    window: float = 25.0
    # time between two frames in ms
    hop: float = 10.0
    # number of mel bands
    mels: int = 40
    # number of MFCCs; 0 for log-mel spectra
    cepstra: int = 0
    # order of the time derivatives that are added to the features: 0, 1 or 2
    deltas: int = 0
    # normalization of each feature to mean 0 and variance 1: batch normalization, over the past of
    # a recording, or over the whole recording, which excludes streaming
    normalization: Literal["batch", "running", "utterance"] = "batch"
    # number of convolutions before the recurrent layers; each halves the number of frames
    convolutions: int = 1
    # recurrent layer, by its name in `unroll.layers`
    cell: str = "LSTM"
    # size of the recurrent state in each direction
    units: int = 128
    # number of recurrent layers
    depth: int = 2
    # read in both directions, which excludes streaming
    bidirectional: bool = True
    # dropout rate between layers
    dropout: float = 0.2
    # augmentation: maximum relative change of the speed
    speed: float = 0.0
    # augmentation: maximum change of the loudness in dB
    gain: float = 0.0
    # augmentation: maximum white noise, relative to the loudest sample
    noise: float = 0.0
    # augmentation: maximum number of frames that each of two SpecAugment masks covers
    time_mask: int = 0
    # augmentation: maximum number of features that each of two SpecAugment masks covers
    frequency_mask: int = 0
    # ARPA file or KenLM binary file of a language model; without one, it is estimated from the
    # training transcripts
    language_model: str = ""
    # order of the estimated language model: 3 for trigrams
    lm_order: int = 3
    # figure that selects the best epoch
    monitor: str = "val_label_error_rate"

    def __post_init__(self):
        super().__post_init__()
        require_cell("cell", self.cell)
        if self.unit == "phones" and not self.lexicon:
            raise ValueError("unit=phones needs lexicon=FILE.")
        if not self.bidirectional and self.deltas and self.normalization == "running":
            raise ValueError(
                "deltas must be 0 with bidirectional=False and normalization=running, since they "
                f"depend on later frames, got {self.deltas}."
            )
        for name in ("speed", "noise"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}.")
        for name, least, most in _BOUNDS:
            if not least <= getattr(self, name) <= most:
                bound = f"at least {least}" if most == math.inf else f"in [{least}, {most}]"
                raise ValueError(f"{name} must be {bound}, got {getattr(self, name)}.")
        if not 1 <= self.hop * self.rate / 1000 <= self.window * self.rate / 1000:
            raise ValueError(
                f"hop must be at least one sample ({1000 / self.rate:g} ms) and at most window "
                f"({self.window} ms), got {self.hop}."
            )
        if self.cepstra > self.mels:
            raise ValueError(f"cepstra must be at most mels ({self.mels}), got {self.cepstra}.")
        if not 0 <= self.lm_weight < math.inf:
            raise ValueError(f"lm_weight must be at least 0 and finite, got {self.lm_weight}.")
        if not math.isfinite(self.word_bonus):
            raise ValueError(f"word_bonus must be finite, got {self.word_bonus}.")
        if self.with_language_model and not decoding.uses_language_model(self):
            raise ValueError("with_language_model needs lm_weight above 0 or hot_words.")
        decoding.parse_hot_words(self.hot_words)

    @property
    def subsampling(self) -> int:
        """Number of frames of features per frame of the output."""
        return STRIDE**self.convolutions


_DIGITS = Config(
    data="spoken_digits", unit="words", rate=8000, units=96, depth=1, epochs=12, batch_size=16,
    learning_rate=3e-3, schedule="cosine", patience=12, speed=0.1, noise=0.01, time_mask=3,
    frequency_mask=4, lm_order=1,
)  # fmt: skip
_FSDD = replace(_DIGITS, data="fsdd", epochs=20, patience=20)
PRESETS = {
    "spoken_digits": _DIGITS,
    "fsdd": _FSDD,
    **{
        name: replace(_FSDD, data=name, epochs=12, patience=12)
        for name in ("fsdd_strings", *(f"fsdd_without_{who}" for who in SPEAKERS))
    },
    "librispeech": Config(data="librispeech", units=512, depth=4, dropout=0.3, time_mask=40),
    "an4": Config(
        data="an4", normalization="utterance", units=192, epochs=40, batch_size=16, patience=20,
        learning_rate=2e-3, schedule="cosine", dropout=0.4, time_mask=20, frequency_mask=2,
        lm_weight=0.3, word_bonus=2.0, beam_width=32,
    ),
}  # fmt: skip

# Characters spell any word, unlike the words of the generated digits.
OWN_FILES = Config(
    units=192, epochs=40, batch_size=16, patience=10, learning_rate=2e-3, schedule="cosine",
    dropout=0.3, speed=0.1, noise=0.01, time_mask=20, frequency_mask=4, beam_width=32,
)  # fmt: skip

TASK = "automatic-speech-recognition"
PUBLISHED = {
    "an4": {
        "word_error_rate": 0.0509,
        "character_error_rate": 0.0299,
        "source": "Deep Speech 2 on waveforms, as a third party trained it; no paper",
    },
}

METRICS = {
    "label_error_rate": "min",
    "word_error_rate": "min",
    "language_model_word_error_rate": "min",
    "accuracy": "max",
}
MONITORS = {"val_label_error_rate": "min"}


def load(
    config: Config,
    splits: tuple[str, ...],
    assets: Assets | None = None,
    training: bool = False,
) -> Data:
    """Batches of features and label ids.

    The labels and the language model are those of the training transcripts. Labels that only
    another split has are counted on the standard error.
    """
    raw, units = RawSplits(config, "speech"), _units(config)
    interface = assets["interface"] if assets else _interface(config, raw.builder.features)
    front_end = recordings.front_end({"interface": interface})
    survey = functools.cache(lambda split: speech.survey(raw[split], front_end))
    if assets is None:
        transcripts = survey("train").transcripts
        assets = {
            "labels": [speech.BLANK, *speech.labels_of(transcripts, units)],
            "interface": interface,
            "language_model": decoding.language_model_asset(config, transcripts, units),
        }

    def batches(split: str) -> tf.data.Dataset:
        train = training and split == "train"
        augmentation = speech.Augmentation(
            config.speed, config.gain, config.noise, config.time_mask, config.frequency_mask
        )
        made, left_out = speech.speech_batches(
            raw[split],
            survey(split),
            front_end,
            assets["labels"],
            units,
            normalization=config.normalization,
            subsampling=config.subsampling,
            batch_size=config.batch_size,
            augmentation=augmentation if train else None,
            shuffle=config.seed if train else None,
            static=config.jit and train,
        )
        recordings.report_left_out(left_out)
        recordings.report_unknown(survey(split).transcripts, units, assets, split)
        return made

    return Data({split: batches(split) for split in splits}, assets)


def _units(config: Config) -> Callable[[str], list[str]]:
    """Turns a transcript into labels."""
    lexicon = speech.read_lexicon(config.lexicon) if config.lexicon else {}
    return functools.partial(speech.split_units, unit=config.unit, lexicon=lexicon)


def _interface(config: Config, features: dict) -> dict:
    """How recordings become features, and labels a transcript.

    `normalization` and `separator` are for clients of an export, which do not have the
    configuration.
    """
    how = {
        "normalization": config.normalization,
        "separator": "" if config.unit == "characters" else " ",
    }
    if "features" in features:  # the dataset has features instead of samples
        return {"front_end": None, "features": features["features"].shape[-1], **how}
    front_end = FrontEnd(
        config.rate,
        window=round(config.window * config.rate / 1000),
        hop=round(config.hop * config.rate / 1000),
        mels=config.mels,
        cepstra=config.cepstra,
        deltas=config.deltas,
    )
    return {"front_end": asdict(front_end), "features": front_end.size, **how}


def axes(config: Config) -> Axes:
    """The weights of the labels."""
    return {"logits/kernel": (None, "labels"), "logits/bias": ("labels",)}


def build(config: Config, assets: Assets) -> keras.Model:
    """Convolutions that subsample, recurrent layers, and the logits of the blank and the labels."""
    features = keras.Input((None, assets["interface"]["features"]), name="features")  # [B, T, D]
    lengths = keras.Input((), dtype="int32", name="lengths")  # [B]
    x = features
    if config.normalization == "batch":
        normalize = keras.layers.BatchNormalization(name="normalization")
        x = normalize(x, mask=length_mask(x, lengths))
    for i in range(config.convolutions):
        # Causal: a frame does not depend on later ones, so that the model can stream.
        x = ops.pad(x, [[0, 0], [KERNEL_SIZE - STRIDE, 0], [0, 0]])
        x = keras.layers.Conv1D(
            config.units, KERNEL_SIZE, STRIDE, activation="relu", name=f"convolution_{i}"
        )(x)
        x = keras.layers.Dropout(config.dropout)(x)
    mask = length_mask(x, lengths // config.subsampling)  # [B, T]
    states, *_ = layers.Stack(
        recurrent_layers(config.cell, config.units, config.depth),
        bidirectional=config.bidirectional,
        dropout=config.dropout,
        return_state=True,
        name="stack",
    )(x, mask=mask)  # [B, T, U]
    states = keras.layers.Dropout(config.dropout)(states)
    logits = keras.layers.Dense(len(assets["labels"]), dtype="float32", name="logits")(states)
    logits = layers.pad_with_blanks(logits, mask)  # [B, T, K]
    model = keras.Model({"features": features, "lengths": lengths}, logits)
    model.compile(
        optimizer(config),
        metrics.KnownLabelsLoss(),
        metrics=[metrics.LabelErrorRate()],
        jit_compile=config.jit,
    )
    return model


def length_mask(x, lengths):
    """Whether a frame of `[B, T, D]` is one of the first `lengths`, `[B, T]`.

    It uses only ops that are built into LiteRT.
    """
    numbers = ops.cumsum(ops.ones_like(x[:, :, 0]), axis=1)
    return numbers <= ops.expand_dims(ops.cast(lengths, numbers.dtype), -1)


def score(trained: Trained, dataset: tf.data.Dataset) -> dict:
    """Error rates of labels, words and characters: greedy, beam search, with language model."""
    return metrics.score(trained, dataset)


def baseline(config: Config, data: Data, split: str) -> dict:
    """The most frequent training transcript."""
    raw, units = RawSplits(config, "speech"), _units(config)

    def transcripts(name: str) -> list[str]:  # without the recordings, unlike `data`
        texts = raw[name].map(lambda example: example["transcript"]).as_numpy_iterator()
        return [speech.join_units(units(text.decode()), config.unit) for text in texts]

    return metrics.baseline(transcripts("train"), transcripts(split), config.unit)


def serve(trained: Trained) -> Service:
    """`serving_default`, `beam`: wav files to transcripts; `frames`, for LiteRT; `step`."""
    return serving.service(trained)


request = serving.request


def predict(trained: Trained, inputs: list[str | bytes]) -> list[dict]:
    """Transcripts of recordings, given as paths or bytes of sound files.

    A result has the greedy transcript with its score, its labels with their times, the transcript
    by a beam search with the language model (None unless `with_language_model` or hot words are
    set), and the probabilities of the labels over time.

    Raises:
        DataError, UsageError: one line, if a recording cannot be read or is too short.
    """
    contents = [recordings.read(given, trained) for given in inputs]
    recognize = serving.recognizer_function(trained)
    found = [
        {name: value.numpy()[0] for name, value in recognize(tf.constant([each])).items()}
        for each in contents
    ]
    for given, outputs in zip(inputs, found, strict=True):
        if outputs["error"]:
            name = given if isinstance(given, str) else "The recording"
            raise UsageError(f"{name}: {outputs['error'].decode()}.")
    all_logits = [outputs["logits"][: outputs["frames"]] for outputs in found]
    decoded = [None] * len(found)
    if trained.config.with_language_model or trained.config.hot_words:
        decoded = decoding.decode_with_language_model(all_logits, trained)
    names = trained.assets["labels"]
    results = []
    for given, logits, outputs, with_language_model in zip(
        inputs, all_logits, found, decoded, strict=True
    ):
        labels = [
            {"label": label.decode(), "seconds": round(float(seconds), 3)}
            for label, seconds in zip(outputs["labels"], outputs["timestamps"], strict=True)
            if seconds >= 0
        ]
        result = {"recording": given} if isinstance(given, str) else {}
        results.append(
            result
            | {
                "transcript": outputs["transcript"].decode(),
                "score": float(outputs["score"]),
                "labels": labels,
                "with_language_model": with_language_model,
                "seconds_per_frame": recordings.seconds_per_frame(trained),
                "probabilities": metrics.label_probabilities(
                    logits, names, [each["label"] for each in labels]
                ),
            }
        )
    return results


def stream(trained: Trained, recording: str | bytes) -> Iterator[str]:
    """The transcript of a recording, piece by piece."""
    return streaming.stream(trained, recordings.read(recording, trained))


def show(result: dict) -> Text:
    """The score, the transcript, and the time of each label."""
    line = Text(f"{result['score']:.1%}  ", style="bold") + Text(result["transcript"])
    if result["with_language_model"] not in (None, result["transcript"]):
        line += Text(f"  (with language model: {result['with_language_model']})", "dim")
    times = " ".join(f"{each['label']}@{each['seconds']:.2f}" for each in result["labels"])
    return line + Text(f"\n       {times}", style="dim")


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """Error rates, alignments, the worst transcripts, confusions, CTC spikes."""
    return reports.report(trained, dataset)


plot = reports.plot


def page(trained: Trained) -> Page:
    """A recording and its transcript, which grows while a model that can stream listens."""
    config = trained.config
    outputs = {"transcript": ("text", lambda result: result["transcript"])}
    if config.with_language_model or config.hot_words:
        outputs["with language model"] = ("text", lambda result: result["with_language_model"])
    can_stream = streaming.can_stream(trained)
    return Page(
        {"recording": "audio"},
        outputs,
        is_streamed=can_stream,
        listen=functools.partial(streaming.listen, trained) if can_stream else None,
    )


def examples() -> list[bytes]:
    """Some generated wav files."""
    return recordings.examples()
