"""Speech to text with CTC: what was said, when nobody says where each letter begins."""

import functools
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal

import keras
import tensorflow as tf
from keras import ops
from rich.text import Text

from unroll import layers
from unroll.apps.core.config import TrainingConfig, optimizer
from unroll.apps.core.protocol import Assets, Data, Service, ask, settings_asset, settings_of
from unroll.apps.speech_ctc import metrics, recordings, serving
from unroll.apps.speech_ctc.streaming import letters_as_they_come
from unroll.layers.recurrent import RECURRENT_LAYERS
from unroll.pipelines import datasets, speech
from unroll.pipelines.audio import FrontEnd
from unroll.pipelines.datasets.speech.fsdd import SPEAKERS

KERNEL, STRIDE = 5, 2  # of the convolutions that subsample


@dataclass(frozen=True)
class Search:
    # how many prefixes a beam search keeps
    beam_width: int = 16
    # how much the language model counts
    lm_weight: float = 0.5
    # what each word earns beside it
    word_bonus: float = 1.0
    # words that are likelier here than elsewhere, "word=2.0,other=1.5": they earn that
    hot_words: str = ""


@dataclass(frozen=True)
class Config(Search, TrainingConfig):
    # a generated or published dataset, or a folder of recordings and their transcripts
    data: str = "spoken_digits"
    # what the model writes
    unit: Literal["characters", "words", "phones"] = "characters"
    # for phones: a file of words, each with its phones
    lexicon: str = ""
    # the rate to which recordings are brought, Hz
    rate: int = 16_000
    # the length of a frame, ms
    window: float = 25.0
    # from one frame to the next, ms
    hop: float = 10.0
    # how many mel bands
    mels: int = 40
    # how many MFCCs are made of them; 0 for none
    cepstra: int = 0
    # how often the slopes over time are added
    deltas: int = 0
    # over what each feature gets mean 0 and variance 1: the training batches, what was heard so far
    # of a recording, or the whole of it, which cannot serve streams
    normalization: Literal["batch", "running", "utterance"] = "batch"
    # how many convolutions of stride two stand before the recurrent layers
    convolutions: int = 1
    # the recurrent layer, by its name in `layers`
    cell: str = "LSTM"
    # the size of the recurrent state, for each direction
    units: int = 128
    # how many recurrent layers
    depth: int = 2
    # whether they read from both ends; a model that does not can be exported for streams
    bidirectional: bool = True
    # the share of features dropped between layers
    dropout: float = 0.2
    # in training: the most by which speech is faster or slower, a share
    speed: float = 0.0
    # in training: the most by which it is louder or softer, dB
    gain: float = 0.0
    # in training: white noise up to this share of the loudest sample
    noise: float = 0.0
    # in training: the most frames that a mask blots out, two masks each (SpecAugment)
    time_mask: int = 0
    # and the most features
    frequency_mask: int = 0
    # an ARPA file; without, the language model is made of the training transcripts
    language_model: str = ""
    # the most words that the language model made here looks at together
    order: int = 3
    # the validation figure that decides
    monitor: str = "val_label_error_rate"

    def __post_init__(self):
        super().__post_init__()
        if self.cell not in RECURRENT_LAYERS:
            known = ", ".join(RECURRENT_LAYERS)
            raise ValueError(f"cell must be one of {known}, got {self.cell!r}.")
        if self.unit == "phones" and not self.lexicon:
            raise ValueError("unit=phones needs lexicon, a file of words and their phones.")
        if not self.bidirectional and self.deltas and self.normalization == "running":
            raise ValueError("deltas look ahead: they cannot serve streams.")
        for name in ("speed", "noise"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}.")
        metrics.read_hot_words(self.hot_words)


