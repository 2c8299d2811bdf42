"""The layouts of a person's own files, each with the same examples, for the tests of all apps."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

SIZES = {"train": 12, "valid": 4, "test": 4}  # examples of each split
RATE = 8000  # of the recordings, in Hz
COLORS = {"rot": (200, 20, 20), "grün": (20, 200, 20), "blau": (20, 20, 200)}
_FOLDERS = {"train": "train", "valid": "dev", "test": "test"}
_COCO = {"train": "train2014", "valid": "val2014"}


def write(path: Path, text: str) -> None:
    """Writes a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def numbers(split: str) -> range:
    """The numbers of the examples of a split. No two splits have one in common."""
    first = 100 * list(SIZES).index(split)
    return range(first, first + SIZES[split])


# Texts with labels.


def text(k: int) -> tuple[str, str]:
    """The text and the label of an example."""
    return (f'Film {k} ist "schön", 5" hoch', "gut") if k % 2 else (f"Film {k}: öde", "schlecht")


def _table(folder: Path, suffix: str, row: Callable[[int], str], header: str = "") -> None:
    for split in SIZES:
        write(folder / f"{split}{suffix}", header + "".join(row(k) for k in numbers(split)))


def text_tsv(folder: Path) -> None:
    _table(folder, ".tsv", lambda k: "\t".join(text(k)) + "\n", "text\tlabel\n")


def text_csv(folder: Path) -> None:
    def row(k: int) -> str:
        return ",".join('"' + cell.replace('"', '""') + '"' for cell in text(k)) + "\r\n"

    _table(folder, ".csv", row, "text,label\r\n")


def text_jsonl(folder: Path) -> None:
    _table(folder, ".jsonl", lambda k: json.dumps({"text": text(k)[0], "label": text(k)[1]}) + "\n")


# Sentences with tags.


def sentence(k: int) -> tuple[list[str], list[str], str]:
    """The words, the tags and the intent of an example."""
    if k % 2:
        return ["Flug", "nach", "New", "York", str(k)], ["O", "O", "B-ort", "I-ort", "O"], "flug"
    return ["Zug", "ab", "Köln", str(k)], ["O", "O", "B-ort", "O"], "zug"


def seq_in(folder: Path) -> None:
    for split in SIZES:
        name = _FOLDERS[split]
        rows = [sentence(k) for k in numbers(split)]
        write(folder / name / "seq.in", "".join(" ".join(words) + "\n" for words, _, _ in rows))
        write(folder / name / "seq.out", "".join(" ".join(tags) + "\n" for _, tags, _ in rows))
        write(folder / name / "label", "".join(f"{intent}\n" for _, _, intent in rows))


def _conll(folder: Path, suffix: str, line: str) -> None:
    def row(k: int) -> str:
        words, tags, _ = sentence(k)
        return "".join(line.format(w, t) for w, t in zip(words, tags, strict=True)) + "\n"

    _table(folder, suffix, row)


def conll(folder: Path) -> None:
    _conll(folder, ".conll", "{} _ {}\n")


def tag_first(folder: Path) -> None:
    _conll(folder, ".txt", "{1}\t{0}\n")


# Images.


def picture(k: int) -> tuple[bytes, str]:
    """A PNG file of one color, and the color."""
    name = list(COLORS)[k % 3]
    pixels = np.full((16, 20, 3), COLORS[name], "uint8")
    pixels[0, 0] = k % 256, k // 256, 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue(), name


def _write_picture(path: Path, k: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(k)[0])


def captions_tsv(folder: Path) -> None:
    for split in SIZES:
        rows = []
        for k in numbers(split):
            _write_picture(folder / "Bilder" / f"Bild {k}.png", k)
            name = picture(k)[1]
            rows += [f"Bilder/Bild {k}.png\t{each}\n" for each in (f"ein {name} bild", name)]
        name = "captions" if split == "train" else split
        write(folder / f"{name}.tsv", "".join(rows))


def coco(folder: Path) -> None:
    for split in _COCO.keys() & SIZES:
        name = _COCO[split]
        images, annotations = [], []
        for k in numbers(split):
            file = f"COCO_{name}_{k:012}.jpg"
            _write_picture(folder / name / file, k)
            images.append({"id": k, "file_name": file})
            color = picture(k)[1]
            for n, caption in enumerate((f"ein {color} bild", color)):
                annotations.append({"id": 10 * k + n, "image_id": k, "caption": caption})
        write(
            folder / "annotations" / f"captions_{name}.json",
            json.dumps({"images": images, "annotations": annotations}),
        )


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
        name = _COCO[split]
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


def librispeech(folder: Path) -> None:
    for split in SIZES:
        book = folder / f"{_FOLDERS[split]}-clean" / "7" / "9"
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


# Stories.


def story(k: int) -> str:
    room = ("Küche", "Garten")[k % 2]
    return (
        f"1 Ann{k} ging in: {room}.\n2 Bob schlief.\n3 Wo ist Ann{k}?\t{room}\t1\n"
        f"4 Bob ging in: Flur.\n5 Wo ist Bob?\tFlur\t4\n"
    )


def stories(folder: Path) -> None:
    _table(folder, ".txt", story)


def tasks(folder: Path) -> None:
    for split in SIZES:
        for task in (1, 2):
            rows = (story(k) for k in numbers(split) if k % 2 == task - 1)
            write(folder / f"qa{task}_wo-ist_{split}.txt", "".join(rows))


# By app the kind of its files, and its layouts with the options of the builder.
KINDS = {
    "image_captioning": "captions",
    "reading_comprehension": "stories",
    "sentiment": "text_classification",
    "slot_filling": "tagging",
    "speech_ctc": "speech",
    "vqa": "visual_questions",
}
LAYOUTS: dict[str, dict[Callable[[Path], None], dict]] = {
    "image_captioning": {captions_tsv: {}, coco: {}},
    "reading_comprehension": {stories: {}, tasks: {}},
    "sentiment": {text_tsv: {}, text_csv: {}, text_jsonl: {}},
    "slot_filling": {seq_in: {}, conll: {}, tag_first: {"tag_first": True}},
    "speech_ctc": {speech_tsv: {}, librispeech: {}, ljspeech: {}},
    "vqa": {questions_tsv: {}, vqa: {}},
}
