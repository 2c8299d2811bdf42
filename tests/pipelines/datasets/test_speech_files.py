"""Your own recordings: layouts, columns, names of files, what is left out and held out."""

import os
import re

import numpy as np
import pytest
import soundfile

from tests.pipelines.datasets.helpers import read_all
from tests.pipelines.mutations import outcomes
from unroll.pipelines import datasets
from unroll.pipelines.datasets.speech.speech_files import SpeechFiles, read_folder
from unroll.pipelines.errors import DataError, report_once
from unroll.pipelines.lines import read_text, split_lines, split_words

TONE = 0.5 * np.sin(np.arange(800) / 4)
SOUNDS = ("one.wav", "two.flac", "three.mp3")


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "my f\N{LATIN SMALL LETTER U WITH DIAERESIS}lder"
    path.mkdir()
    return path


def write(folder, splits, sounds=SOUNDS):
    for name in sounds:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, TONE, 8000)
    for name, text in splits.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def examples(folder, tmp_path) -> dict[str, list[tuple]]:
    """The path in the folder, the transcript and the speaker of each example."""
    return {
        split: [
            (os.path.relpath(os.fsdecode(row["path"]), folder), row["transcript"], row["speaker"])
            for row in rows
        ]
        for split, rows in read_all(SpeechFiles, tmp_path, folder=folder).items()
    }


def recordings(folder) -> dict[str, list[tuple]]:
    """The same, of recordings that may not exist."""
    return {
        split: [(os.path.relpath(r.path, folder), r.transcript, r.speaker) for r in rows]
        for split, rows in read_folder(folder).items()
    }


VALID = {"valid.tsv": "one.wav\tone\n"}


def test_tables(mine, tmp_path):
    write(
        mine,
        {
            "train.tsv": "one.wav\tone\ntwo.flac\ttwo  words\n",
            "dev.tsv": "three.mp3\tthree\n",
            "test.tsv": "two.flac\ttwo\n",
        },
    )
    assert examples(mine, tmp_path) == {
        "train": [("one.wav", "one", ""), ("two.flac", "two words", "")],
        "valid": [("three.mp3", "three", "")],
        "test": [("two.flac", "two", "")],
    }
    prepared = list(datasets.load(str(mine), "train", kind="speech", data_dir=tmp_path / "tfds"))
    assert [(int(row["samples"]), int(row["rate"])) for row in prepared] == 2 * [(800, 8000)]


def test_columns_of_common_voice(mine, tmp_path):
    write(
        mine,
        {
            "train.tsv": "client_id\tpath\tsentence\tup_votes\na\tone.wav\tA one.\t2\n"
            "b\tthree\tThree \u201cthree\u201d\t0\n",
            "dev.tsv": "sentence\tpath\ntwo\ttwo.flac\n",
        },
        ("clips/one.wav", "clips/three.mp3", "two.flac"),
    )
    assert examples(mine, tmp_path) == {
        "train": [
            ("clips/one.wav", "A one.", "a"),
            ("clips/three.mp3", "Three \u201cthree\u201d", "b"),
        ],
        "valid": [("two.flac", "two", "")],
    }


@pytest.mark.parametrize("header", ["file_name\ttext", "Audio\tTranscription", "wav\ttranscript"])
def test_other_names_of_columns(mine, header):
    write(mine, {"train.tsv": f"{header}\none.wav\tone\n"})
    assert recordings(mine) == {"train": [("one.wav", "one", "")]}


def test_layout_of_librispeech(mine, tmp_path):
    write(
        mine,
        {
            "train-clean/19/198/19-198.trans.txt": "19-198-0 HE SAID\n19-198-1 SHE  SAID\n",
            "dev-clean/8/1/8-1.trans.txt": "8-1-0 WHO\n",
            "test-clean/7/1/7-1.trans.txt": "7-1-0 NO\u2028YES\n",
        },
        (
            "train-clean/19/198/19-198-0.flac",
            "train-clean/19/198/19-198-1.wav",
            "dev-clean/8/1/8-1-0.flac",
            "test-clean/7/1/7-1-0.flac",
        ),
    )
    assert examples(mine, tmp_path) == {
        "train": [
            ("train-clean/19/198/19-198-0.flac", "HE SAID", "19"),
            ("train-clean/19/198/19-198-1.wav", "SHE SAID", "19"),
        ],
        "valid": [("dev-clean/8/1/8-1-0.flac", "WHO", "8")],
        "test": [("test-clean/7/1/7-1-0.flac", "NO YES", "7")],
    }


