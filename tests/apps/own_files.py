"""The layouts of a person's own files, each with the same examples, for the tests of all apps."""

import csv
import datetime
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet

from tests.apps.own_media import (
    captions_tsv,
    clips,
    coco_2014,
    coco_2017,
    common_voice,
    librispeech,
    ljspeech,
    questions_tsv,
    speech_columns,
    speech_tsv,
    vqa,
)
from tests.apps.own_writing import FOLDERS, SIZES, numbers, write


@dataclass(frozen=True)
class Layout:
    """What a folder of your own files has, and how an app is used with it.

    Attributes:
        write: writes the files into a folder.
        inputs: arguments of `predict`, with paths relative to the folder.
        splits: those that the files have. If "train" is alone, it has the examples of all splits.
        options: of the builder.
        arguments: of the command line.
        answers: the number of results of `predict`.
        path: of what `--data` names, relative to the folder.
    """

    write: Callable[[Path], None]
    inputs: tuple[str, ...]
    splits: tuple[str, ...] = ("train", "valid", "test")
    options: dict = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    answers: int = 1
    path: str = "."


# Texts with labels.


def text(k: int) -> tuple[str, str]:
    """The text and the label of an example."""
    return (f'Film {k} ist "schön", 5" hoch', "gut") if k % 2 else (f"Film {k}: öde", "schlecht")


def _table(folder: Path, suffix: str, row: Callable[[int], str], header: str = "") -> None:
    for split in SIZES:
        write(folder / f"{split}{suffix}", header + "".join(row(k) for k in numbers(split)))


def text_tsv(folder: Path) -> None:
    _table(folder, ".tsv", lambda k: "\t".join(text(k)) + "\n", "text\tlabel\n")


def text_jsonl(folder: Path) -> None:
    _table(folder, ".jsonl", lambda k: json.dumps({"text": text(k)[0], "label": text(k)[1]}) + "\n")


def _spreadsheet(
    delimiter: str,
    suffix: str,
    encoding: str = "utf-8",
    before: str = "",
    row: Callable[[int], tuple[str, str]] = text,
    columns: tuple[str, str] = ("text", "label"),
):
    """A layout as spreadsheets write it, with a column that is not read."""

    def layout(folder: Path) -> None:
        for split in SIZES:
            file = io.StringIO()
            rows = csv.writer(file, delimiter=delimiter)
            rows.writerow(["number", *columns])
            rows.writerows((k, *row(k)) for k in numbers(split))
            write(folder / f"{split}{suffix}", before + file.getvalue(), encoding)

    return layout


# Sentences with tags.


def sentence(k: int) -> tuple[list[str], list[str], str]:
    """The words, the tags and the intent of an example."""
    if k % 2:
        words = ["Flug", "nach", "Rio", "de", "Janeiro", str(k)]
        return words, ["O", "O", "B-ort", "I-ort", "I-ort", "O"], "flug"
    return ["Zug", "ab", "Köln", str(k)], ["O", "O", "B-ort", "O"], "zug"


def _seq_in(folder: Path, intents: bool) -> None:
    for split in SIZES:
        # Both names of the split for validation.
        name = FOLDERS[split] if intents else split
        rows = [sentence(k) for k in numbers(split)]
        write(folder / name / "seq.in", "".join(" ".join(words) + "\n" for words, _, _ in rows))
        write(folder / name / "seq.out", "".join(" ".join(tags) + "\n" for _, tags, _ in rows))
        if intents:
            write(folder / name / "label", "".join(f"{intent}\n" for _, _, intent in rows))


def seq_in(folder: Path) -> None:
    _seq_in(folder, intents=True)


def seq_in_without_intents(folder: Path) -> None:
    _seq_in(folder, intents=False)


