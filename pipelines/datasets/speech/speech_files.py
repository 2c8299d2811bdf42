"""Your own recordings: a folder in one of four layouts."""

import hashlib
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines import sound
from unroll.pipelines.datasets.base import file_version, hold_out, report_skipped
from unroll.pipelines.datasets.speech.base import Speech
from unroll.pipelines.errors import DataError, report_once
from unroll.pipelines.lines import read_rows, read_text, split_lines, split_words

SPLITS = {"train": ("train",), "valid": ("valid", "dev"), "test": ("test",)}
# The names of the columns of a table with a header, in lower case.
PATHS = ("path", "file", "file_name", "filename", "audio", "audio_path", "wav", "wav_filename")
TRANSCRIPTS = ("sentence", "transcript", "transcription", "text")
SPEAKERS = ("client_id", "speaker", "speaker_id")
# What a name of a recording may lack.
SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")


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
    """Sound files with transcripts, from a folder.

    - `train.tsv` and, optionally, `valid.tsv` (or `dev.tsv`) and `test.tsv`: a line is a path
      relative to the folder, a tab, and the transcript. Or the first line names the columns.
    - The layout of Common Voice: such tables with the columns `path`, `sentence` and `client_id`,
      and the recordings in the folder `clips`.
    - The layout of LibriSpeech: folders `train-...`, `dev-...`, `test-...` with folders
      `<speaker>/<chapter>`, each with a `<speaker>-<chapter>.trans.txt`.
    - The layout of LJSpeech: `metadata.csv` of `name|transcript|normalized transcript`, and
      `wavs/<name>.wav`; all recordings are training data.

    Without validation data, about a tenth of the recordings are held out: whole speakers where
    several are known, otherwise whole files.

    An example has the path of its recording, its number of samples and its rate. Recordings that
    cannot be read or have no transcript are skipped. A message on standard error names them.

    Args:
        folder: the folder of the files.

    Raises:
        DataError: one line, if the folder has none of the layouts, a line is not a path and a
            transcript, or a split has no recording left.
    """

    FEATURES: ClassVar = {
        "path": tf.string,
        "transcript": tf.string,
        "speaker": tf.string,
        "samples": tf.int64,
        "rate": tf.int32,
    }

    SPLITS = ()

    def __init__(self, folder: str | Path, **kwargs):
        recordings = read_folder(Path(folder))
        _report_repeated(recordings, folder)
        if "valid" not in recordings:
            rows = recordings["train"]
            speakers = [row.speaker for row in rows]
            # A single speaker has no other who could be held out.
            by_speaker = all(speakers) and len(set(speakers)) > 1
            out = hold_out(
                speakers if by_speaker else [str(row.path) for row in rows],
                folder,
                examples="recordings",
                group="speaker" if by_speaker else "file",
                add="valid.tsv",
                labels=[set(row.transcript) for row in rows],
            )
            for split, held in (("train", False), ("valid", True)):
                recordings[split] = [
                    r for r, is_out in zip(rows, out, strict=True) if is_out == held
                ]
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
        # Threads: libsndfile decodes without Python's lock.
        with ThreadPoolExecutor() as pool:
            for k, (row, found) in enumerate(zip(rows, pool.map(_measure, rows), strict=True)):
                if isinstance(found, str):
                    skipped.append(found)
                    continue
                samples, rate = found
                yield (
                    k,
                    {
                        "path": os.fsencode(row.path.absolute()),
                        "transcript": row.transcript,
                        "speaker": row.speaker,
                        "samples": samples,
                        "rate": rate,
                    },
                )
        report_skipped(skipped, len(rows), f"recordings of {split}")


def _measure(row: Recording) -> tuple[int, int] | str:
    """The number of samples and the rate of a recording, or why it cannot be used."""
    if not row.transcript:
        return f"{row.source} has no transcript"
    try:
        samples, rate = sound.decode(sound.read_bytes(row.path), str(row.path))
    except DataError as error:
        return str(error).rstrip(".")
    return len(samples), rate


def read_folder(folder: Path) -> dict[str, list[Recording]]:
    """The recordings of each split of a folder, in one of the layouts of `SpeechFiles`.

    Raises:
        DataError: as `SpeechFiles`. The recordings themselves are not read.
    """
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
            named = tables[split][0] if tables["train"] else folder
            raise DataError(f"{named} has no recordings ({split}).")
    return recordings


def _report_repeated(recordings: dict[str, list[Recording]], folder: str | Path) -> None:
    """Says how many recordings are in two splits."""
    files = {split: {row.path for row in rows} for split, rows in recordings.items()}
    for one, other in itertools.combinations(files, 2):
        if both := files[one] & files[other]:
            report_once(
                f"{folder}: {len(both)} of {len(files[other])} recordings of {other} are also in "
                f"{one}, such as {min(both)}."
            )


def _find(folders: list[Path], name: str) -> Path:
    """The file with a name, which may have backslashes or no suffix. Otherwise where it belongs."""
    names = dict.fromkeys([name, name.replace("\\", "/")])
    for suffix in ("", *SUFFIXES):
        for folder in folders:
            for each in names:
                path = folder / f"{each}{suffix}"
                try:
                    if path.is_file():
                        return path
                except (OSError, ValueError):  # a name that is too long, or has a zero byte
                    return path
    return folders[0] / name


def _table(path: Path) -> Iterator[Recording]:
    folders = [path.parent, path.parent / "clips"]
    columns = {"path": 0, "transcript": 1}
    width = 2
    for k, (number, row) in enumerate(read_rows(path, "\t")):
        fields = [" ".join(split_words(each)) for each in row]
        source = f"{path}, line {number}"
        if k == 0 and (header := _header(fields)):
            columns, width = header, len(fields)
            continue
        if len(fields) != width:
            expected = (
                f"the {width} columns of the first line"
                if width > 2 or "speaker" in columns
                else "a path, a tab and a transcript; other columns need a first line that names "
                "them, such as path and sentence"
            )
            raise DataError(f"{source}: {len(fields)} columns, expected {expected}.")
        name = row[columns["path"]].strip()
        if not name:
            raise DataError(f"{source}: there is no path.")
        speaker = fields[columns["speaker"]] if "speaker" in columns else ""
        yield Recording(_find(folders, name), fields[columns["transcript"]], speaker, f"{source},")


def _header(fields: list[str]) -> dict[str, int] | None:
    """The columns of a table, if its first line names those of paths and transcripts."""
    names = [each.lower() for each in fields]
    known = {"path": PATHS, "transcript": TRANSCRIPTS, "speaker": SPEAKERS}
    columns = {
        column: names.index(found[0])
        for column, allowed in known.items()
        if (found := [name for name in allowed if name in names])
    }
    return columns if {"path", "transcript"} <= columns.keys() else None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(split_lines(read_text(path)), start=1):
        if split_words(line):
            yield number, line


def _book(path: Path) -> Iterator[Recording]:
    for number, line in _lines(path):
        name, *words = split_words(line)
        own = path.parent / f"{name}.flac"
        own = own if own.is_file() else _find([path.parent], name)
        speaker = path.parent.parent.name
        yield Recording(own, " ".join(words), speaker, f"{path}, line {number},")


def _metadata(path: Path) -> Iterator[Recording]:
    folders = [path.parent / "wavs", path.parent]
    for number, line in _lines(path):
        name, *texts = (part.strip() for part in line.split("|"))
        if not texts or not name:
            raise DataError(f"{path}, line {number}: expected a name, a bar and a transcript.")
        transcript = " ".join(split_words(texts[-1]))
        yield Recording(_find(folders, name), transcript, "", f"{path}, line {number},")
