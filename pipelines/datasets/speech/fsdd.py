"""The Free Spoken Digit Dataset."""

import re
import zipfile
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.datasets.speech.base import DIGITS, Speech
from unroll.pipelines.errors import DataError
from unroll.pipelines.sound import encode_wav

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
STRINGS = {"train": 2000, "valid": 200, "test": 300}  # examples of the configuration `strings`
ARCHIVE = Source(
    "fsdd",
    "free-spoken-digit-dataset-26eb9aaf76e81b692f806f9140c2d2777410d7a1.zip",
    "https://codeload.github.com/Jakobovski/free-spoken-digit-dataset/zip/"
    "26eb9aaf76e81b692f806f9140c2d2777410d7a1",
)


class Fsdd(Speech, skip_registration=True):
    """Free Spoken Digit Dataset: 3,000 recordings at 8 kHz, 50 of each digit by six speakers.

    The configurations:

    - `single`: each recording is an example. The test split is the published one: the recordings
      0 to 4 of each digit and speaker (300). Validation has 5 to 7 (180), training the rest
      (2,520).
    - `strings`: three to six digits of one speaker, joined from recordings of one split with pauses
      of up to 0.1 seconds; 2,000 / 200 / 300.
    - `without_<speaker>`: the test split is all 500 recordings of one speaker. Validation has the
      recordings 5 to 7 of the other speakers, training the rest.
    """

    HOMEPAGE = "https://github.com/Jakobovski/free-spoken-digit-dataset"
    CITATION = "Jackson et al., Free Spoken Digit Dataset, 2018"
    LICENSE = "CC BY-SA 4.0"
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name)
        for name in ("single", "strings", *(f"without_{speaker}" for speaker in SPEAKERS))
    ]

    def _split_generators(self, dl_manager):
        path = find(ARCHIVE, dl_manager, self.manual_dir)
        splits = {"train": [], "valid": [], "test": []}
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                match = re.search(r"recordings/(\d)_([a-z]+)_(\d+)\.wav$", name)
                if match:
                    digit, speaker, index = int(match[1]), match[2], int(match[3])
                    split = self._split(speaker, index)
                    splits[split].append((digit, speaker, index, archive.read(name)))
        if not splits["train"]:
            raise DataError(f"{path} has no recordings/<digit>_<speaker>_<index>.wav.")
        return {split: self._generate_examples(split, rows) for split, rows in splits.items()}

    def _generate_examples(self, split: str, rows: list) -> Iterator[tuple[str, dict]]:
        return (_strings if self.builder_config.name == "strings" else _single)(split, rows)

    def _split(self, speaker: str, index: int) -> str:
        test_speaker = self.builder_config.name.removeprefix("without_")
        if test_speaker in SPEAKERS:
            if speaker == test_speaker:
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
    by_speaker = {who: [row for row in rows if row[1] == who] for who in SPEAKERS}
    for k in range(STRINGS[split]):
        speaker = SPEAKERS[k % len(SPEAKERS)]
        own = by_speaker[speaker]
        chosen = [own[i] for i in rng.integers(len(own), size=rng.integers(3, 7))]
        parts = []
        for *_, contents in chosen:
            samples, _ = tf.audio.decode_wav(contents)
            parts += [samples[:, 0].numpy(), np.zeros(rng.integers(0, 801), "float32")]
        transcript = " ".join(DIGITS[digit] for digit, *_ in chosen)
        audio = encode_wav(np.concatenate(parts), 8000).numpy()
        yield f"{split}_{k}", {"audio": audio, "transcript": transcript, "speaker": speaker}
