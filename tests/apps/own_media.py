"""The layouts of a person's own images and recordings."""

import io
import json
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from tests.apps.own_writing import FOLDERS, SIZES, numbers, write

RATE = 8000  # of the recordings, in Hz
COLORS = {"rot": (200, 20, 20), "grün": (20, 200, 20), "blau": (20, 20, 200)}
_COCO = {"train": "train", "valid": "val"}


# Images.


def picture(k: int, frames: int = 1) -> tuple[bytes, str]:
    """A PNG file of one color, or a GIF file with several frames, and the color."""
    name = list(COLORS)[k % 3]
    pixels = np.full((frames, 16, 20, 3), COLORS[name], "uint8")
    pixels[:, 0, 0] = k % 256, k // 256, 0
    first, *others = map(Image.fromarray, pixels)
    for n, frame in enumerate(others):
        frame.putpixel((n, 8), (255, 255, 255))
    file = io.BytesIO()
    if frames == 1:
        first.save(file, "png")
    else:
        first.save(file, "gif", save_all=True, append_images=others)
    return file.getvalue(), name


def _write_picture(path: Path, k: int, frames: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(k, frames)[0])


def _captions(folder: Path, suffix: str, frames: int = 1) -> None:
    for split in SIZES:
        rows = []
        for k in numbers(split):
            _write_picture(folder / "Bilder" / f"Bild {k}.{suffix}", k, frames)
            name = picture(k)[1]
            captions = (f"ein {name} bild", name)
            rows += [f"Bilder/Bild {k}.{suffix}\t{each}\n" for each in captions]
        name = "captions" if split == "train" else split
        write(folder / f"{name}.tsv", "".join(rows))


def captions_tsv(folder: Path) -> None:
    _captions(folder, "png")


def clips(folder: Path) -> None:
    _captions(folder, "gif", frames=3)


def _coco(folder: Path, year: str, prefix: str) -> None:
    for split in _COCO.keys() & SIZES:
        name = _COCO[split] + year
        images, annotations = [], []
        for k in numbers(split):
            file = f"{prefix.format(name)}{k:012}.jpg"
            _write_picture(folder / name / file, k)
            images.append({"id": k, "file_name": file})
            color = picture(k)[1]
            for n, caption in enumerate((f"ein {color} bild", color)):
                annotations.append({"id": 10 * k + n, "image_id": k, "caption": caption})
        write(
            folder / "annotations" / f"captions_{name}.json",
            json.dumps({"images": images, "annotations": annotations}),
        )


def coco_2014(folder: Path) -> None:
    _coco(folder, "2014", "COCO_{}_")


def coco_2017(folder: Path) -> None:
    _coco(folder, "2017", "")


def questions_tsv(folder: Path) -> None:
    for split in SIZES:
        rows = []
        for k in numbers(split):
            _write_picture(folder / "Bilder" / f"Bild {k}.png", k)
            rows.append(f"Bilder/Bild {k}.png\twelche farbe?\t{picture(k)[1]}\n")
            rows.append(f"Bilder/Bild {k}.png\tist es rot?\t{'ja' if k % 3 == 0 else 'nein'}\n")
        write(folder / f"{split}.tsv", "".join(rows))


def vqa(folder: Path) -> None:
    for split in _COCO.keys() & SIZES:
        name = _COCO[split] + "2014"
        questions, annotations = [], []
        for k in numbers(split):
            _write_picture(folder / name / f"COCO_{name}_{k:012}.jpg", k)
            answers = picture(k)[1], "ja" if k % 3 == 0 else "nein"
            for n, pair in enumerate(zip(("welche farbe?", "ist es rot?"), answers, strict=True)):
                about = {"question_id": 10 * k + n, "image_id": k}
                questions.append({**about, "question": pair[0]})
                annotations.append({**about, "answers": [{"answer": pair[1]}] * 10})
        write(
            folder / f"v2_OpenEnded_mscoco_{name}_questions.json",
            json.dumps({"questions": questions}),
        )
        write(
            folder / f"v2_mscoco_{name}_annotations.json", json.dumps({"annotations": annotations})
        )


# Recordings.


def transcript(k: int) -> str:
    return ("eins zwei", "zwei fünf")[k % 2]


def _write_recording(path: Path, k: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = np.sin(np.arange(RATE // 4) * (0.1 + 0.2 * (k % 2)) + k)
    soundfile.write(path, 0.5 * tone, RATE)


def speech_tsv(folder: Path) -> None:
    for split in SIZES:
        for k in numbers(split):
            _write_recording(folder / "Töne" / f"Ton {k}.wav", k)
        rows = (f"Töne/Ton {k}.wav\t{transcript(k)}\n" for k in numbers(split))
        write(folder / f"{split}.tsv", "".join(rows))


def _speech_columns(folder: Path, header: str, row: str, at: str, names: dict) -> None:
    for split in SIZES:
        rows = []
        for k in numbers(split):
            _write_recording(folder / at.format(k), k)
            rows.append(row.format(k, transcript(k)))
        write(folder / f"{names[split]}.tsv", header + "".join(rows))


def speech_columns(folder: Path) -> None:
    """Named columns, backslashes, names without their suffix."""
    names = {split: split for split in SIZES}
    header = "Speaker\tAudio\tTranscription\n"
    _speech_columns(folder, header, "Ann\tTöne\\Ton {}\t{}\n", "Töne/Ton {}.ogg", names)


def common_voice(folder: Path) -> None:
    header = "client_id\tpath\tsentence\tup_votes\n"
    row = "a{0}\tcommon_voice_{0}.mp3\t{1}\t2\n"
    _speech_columns(folder, header, row, "clips/common_voice_{}.mp3", FOLDERS)


def librispeech(folder: Path) -> None:
    for split in SIZES:
        book = folder / f"{FOLDERS[split]}-clean" / "7" / "9"
        for k in numbers(split):
            _write_recording(book / f"7-9-{k:04}.flac", k)
        rows = (f"7-9-{k:04} {transcript(k)}\n" for k in numbers(split))
        write(book / "7-9.trans.txt", "".join(rows))


def ljspeech(folder: Path) -> None:
    every = [k for split in SIZES for k in numbers(split)]
    for k in every:
        _write_recording(folder / "wavs" / f"LJ{k:03}.wav", k)
    rows = (f"LJ{k:03}|Roh {k}|{transcript(k)}\n" for k in every)
    write(folder / "metadata.csv", "".join(rows))
