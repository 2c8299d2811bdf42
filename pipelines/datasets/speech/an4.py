"""AN4, as MFCCs."""

import re
import zipfile
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.datasets.speech.base import Speech
from unroll.pipelines.errors import DataError
from unroll.pipelines.lines import split_lines

ARCHIVE = Source("an4", "an4_mfc.zip", "https://www.speech.cs.cmu.edu/databases/an4/an4_mfc.zip")


class An4(Speech, skip_registration=True):
    """AN4: 948 / 130 utterances of letters, digits and commands, as 13 MFCCs at 100 Hz.

    The MFCCs are those that CMU publishes; there are no waveforms. The training data have 74
    speakers, every tenth of whom is held out for validation. The test split has ten other speakers.
    """

    HOMEPAGE = "https://www.speech.cs.cmu.edu/databases/an4/"
    CITATION = "Acero and Stern 1990"
    LICENSE = "free for any use"
    FEATURES: ClassVar = {
        "features": tfds.features.Tensor(shape=(None, 13), dtype=tf.float32),
        "transcript": tf.string,
        "speaker": tf.string,
    }

    def _split_generators(self, dl_manager):
        path = find(ARCHIVE, dl_manager, self.manual_dir)
        rows = {"train": [], "test": []}
        with zipfile.ZipFile(path) as archive:
            for split, examples in rows.items():
                names = archive.read(f"etc/an4_{split}.fileids").decode().split()
                lines = split_lines(archive.read(f"etc/an4_{split}.transcription").decode())
                for name, line in zip(names, lines, strict=True):
                    text, _, utterance = line.rpartition("(")
                    if utterance.rstrip(")") != name.rpartition("/")[2]:
                        raise DataError(f"{path}: {line!r} is not the transcript of {name}.")
                    text = re.sub(r"</?s>", "", text).strip()
                    mfcc = read_mfcc(archive.read(f"feat/{name}.mfc"), name)
                    speaker = name.split("/")[-2]
                    row = {"features": mfcc, "transcript": text, "speaker": speaker}
                    examples.append((name, row))
        speakers = sorted({row["speaker"] for _, row in rows["train"]})
        held_out = set(speakers[::10])
        rows["valid"] = [each for each in rows["train"] if each[1]["speaker"] in held_out]
        rows["train"] = [each for each in rows["train"] if each[1]["speaker"] not in held_out]
        return {split: self._generate_examples(examples) for split, examples in rows.items()}

    def _generate_examples(self, rows: list) -> Iterator[tuple[str, dict]]:
        yield from rows


def read_mfcc(contents: bytes, name: str) -> np.ndarray:
    """The features of a file in the format of Sphinx, `[T, 13]`.

    The file holds the number of values, big-endian, followed by the values.

    Raises:
        DataError: if the file does not have that many values, or not 13 per frame.
    """
    count = int.from_bytes(contents[:4], "big")
    if len(contents) != 4 + 4 * count or count % 13:
        raise DataError(f"{name} is not a file of 13 MFCCs per frame.")
    return np.frombuffer(contents[4:], ">f4").reshape(-1, 13).astype("float32")