def test_layout_of_ljspeech(mine):
    lines = 'LJ-1|Dr. "No"|Doctor "No"\nLJ-2.wav|Yes|Yes\nwavs/LJ-3|One two|\nLJ-4|x|y\n'
    write(mine, {"metadata.csv": lines}, [f"wavs/LJ-{k}.wav" for k in (1, 2, 3)])
    assert recordings(mine) == {
        "train": [
            ("wavs/LJ-1.wav", 'Doctor "No"', ""),
            ("wavs/LJ-2.wav", "Yes", ""),
            ("wavs/LJ-3.wav", "", ""),  # the normalized transcript is missing
            ("wavs/LJ-4", "y", ""),
        ]
    }


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_names_of_files(mine, ending):
    lines = ["sub\\one.wav\tone", "two.flac \ttwo", "three\tthree", f"{mine}/two.flac\tfour"]
    write(mine, {}, ("sub/one.wav", "two.flac", "three.mp3"))
    text = "\ufeff" + ending.join(lines)
    (mine / "train.tsv").write_bytes(text.encode())
    assert recordings(mine) == {
        "train": [
            ("sub/one.wav", "one", ""),
            ("two.flac", "two", ""),
            ("three.mp3", "three", ""),
            ("two.flac", "four", ""),
        ]
    }


def test_unusable_recordings_are_skipped_and_reported(mine, tmp_path, capsys):
    lines = "one.wav\tone\nbroken.wav\ttwo\nmissing.wav\tthree\ntwo.flac\t\nr1.wav\tfour\n"
    write(mine, {"train.tsv": lines, "broken.wav": "no sound", **VALID})
    soundfile.write(mine / "r1.wav", TONE, 1)
    assert len(examples(mine, tmp_path)["train"]) == 1
    [_, message] = capsys.readouterr().err.splitlines()  # the first is about one.wav in both
    assert message == (
        f"unroll: 4 of 5 recordings of train are skipped: {mine}/broken.wav cannot be read as "
        "sound: Format not recognised. It must be a wav, flac, mp3, ogg, opus or aiff file; "
        f"{mine}/missing.wav does not exist; {mine}/train.tsv, line 4, has no transcript; "
        f"{mine}/r1.wav: sample rate 1 Hz, must be 1000 to 768000"
    )


def test_a_recording_in_two_splits_is_reported(mine, tmp_path, capsys):
    report_once.cache_clear()
    lines = "one.wav\tone\ntwo.flac\ttwo\n"
    write(mine, {"train.tsv": lines, **VALID})
    examples(mine, tmp_path)
    assert capsys.readouterr().err == (
        f"unroll: {mine}: 1 of 1 recordings of valid are also in train, such as {mine}/one.wav.\n"
    )


