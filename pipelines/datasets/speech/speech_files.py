"""Your own recordings: a folder in one of three layouts."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import soundfile
import tensorflow_datasets as tfds

from unroll.pipelines.audio import encode_wav
from unroll.pipelines.datasets.base import file_version, report_skipped
from unroll.pipelines.datasets.speech.base import Speech
from unroll.pipelines.errors import DataError

SPLITS = {"train": ("train",), "valid": ("valid", "dev"), "test": ("test",)}


@dataclass(frozen=True)
class Recording:
    """A file with its transcript and speaker. `source` is the transcript's line, for errors."""

    path: Path
    transcript: str
    speaker: str
    source: str


@dataclass
class _Folder(tfds.core.BuilderConfig):
    recordings: dict[str, list[Recording]] = field(default_factory=dict, repr=False)


class SpeechFiles(Speech, skip_registration=True):
    """Wav or flac files with transcripts, from a folder.

    - `train.tsv` and, optionally, `valid.tsv` (or `dev.tsv`) and `test.tsv`: a line is a path
      relative to the folder, a tab, and the transcript.
    - The layout of LibriSpeech: folders `train-...`, `dev-...`, `test-...` with folders
      `<speaker>/<chapter>`, each with a `<speaker>-<chapter>.trans.txt`.
    - The layout of LJSpeech: `metadata.csv` of `name|transcript|normalized transcript`, and
      `wavs/<name>.wav`; all recordings are training data.

    Recordings that cannot be read or have no transcript are skipped. A message on standard error
    names them.

    Args:
        folder: the folder of the files.

    Raises:
        DataError: one line, if the folder has none of the layouts, a line is not a path and a
            transcript, or a split has no recording left.
    """

    SPLITS = ()

    def __init__(self, folder: str | Path, **kwargs):
        recordings = _recordings(Path(folder))
        digest = hashlib.sha256()
        for split, rows in recordings.items():
            for row in rows:
                digest.update(repr((split, row, file_version(row.path))).encode())
        config = _Folder(name=digest.hexdigest()[:16], recordings=recordings)
        super().__init__(config=config, **kwargs)

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(split, rows)
            for split, rows in self.builder_config.recordings.items()
        }

    def _generate_examples(self, split: str, rows: list[Recording]):
        skipped = []
        for k, row in enumerate(rows):
            try:
                audio = read(row)
            except DataError as error:
                skipped.append(str(error))
                continue
            yield k, {"audio": audio, "transcript": row.transcript, "speaker": row.speaker}
        report_skipped(skipped, len(rows), f"recordings of {split}")


def read(row: Recording) -> bytes:
    """A recording as a wav file of 16 bits and one channel.

    Raises:
        DataError: if the file has no samples or cannot be read, or if there is no transcript.
    """
    if not row.transcript:
        raise DataError(f"{row.source} has no transcript")
    try:
        samples, rate = soundfile.read(row.path, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise DataError(f"{row.path} cannot be read ({str(error).rstrip('.')})") from None
    if not len(samples):
        raise DataError(f"{row.path} has no samples")
    return encode_wav(samples.mean(axis=1), rate).numpy()


def _recordings(folder: Path) -> dict[str, list[Recording]]:
    tables = {
        split: [folder / f"{name}.tsv" for name in names if (folder / f"{name}.tsv").is_file()]
        for split, names in SPLITS.items()
    }
    books = {
        split: sorted(p for name in names for p in folder.glob(f"{name}*/*/*/*.trans.txt"))
        for split, names in SPLITS.items()
    }
    if len(tables["valid"]) > 1:
        raise DataError(f"{folder} has both valid.tsv and dev.tsv: remove one.")
    if tables["train"]:
        recordings = {split: list(_table(*paths)) for split, paths in tables.items() if paths}
    elif books["train"]:
        recordings = {
            split: [row for path in paths for row in _book(path)]
            for split, paths in books.items()
            if paths
        }
    elif (folder / "metadata.csv").is_file():
        recordings = {"train": list(_metadata(folder / "metadata.csv"))}
    else:
        raise DataError(
            f"{folder} has no training data: train.tsv of paths and transcripts, LibriSpeech's "
            "train-*/<speaker>/<chapter>/*.trans.txt, or LJSpeech's metadata.csv."
        )
    for split, rows in recordings.items():
        if not rows:
            raise DataError(f"{folder} has no recordings ({split}).")
    return recordings


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}.") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line


def _table(path: Path) -> Iterator[Recording]:
    for number, line in _lines(path):
        name, tab, transcript = line.partition("\t")
        if not tab:
            raise DataError(f"{path}, line {number}: expected a path, a tab and a transcript.")
        transcript = " ".join(transcript.split())
        yield Recording(path.parent / name, transcript, "", f"{path}, line {number},")


def _book(path: Path) -> Iterator[Recording]:
    for number, line in _lines(path):
        name, _, transcript = line.strip().partition(" ")
        sound = path.parent / f"{name}.flac"
        if not sound.is_file() and sound.with_suffix(".wav").is_file():
            sound = sound.with_suffix(".wav")
        yield Recording(sound, transcript.strip(), name.split("-")[0], f"{path}, line {number},")


def _metadata(path: Path) -> Iterator[Recording]:
    for number, line in _lines(path):
        name, bar, rest = line.partition("|")
        if not bar:
            raise DataError(f"{path}, line {number}: expected a name, a bar and a transcript.")
        transcript = " ".join(rest.split("|")[-1].split())
        sound = path.parent / "wavs" / f"{name}.wav"
        yield Recording(sound, transcript, "", f"{path}, line {number},")
