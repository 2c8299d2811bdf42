"""Your own files without a split "valid": what is held out is not in training."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from tests.pipelines.datasets.helpers import png
from unroll.pipelines import datasets
from unroll.pipelines.errors import DataError

KINDS = (
    *("captions", "key_terms", "speech", "stories", "tagging", "text_classification"),
    "translation",
    "visual_questions",
)
GROUPS, MEMBERS = 30, 4


def write(folder: Path, kind: str) -> None:
    """Training data with several examples of each text, story, image or speaker."""
    each = [k % GROUPS for k in range(GROUPS * MEMBERS)]
    if kind == "text_classification":
        rows = "".join(f"text {k}\tlabel {k % 2}\n" for k in each)
        (folder / "train.tsv").write_text(f"text\tlabel\n{rows}")
    elif kind == "key_terms":
        rows = "".join(f"A term{k}\tterm{k}\n" for k in each)
        (folder / "train.tsv").write_text(f"text\tterms\n{rows}")
    elif kind == "translation":
        rows = "".join(f"text {k}\ttarget {n}\n" for n, k in enumerate(each))
        (folder / "train.tsv").write_text(f"source\ttarget\n{rows}")
    elif kind == "tagging":
        (folder / "train.conll").write_text("".join(f"word{k} B-x\nend O\n\n" for k in each))
    elif kind == "stories":
        lines = [
            f"{2 * m + 1} Ann{k} went to the hall.\n{2 * m + 2} Where is Ann{k}?\thall\t1\n"
            for k in range(GROUPS)
            for m in range(MEMBERS)
        ]
        (folder / "train.txt").write_text("".join(lines))
    elif kind == "speech":
        for k in range(GROUPS):
            chapter = folder / f"train-clean/{k}/1"
            chapter.mkdir(parents=True)
            names = [f"{k}-1-{m}" for m in range(MEMBERS)]
            for name in names:
                soundfile.write(chapter / f"{name}.wav", [0.5, -0.5] * 50, 8000)
            (chapter / f"{k}-1.trans.txt").write_text("".join(f"{n} YES\n" for n in names))
    else:
        for k in range(GROUPS):
            (folder / f"{k}.png").write_bytes(png(value=8 * k))
        columns = {"captions": "a dog", "visual_questions": "Is it a dog ?\tyes"}[kind]
        name = {"captions": "captions", "visual_questions": "train"}[kind]
        (folder / f"{name}.tsv").write_text("".join(f"{k}.png\t{columns}\n" for k in each))


def groups(kind: str, examples: Iterator[tuple]) -> list:
    """What all examples of a group have in common."""
    common = {
        "captions": lambda row: row["image_id"],
        "key_terms": lambda row: tuple(row["words"]),
        "speech": lambda row: row["speaker"],
        "stories": lambda row: row["facts"][0],
        "tagging": lambda row: tuple(row["words"]),
        "text_classification": lambda row: row["text"],
        "translation": lambda row: row["source"],
        "visual_questions": lambda row: row["image_id"],
    }[kind]
    return [common(row) for _, row in examples]


@pytest.mark.parametrize("kind", KINDS)
def test_no_group_is_in_training_and_held_out(kind, tmp_path, capsys):
    (tmp_path / "own").mkdir()
    write(tmp_path / "own", kind)
    made = datasets.builder(str(tmp_path / "own"), kind=kind, data_dir=tmp_path / "prepared")
    assert made.split_names == ("train", "valid")
    generators = made.source.generators(None)
    train, valid = (groups(kind, generators[split]) for split in ("train", "valid"))
    assert set(train) | set(valid) == set(train) ^ set(valid)
    assert len(set(train)) + len(set(valid)) == GROUPS
    assert 0.05 < len(valid) / len(train + valid) < 0.15
    assert f"{len(valid)} of {len(train + valid)} " in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_few_examples_need_a_split_for_validation(kind, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "GROUPS", 2)
    monkeypatch.setitem(globals(), "MEMBERS", 2)
    (tmp_path / "own").mkdir()
    write(tmp_path / "own", kind)
    with pytest.raises(
        DataError, match=r"cannot be held out .*: add valid.*, or more data"
    ) as error:
        datasets.builder(str(tmp_path / "own"), kind=kind, data_dir=tmp_path / "prepared")
    assert "\n" not in str(error.value)