def test_speakers_are_held_out_as_a_whole(mine, tmp_path, capsys):
    lines = "".join(f"s{k % 12}\tone.wav\tone\n" for k in range(60))
    write(mine, {"train.tsv": f"speaker\tpath\ttext\n{lines}"})
    found = examples(mine, tmp_path)
    speakers = {split: {row[2] for row in rows} for split, rows in found.items()}
    assert not speakers["train"] & speakers["valid"]
    assert len(speakers["valid"]) == 1
    assert sum(map(len, found.values())) == 60
    assert "5 of 60 recordings are held out for it, by speaker (1 of 12)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "header", "line"),
    [
        ("metadata.csv", "", "{}|ab\n"),
        ("train.tsv", "client_id\tpath\tsentence\n", "s1\t{}\tab\n"),  # one speaker
    ],
)
def test_files_are_held_out_where_other_speakers_are_unknown(
    table, header, line, mine, tmp_path, capsys
):
    names = [f"{k // 2}.wav" for k in range(40)]  # each twice
    write(mine, {table: header + "".join(line.format(name) for name in names)}, set(names))
    found = examples(mine, tmp_path)
    files = {split: {row[0] for row in rows} for split, rows in found.items()}
    assert not files["train"] & files["valid"]
    assert len(files["valid"]) == 2
    assert "by file (2 of 20)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"f.lder has no training data: train\.tsv"),
        ({"train.tsv": "one.wav one\n"}, r"train\.tsv, line 1: 1 columns, expected a path, a tab"),
        ({"train.tsv": "a.wav\tx\t2\n"}, r"line 1: 3 columns, expected .* such as path and sent"),
        ({"train.tsv": "path\ttext\nx\n"}, r"line 2: 1 columns, expected a path, a tab and"),
        (
            {"train.tsv": "path\ttext\tage\na.wav\tx\n"},
            r"line 2: 2 columns, expected the 3 columns of the first line",
        ),
        ({"train.tsv": "\tone\n"}, r"train\.tsv, line 1: there is no path"),
        ({"train.tsv": "\n"}, r"train\.tsv has no recordings \(train\)"),
        ({"train.tsv": "a.wav\tno\n", **VALID}, "1 of 1 recordings of train are skipped: .*a.wav"),
        ({"train.tsv": "one.wav\tno\n"}, r"a tenth of 1 recordings cannot be held .* add valid\.t"),
        ({"metadata.csv": "LJ-1 no\n"}, r"metadata\.csv, line 1: expected a name, a bar"),
        (
            {"train.tsv": "one.wav\tx\n", "dev.tsv": "", "valid.tsv": ""},
            "has both valid.tsv and dev.tsv",
        ),
    ],
)
def test_errors_are_one_line(mine, tmp_path, files, message):
    write(mine, files)
    with pytest.raises(DataError, match=message) as error:
        examples(mine, tmp_path)
    assert "\n" not in str(error.value)


def test_changed_file_is_prepared_again(mine, tmp_path):
    write(mine, {"train.tsv": "one.wav\tone\n", **VALID})
    for length in (800, 400):
        soundfile.write(mine / "one.wav", TONE[:length], 8000)
        made = datasets.load(str(mine), "train", kind="speech", data_dir=tmp_path / "tfds")
        assert [int(row["samples"]) for row in made] == [length]


TABLE = "".join(f"clips\\{k}.wav\tline \N{LATIN SMALL LETTER E WITH ACUTE} {k}\n" for k in range(9))
FUZZED = {
    "table": ("train.tsv", TABLE),
    "columns": ("train.tsv", "client_id\tpath\tsentence\n" + TABLE.replace("clips", "a\t")),
    "ljspeech": ("metadata.csv", TABLE.replace("\t", "|")),
    "librispeech": ("train/1/2/1-2.trans.txt", "".join(f"1-2-{k} A B\n" for k in range(9))),
}


@pytest.mark.parametrize("layout", FUZZED)
def test_mutated_files(mine, layout):
    name, text = FUZZED[layout]
    path = mine / name
    path.parent.mkdir(parents=True, exist_ok=True)

    def read(path):
        if layout == "librispeech" and not split_words(read_text(path)):
            raise DataError(f"{path} is empty")  # the whole folder is named then
        try:
            rows = read_folder(mine)["train"]
        except DataError as error:
            raise DataError(re.sub(f"^{mine} ", f"{path} ", str(error))) from None
        return rows, read_text(path)

    for rows, contents in outcomes(path, read, text.encode()):
        assert all(" ".join(split_words(row.transcript)) == row.transcript for row in rows)
        if '"' not in contents:  # each line is a recording, or the header
            lines = sum(bool(split_words(line)) for line in split_lines(contents))
            assert lines - (layout == "columns") <= len(rows) <= lines
