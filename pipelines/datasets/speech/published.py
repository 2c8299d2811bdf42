"""Recordings with transcripts: what such datasets share; Free Spoken Digits and AN4."""

import re
import zipfile
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.audio import encode_wav
from unroll.pipelines.datasets.base import Builder
from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.errors import DataError

DIGITS = "zero one two three four five six seven eight nine".split()
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


class Speech(Builder, skip_registration=True):
    """Wav files as bytes, their transcripts, and who speaks."""

    FEATURES: ClassVar = {"audio": tf.string, "transcript": tf.string, "speaker": tf.string}


_FSDD = Source(
    "fsdd",
    "free-spoken-digit-dataset-26eb9aaf76e81b692f806f9140c2d2777410d7a1.zip",
    "https://codeload.github.com/Jakobovski/free-spoken-digit-dataset/zip/"
    "26eb9aaf76e81b692f806f9140c2d2777410d7a1",
)
STRINGS = {"train": 2000, "valid": 200, "test": 300}


class Fsdd(Speech, skip_registration=True):
    """Free Spoken Digits: 3,000 recordings at 8 kHz, each of ten digits fifty times by six people.

    The configurations:

    - `single`: a recording is an example. The published test split is the recordings 0 to 4 of each
      digit and speaker (300); validation takes 5 to 7 (180), training the rest (2,520).
    - `strings`: three to six digits of one speaker, joined from recordings of one split with pauses
      of up to a tenth of a second; 2,000 / 200 / 300.
    - `without_<speaker>`: the test split is all 500 recordings of one speaker, validation the
      recordings 5 to 7 of the others, training the rest of theirs.
    """

    HOMEPAGE = "https://github.com/Jakobovski/free-spoken-digit-dataset"
    CITATION = "Jackson et al., Free Spoken Digit Dataset, 2018"
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name)
        for name in ("single", "strings", *(f"without_{speaker}" for speaker in SPEAKERS))
    ]

    def _split_generators(self, dl_manager):
        path = find(_FSDD, dl_manager, self.manual_dir)
        splits = {"train": [], "valid": [], "test": []}
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                found = re.search(r"recordings/(\d)_([a-z]+)_(\d+)\.wav$", name)
                if found:
                    digit, speaker, index = int(found[1]), found[2], int(found[3])
                    split = self._split(speaker, index)
                    splits[split].append((digit, speaker, index, archive.read(name)))
        if not splits["train"]:
            raise DataError(f"{path} has no recordings/<digit>_<speaker>_<index>.wav.")
        return {split: self._generate_examples(split, rows) for split, rows in splits.items()}

    def _generate_examples(self, split: str, rows: list) -> Iterator[tuple[str, dict]]:
        return (_strings if self.builder_config.name == "strings" else _single)(split, rows)

    def _split(self, speaker: str, index: int) -> str:
        left_out = self.builder_config.name.removeprefix("without_")
        if left_out in SPEAKERS:
            if speaker == left_out:
                return "test"
            return "valid" if 5 <= index < 8 else "train"
        if index < 5:
            return "test"
        return "valid" if index < 8 else "train"


def _single(split: str, rows: list) -> Iterator[tuple[str, dict]]:
    for digit, speaker, index, contents in rows:
        row = {"audio": contents, "transcript": DIGITS[digit], "speaker": speaker}
        yield f"{digit}_{speaker}_{index}", row


def _strings(split: str, rows: list) -> Iterator[tuple[str, dict]]:
    rng = np.random.default_rng(["train", "valid", "test"].index(split))
    of_speaker = {who: [row for row in rows if row[1] == who] for who in SPEAKERS}
    for k in range(STRINGS[split]):
        speaker = SPEAKERS[k % len(SPEAKERS)]
        mine = of_speaker[speaker]
        chosen = [mine[i] for i in rng.integers(len(mine), size=rng.integers(3, 7))]
        parts = []
        for *_, contents in chosen:
            samples, _ = tf.audio.decode_wav(contents)
            parts += [samples[:, 0].numpy(), np.zeros(rng.integers(0, 801), "float32")]
        transcript = " ".join(DIGITS[digit] for digit, *_ in chosen)
        audio = encode_wav(np.concatenate(parts), 8000).numpy()
        yield f"{split}_{k}", {"audio": audio, "transcript": transcript, "speaker": speaker}


_AN4 = Source("an4", "an4_mfc.zip", "https://www.speech.cs.cmu.edu/databases/an4/an4_mfc.zip")


class An4(Speech, skip_registration=True):
    """AN4: 948 / 130 utterances of letters, digits and commands, 13 MFCCs at 100 frames a second.

    The MFCCs are CMU's own; there are no waveforms. 74 people speak in the training data, of whom
    every tenth is set aside for validation; ten others speak in the test split.
    """

    HOMEPAGE = "https://www.speech.cs.cmu.edu/databases/an4/"
    CITATION = "Acero and Stern 1990"
    FEATURES: ClassVar = {
        "features": tfds.features.Tensor(shape=(None, 13), dtype=tf.float32),
        "transcript": tf.string,
        "speaker": tf.string,
    }

    def _split_generators(self, dl_manager):
        path = find(_AN4, dl_manager, self.manual_dir)
        rows = {"train": [], "test": []}
        with zipfile.ZipFile(path) as archive:
            for split, found in rows.items():
                names = archive.read(f"etc/an4_{split}.fileids").decode().split()
                texts = archive.read(f"etc/an4_{split}.transcription").decode().splitlines()
                for name, line in zip(names, texts, strict=True):
                    text, _, own = line.rpartition("(")
                    if own.rstrip(")") != name.rpartition("/")[2]:
                        raise DataError(f"{path}: {line!r} is not the transcript of {name}.")
                    text = re.sub(r"</?s>", "", text).strip()
                    mfcc = read_mfcc(archive.read(f"feat/{name}.mfc"), name)
                    speaker = name.split("/")[-2]
                    row = {"features": mfcc, "transcript": text, "speaker": speaker}
                    found.append((name, row))
        people = sorted({row["speaker"] for _, row in rows["train"]})
        aside = set(people[::10])
        rows["valid"] = [each for each in rows["train"] if each[1]["speaker"] in aside]
        rows["train"] = [each for each in rows["train"] if each[1]["speaker"] not in aside]
        return {split: self._generate_examples(found) for split, found in rows.items()}

    def _generate_examples(self, rows: list) -> Iterator[tuple[str, dict]]:
        yield from rows


def read_mfcc(contents: bytes, name: str) -> np.ndarray:
    """Sphinx's features, `[T, 13]`: their number, big-endian, and then the floats.

    Raises:
        DataError: if their number is another.
    """
    count = int.from_bytes(contents[:4], "big")
    if len(contents) != 4 + 4 * count or count % 13:
        raise DataError(f"{name} is no file of 13 MFCCs a frame.")
    return np.frombuffer(contents[4:], ">f4").reshape(-1, 13).astype("float32")