def in_scheme(tags: list[str], scheme: str) -> list[str]:
    """BIO tags in another scheme."""
    # The prefixes of the first, inner and last token of a span, and of a span of one token.
    prefixes = {"BIO": "BIIB", "IOB1": "IIII", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES"}
    first, inner, last, single = prefixes[scheme]
    found = []
    for tag, after in zip(tags, [*tags[1:], "O"], strict=True):
        begins, ends = tag[0] == "B", after[0] != "I"
        prefix = (single if ends else first) if begins else (last if ends else inner)
        found.append("O" if tag == "O" else prefix + tag[1:])
    return found


def _columns(suffix: str, line: str, scheme: str = "BIO", before: str = "", first: str = ""):
    """A layout of a word and its tag per line.

    Args:
        suffix: of the files.
        line: the format of a line, from the word, the tag and the number of the word.
        scheme: of the tags.
        before: lines before each sentence.
        first: lines at the beginning of a file.
    """

    def row(k: int) -> str:
        words, tags, _ = sentence(k)
        pairs = enumerate(zip(words, in_scheme(tags, scheme), strict=True), start=1)
        return before + "".join(line.format(*pair, n) for n, pair in pairs) + "\n"

    return lambda folder: _table(folder, suffix, row, first)


def terms(k: int) -> tuple[str, str]:
    """The text of a sentence, and its span."""
    words, tags, _ = sentence(k)
    span = [word for word, tag in zip(words, tags, strict=True) if tag != "O"]
    return " ".join(words), " ".join(span)


# Stories.


def story(k: int, supporting: bool = True) -> str:
    room = ("Küche", "Garten")[k % 2]
    first, second = ("\t1", "\t4") if supporting else ("", "")
    return (
        f"1 Ann{k} ging in: {room}.\n2 Bob schlief.\n3 Wo ist Ann{k}?\t{room}{first}\n"
        f"4 Bob ging in: Flur.\n5 Wo ist Bob?\tFlur{second}\n"
    )


def stories(folder: Path) -> None:
    _table(folder, ".txt", story)


def stories_without_supporting_facts(folder: Path) -> None:
    _table(folder, ".txt", lambda k: story(k, supporting=False))


def tasks(folder: Path) -> None:
    for split in SIZES:
        for task in (1, 2):
            rows = (story(k) for k in numbers(split) if k % 2 == task - 1)
            write(folder / f"qa{task}_wo-ist_{split}.txt", "".join(rows))


# Plain text.


def _lines(k: int) -> str:
    return "".join(f"Zeile {k}, {n}: öde und leer, wüst und schön.\n" for n in range(8))


def text_folder(folder: Path) -> None:
    _table(folder, ".txt", _lines)


def text_file(folder: Path) -> None:
    text = "".join(_lines(k) for split in SIZES for k in numbers(split))
    write(folder / "Mein Buch.txt", text)


def text_files(folder: Path) -> None:
    for chapter, split in enumerate(SIZES):
        text = "".join(map(_lines, numbers(split)))
        write(folder / "Bücher" / f"Kapitel {chapter}.txt", text)


# Series.


def _step(k: int) -> int:
    """The number of days before an example: the splits follow each other."""
    sizes = list(SIZES.values())
    return k % 100 + sum(sizes[: k // 100])


def reading(k: int) -> float:
    return _step(k) + 0.5


def _day(steps: int) -> datetime.date:
    return datetime.date(2024, 2, 26) + datetime.timedelta(steps)


def _row(k: int) -> str:
    return f"{_day(_step(k))},{reading(k)}\n"


def series_folder(folder: Path) -> None:
    _table(folder, ".csv", _row, "Tag,Wert\n")


def series_file(folder: Path) -> None:
    rows = "".join(_row(k) for split in SIZES for k in numbers(split))
    write(folder / "Mein Verlauf.csv", f"Tag,Wert\n{rows}")


def series_decimal_commas(folder: Path) -> None:
    for split in SIZES:
        rows = (_row(k).replace(",", ";").replace(".", ",") for k in numbers(split))
        write(folder / f"{FOLDERS[split]}.csv", "\ufeffTag;Wert\n" + "".join(rows))


def several_series(folder: Path) -> None:
    """Rows of two series in turn, with a covariate, and a column that is not read."""

    def row(k: int) -> str:
        return f"Ort {k % 2}\t{_day(_step(k) // 2)}\t{reading(k)}\t{k % 3}\tRot\n"

    header = "Filiale\tTag\tWert\tAktion\tFarbe\n"
    _table(folder, ".tsv", row, header)
    # To predict: the covariate of the next day is known.
    past = "".join(map(row, numbers("test")))
    ahead = "".join(f"Ort {k}\t{_day(10)}\t\t1\tRot\n" for k in (0, 1))
    write(folder / "Verlauf.tsv", header + past + ahead)


def series_parquet(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split in SIZES:
        days = [_day(_step(k)) for k in numbers(split)]
        table = pyarrow.table({"Tag": days, "Wert": [reading(k) for k in numbers(split)]})
        pyarrow.parquet.write_table(table, folder / f"{split}.parquet")


# Pairs of sentences.


def sentences(k: int) -> tuple[str, str]:
    """The source and the target of an example."""
    return (f'Hund {k} ist "schön".', f'Dog {k} is "fine".') if k % 2 else (f"Ja {k}", f"Yes {k}")


def two_languages(folder: Path) -> None:
    for column, suffix in enumerate((".de", ".en")):
        _table(folder, suffix, lambda k, column=column: sentences(k)[column] + "\n")


def turns(folder: Path) -> None:
    """Dialogs of two turns."""
    _table(folder, ".txt", lambda k: "\n".join(sentences(k)) + "\n\n")


# By app the kind of its files.
KINDS = {
    "forecasting": "series",
    "image_captioning": "captions",
    "key_terms": "key_terms",
    "language_model": "plain_text",
    "reading_comprehension": "stories",
    "sentiment": "text_classification",
    "slot_filling": "tagging",
    "speech_ctc": "speech",
    "translation": "translation",
    "vqa": "visual_questions",
    "word_vectors": "plain_text",
}
_TWO = ("train", "valid")
_FIRST = ("Bilder/Bild 0.png",)
_COCO_FIRST = ("train2014/COCO_train2014_000000000000.jpg",)
_FILM, _TRIP, _PROMPT = ("Ein schöner Film",), ("Flug nach Rio de Janeiro",), ("Zeile 1",)
_QUESTION, _TERMS = "welche farbe?", ("text", "terms")
_PAIR, _DOG = ("source", "target"), ("Hund 1 ist schön.",)


def _texts(inputs: tuple[str, ...]) -> dict[str, Layout]:
    return {
        "a file": Layout(text_file, inputs, ("train",), path="Mein Buch.txt"),
        "a folder": Layout(text_files, inputs, ("train",)),
        "train.txt": Layout(text_folder, inputs),
    }


# By app every documented layout. `test_own_files.py` compares them with the READMEs.
LAYOUTS: dict[str, dict[str, Layout]] = {
    "forecasting": {
        "train.csv": Layout(series_folder, ("test.csv",)),
        "a file": Layout(series_file, ("Mein Verlauf.csv",), ("train",), path="Mein Verlauf.csv"),
        "decimal commas": Layout(series_decimal_commas, ("test.csv",)),
        "several series": Layout(
            several_series,
            ("Verlauf.tsv",),
            options={"series": "Filiale", "known": "Aktion"},
            arguments=("--series=Filiale", "--known=Aktion"),
        ),
        "Parquet": Layout(series_parquet, ("test.parquet",)),
    },
    "image_captioning": {
        "captions.tsv": Layout(captions_tsv, _FIRST),
        "COCO 2014": Layout(coco_2014, _COCO_FIRST, _TWO),
        "COCO 2017": Layout(coco_2017, ("val2017/000000000100.jpg",), _TWO),
        "clips": Layout(clips, ("Bilder/Bild 0.gif",), arguments=("--frames=2",)),
    },
    "key_terms": {
        "train.tsv": Layout(_spreadsheet("\t", ".tsv", row=terms, columns=_TERMS), _TRIP),
        "train.csv": Layout(_spreadsheet(";", ".csv", row=terms, columns=_TERMS), _TRIP),
        "columns": Layout(_columns(".conll", "{} {}\n"), _TRIP),
        "columns, BILOU": Layout(_columns(".txt", "{}\t{}\n", "BILOU"), _TRIP),
        "CoNLL-U": Layout(_columns(".conllu", "{2}\t{0}\t{1}\n"), _TRIP),
    },
    "language_model": _texts(_PROMPT),
    "reading_comprehension": {
        "train.txt": Layout(stories, ("test.txt",), answers=8),
        "tasks": Layout(tasks, ("qa1_wo-ist_test.txt",), answers=4),
        "without supporting facts": Layout(
            stories_without_supporting_facts, ("test.txt",), answers=8
        ),
    },
    "sentiment": {
        "train.tsv": Layout(text_tsv, _FILM),
        "train.tsv, Unicode Text of Excel": Layout(_spreadsheet("\t", ".tsv", "utf-16"), _FILM),
        "train.csv": Layout(_spreadsheet(",", ".csv", "utf-8-sig"), _FILM),
        "train.csv, semicolons": Layout(_spreadsheet(";", ".csv"), _FILM),
        "train.csv, tabs": Layout(_spreadsheet("\t", ".csv"), _FILM),
        "train.csv, sep=;": Layout(_spreadsheet(";", ".csv", before="sep=;\r\n"), _FILM),
        "train.jsonl": Layout(text_jsonl, _FILM),
    },
    "slot_filling": {
        "seq.in": Layout(seq_in, _TRIP),
        "seq.in without intents": Layout(seq_in_without_intents, _TRIP),
        "columns, BIO": Layout(_columns(".conll", "{} _ {}\n", first="-DOCSTART- _ O\n\n"), _TRIP),
        "columns, IOB1": Layout(_columns(".txt", "{}\t{}\n", "IOB1", "# ein Kommentar\n"), _TRIP),
        "columns, IOBES, the tag first": Layout(
            _columns(".txt", "{1}\t{0}\n", "IOBES"),
            _TRIP,
            options={"tag_first": True},
            arguments=("--tag-first",),
        ),
        "columns, BILOU": Layout(_columns(".conll", "{} {}\n", "BILOU"), _TRIP),
        "CoNLL-U, BMES": Layout(
            _columns(
                ".conllu",
                "{2}\t{0}\t_\t{1}\n",
                "BMES",
                "# sent_id = 1\n1-2\tFlugab\t_\tO\n0.1\tnichts\t_\tO\n",
            ),
            _TRIP,
        ),
    },
    "speech_ctc": {
        "train.tsv": Layout(speech_tsv, ("Töne/Ton 0.wav",)),
        "columns": Layout(speech_columns, ("Töne/Ton 0.ogg",)),
        "Common Voice": Layout(common_voice, ("clips/common_voice_0.mp3",)),
        "LibriSpeech": Layout(librispeech, ("test-clean/7/9/7-9-0200.flac",)),
        "LJSpeech": Layout(ljspeech, ("wavs/LJ000.wav",), ("train",)),
    },
    "translation": {
        "train.tsv": Layout(_spreadsheet("\t", ".tsv", row=sentences, columns=_PAIR), _DOG),
        "train.csv": Layout(_spreadsheet(";", ".csv", row=sentences, columns=_PAIR), _DOG),
        "two languages": Layout(
            two_languages,
            _DOG,
            options={"source": "de", "target": "en"},
            arguments=("--source=de", "--target=en"),
        ),
        "dialogs": Layout(turns, _DOG),
    },
    "vqa": {
        "train.tsv": Layout(questions_tsv, (*_FIRST, _QUESTION)),
        "dialogs": Layout(questions_tsv, (*_FIRST, _QUESTION), arguments=("--history",)),
        "VQA v2": Layout(vqa, (*_COCO_FIRST, _QUESTION), _TWO),
    },
    "word_vectors": _texts(("wüst",)),
}
