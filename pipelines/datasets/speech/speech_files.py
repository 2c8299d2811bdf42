"""A person's own recordings: a folder in one of three layouts."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import soundfile
import tensorflow_datasets as tfds

from unroll.pipelines.audio import encode_wav
from unroll.pipelines.datasets.base import report_left_out, stamp
from unroll.pipelines.datasets.speech.published import Speech
from unroll.pipelines.errors import DataError

SPLITS = {"train": ("train",), "valid": ("valid", "dev"), "test": ("test",)}


@dataclass(frozen=True)
class Recording:
    """A file, what is said in it, who says it, and where that is written."""

    path: Path
    transcript: str
    speaker: str
    where: str


@dataclass
class _Folder(tfds.core.BuilderConfig):
    recordings: dict[str, list[Recording]] = field(default_factory=dict)


class SpeechFiles(Speech, skip_registration=True):
    """Wav or flac files with transcripts, from a folder.

    - `train.tsv`, and perhaps `valid.tsv` (or `dev.tsv`) and `test.tsv`: a line is a path, a tab,
      and the transcript; a path is as seen from the folder.
    - LibriSpeech's: folders `train-...`, `dev-...`, `test-...` of `<speaker>/<chapter>`, each with
      a `<speaker>-<chapter>.trans.txt`.
    - LJSpeech's: `metadata.csv` of `name|transcript|transcript in words`, and `wavs/<name>.wav`;
      all of it is training data.

    Recordings that cannot be read, and those without a transcript, are left out, which the standard
    error tells with their names and number.

    Args:
        folder: where the files are.

    Raises:
        DataError: one line, if the folder has none of the layouts, a line is no path and
            transcript, or a split has no recording left.
    """

    def __init__(self, folder: str | Path, **kwargs):
        recordings = _recordings(Path(folder))
        digest = hashlib.sha256()
        for split, rows in recordings.items():
            for row in rows:
                digest.update(repr((split, row, stamp(row.path))).encode())
        config = _Folder(name=digest.hexdigest()[:16], recordings=recordings)
        super().__init__(config=config, **kwargs)

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(split, rows)
            for split, rows in self.builder_config.recordings.items()
        }

    def _generate_examples(self, split: str, rows: list[Recording]):
        left_out = []
        for k, row in enumerate(rows):
            try:
                audio = read(row)
            except DataError as error:
                left_out.append(str(error))
                continue
            yield k, {"audio": audio, "transcript": row.transcript, "speaker": row.speaker}
        report_left_out(left_out, len(rows), f"recordings of {split}")


def read(row: Recording) -> bytes:
    """The wav file, of 16 bits and one channel, of a recording.

    Raises:
        DataError: if there is no sound in the file, or no transcript.
    """
    if not row.transcript:
        raise DataError(f"{row.where} has no transcript")
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
        raise DataError(f"{folder} has both valid.tsv and dev.tsv: keep one.")
    if tables["train"]:
        found = {split: list(_table(*paths)) for split, paths in tables.items() if paths}
    elif books["train"]:
        found = {
            split: [row for path in paths for row in _book(path)]
            for split, paths in books.items()
            if paths
        }
    elif (folder / "metadata.csv").is_file():
        found = {"train": list(_metadata(folder / "metadata.csv"))}
    else:
        raise DataError(
            f"{folder} has no training data: train.tsv of paths and transcripts, LibriSpeech's "
            "train-*/<speaker>/<chapter>/*.trans.txt, or LJSpeech's metadata.csv."
        )
    for split, rows in found.items():
        if not rows:
            raise DataError(f"{folder} has no recordings ({split}).")
    return found


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