_DIGITS = Config(
    data="spoken_digits", unit="words", rate=8000, units=96, depth=1, epochs=12, batch_size=16,
    learning_rate=3e-3, schedule="cosine", patience=12, speed=0.1, noise=0.01, time_mask=3,
    frequency_mask=4, order=1,
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
PUBLISHED = {
    "an4": {
        "word_error_rate": 0.0509,
        "character_error_rate": 0.0299,
        "source": "Deep Speech 2 on waveforms, as a third party trained it; no paper",
    },
}
EXAMPLES = recordings.examples()


def load(config: Config, assets: Assets | None = None) -> Data:
    """The dataset's recordings as batches of features, with the labels of their transcripts."""
    builder = datasets.builder(config.data, kind="speech")
    raw, front_end = datasets.splits(builder), None
    if "features" not in raw["train"].element_spec:
        ms = {"window": config.window, "hop": config.hop}
        samples = {name: round(ms[name] * config.rate / 1000) for name in ms}
        front_end = FrontEnd(
            config.rate, **samples, mels=config.mels, cepstra=config.cepstra, deltas=config.deltas
        )
    lexicon = speech.read_lexicon(config.lexicon) if config.lexicon else {}
    units = functools.partial(speech.split_units, unit=config.unit, lexicon=lexicon)
    if assets is None:
        texts = {name: recordings.transcripts(split) for name, split in raw.items()}
        found = {label for text in itertools.chain(*texts.values()) for label in units(text)}
        settings = {name: getattr(config, name) for name in recordings.SETTINGS}
        settings["front_end"] = asdict(front_end) if front_end else None
        settings["features"] = front_end.size if front_end else 13
        assets = {
            "labels": [speech.BLANK, *sorted(found)],
            "settings": settings_asset(settings),
            "language_model": metrics.language_model_lines(config, texts["train"], lexicon),
        }

    def batches(split: str):
        if split not in raw:
            return None
        training = split == "train"
        augmentation = speech.Augmentation(
            config.speed, config.gain, config.noise, config.time_mask, config.frequency_mask
        )
        made, left_out = speech.speech_batches(
            raw[split],
            front_end,
            assets["labels"],
            units,
            normalization=config.normalization,
            subsampling=STRIDE**config.convolutions,
            batch_size=config.batch_size,
            augmentation=augmentation if training else None,
            shuffle=config.seed if training else None,
            static=config.jit and training,
        )
        recordings.report_left_out(left_out)
        return made

    return Data(batches("train"), batches("valid"), batches("test"), assets)


def build(config: Config, assets: Assets) -> keras.Model:
    """Convolutions that subsample, recurrent layers, and the logits of labels and blank."""
    settings = settings_of(assets)
    features = keras.Input((None, settings["features"]), name="features")  # [B, T, F]
    lengths = keras.Input((), dtype="int32", name="lengths")
    x = features
    if config.normalization == "batch":
        normalize = keras.layers.BatchNormalization(name="normalization")
        x = normalize(x, mask=first_frames(x, lengths))
    for k in range(config.convolutions):
        # What is heard later changes nothing: streams are heard as recordings are.
        x = ops.pad(x, [[0, 0], [KERNEL - STRIDE, 0], [0, 0]])
        x = keras.layers.Conv1D(
            config.units, KERNEL, STRIDE, activation="relu", name=f"convolution_{k}"
        )(x)
        x = keras.layers.Dropout(config.dropout)(x)
    mask = first_frames(x, lengths // STRIDE**config.convolutions)
    states, *_ = layers.Stack(
        [getattr(layers, config.cell)(config.units) for _ in range(config.depth)],
        bidirectional=config.bidirectional,
        dropout=config.dropout,
        return_state=True,
        name="stack",
    )(x, mask=mask)
    states = keras.layers.Dropout(config.dropout)(states)
    logits = keras.layers.Dense(len(assets["labels"]), dtype="float32", name="logits")(states)
    logits = layers.pad_with_blanks(logits, mask)
    model = keras.Model({"features": features, "lengths": lengths}, logits)
    model.compile(
        optimizer(config),
        layers.CTCLoss(),
        metrics=[metrics.LabelErrorRate()],
        jit_compile=config.jit,
    )
    return model


def first_frames(x, lengths):
    """Which frames of `[B, T, F]` are among the first `[B]`; in ops that LiteRT has built in."""
    numbers = ops.cumsum(ops.ones_like(x[:, :, 0]), axis=1)
    return numbers <= ops.expand_dims(ops.cast(lengths, numbers.dtype), -1)


def score(model: keras.Model, assets: Assets, dataset: tf.data.Dataset) -> dict:
    """Error rates of labels, words and characters, greedy, by beam, and with a language model."""
    return metrics.figures(metrics.answers(model, assets, dataset), assets)


def baseline(config: Config, data: Data, split: str) -> dict:
    """What the most frequent transcript of the training data is worth, said of everything."""
    unit = settings_of(data.assets)["unit"]
    said = Counter(tuple(row) for row in metrics.references(data.train, data.assets))
    always = speech.join_units(said.most_common(1)[0][0], unit)
    told = metrics.references(getattr(data, split), data.assets)
    right = [speech.join_units(row, unit) for row in told]
    found = metrics.error_rates(right, [always] * len(right), unit)
    return {"what": "always the most frequent transcript"} | found


def serve(model: keras.Model, assets: Assets) -> Service:
    """`serving_default`: wav files to transcripts; `beam`; `frames`, for LiteRT; and `step`."""
    return serving.service(model, assets)


def predict(model: keras.Model, assets: Assets, inputs: list) -> list[dict]:
    """The transcript of each recording, its labels with their times, and what a search finds."""
    contents = [recordings.read(given) for given in inputs]
    results = []
    answers = ask(serve(model, assets), contents)
    for given, sound, answer in zip(inputs, contents, answers, strict=True):
        logits = serving.logits_of(model, assets, sound)
        times = [
            {"label": label, "seconds": round(seconds, 3)}
            for label, seconds in zip(answer["labels"], answer["timestamps"], strict=True)
            if seconds >= 0
        ]
        result = {"recording": given} if isinstance(given, str) else {}
        result |= {"transcript": answer["transcript"], "score": answer["score"], "labels": times}
        result["with_language_model"] = metrics.with_language_model([logits], assets)[0]
        results.append(result)
    return results


def stream(model: keras.Model, assets: Assets, given: str | bytes) -> Iterator[str]:
    """The transcript of a recording as it comes, piece by piece."""
    return letters_as_they_come(model, assets, recordings.read(given))


def show(result: dict) -> Text:
    """The transcript, how sure the model is, and when each label was heard."""
    line = Text(f"{result['score']:.1%}  ", style="bold") + Text(result["transcript"])
    if result["with_language_model"] != result["transcript"]:
        line += Text(f"  (with the language model: {result['with_language_model']})", "dim")
    times = " ".join(f"{each['label']}@{each['seconds']:.2f}" for each in result["labels"])
    return line + Text(f"\n       {times}", style="dim")
