"""A person's own pictures with questions: a folder in one of two layouts."""

import json
from pathlib import Path

from unroll.pipelines.datasets.vision.image_files import PictureFiles, table
from unroll.pipelines.datasets.vision.visual_questions import (
    Questions,
    VisualQuestions,
    example,
    grouped,
)
from unroll.pipelines.errors import DataError

_COCO = {"train": "train2014", "valid": "val2014"}


class VisualFiles(PictureFiles, VisualQuestions, skip_registration=True):
    """Pictures with questions and answers, from a folder.

    - `train.tsv`, and perhaps `valid.tsv` and `test.tsv`: a line is the path of a picture as seen
      from the folder, a tab, a question, a tab, and the answer. The questions of a dialog stand in
      its order.
    - VQA v2's: `v2_OpenEnded_mscoco_train2014_questions.json`,
      `v2_mscoco_train2014_annotations.json` and the pictures in `train2014`, and the same of
      `val2014`, which is the validation split.

    What cannot be read is left out, as in `PictureFiles`.

    Raises:
        DataError: one line, if the folder has neither layout, a line is no picture, question and
            answer, a question has no annotation, or a split has no picture left.
    """

    SAID = "questions"

    def _read(self, folder: Path) -> dict[str, Questions]:
        return _read(folder)

    def _example(self, name: str, contents: bytes, said: list) -> dict:
        return example(name, contents, said)


def _read(folder: Path) -> dict[str, Questions]:
    tables = {split: folder / f"{split}.tsv" for split in ("train", "valid", "test")}
    questions = {
        split: folder / f"v2_OpenEnded_mscoco_{name}_questions.json"
        for split, name in _COCO.items()
    }
    if tables["train"].is_file():
        found = {split: _table(path) for split, path in tables.items() if path.is_file()}
    elif questions["train"].is_file():
        found = {
            split: _coco(folder, _COCO[split], path)
            for split, path in questions.items()
            if path.is_file()
        }
    else:
        raise DataError(
            f"{folder} has no training data: train.tsv of pictures, questions and answers, or "
            f"VQA v2's {questions['train'].name} with its annotations and pictures."
        )
    for split, asked in found.items():
        if not asked:
            raise DataError(f"{folder} has no questions ({split}).")
    return found


def _table(path: Path) -> Questions:
    rows = table(path, ["a picture", "a question", "an answer"])
    return grouped((picture, question, [answer]) for picture, question, answer in rows)


def _coco(folder: Path, name: str, path: Path) -> Questions:
    annotations = folder / f"v2_mscoco_{name}_annotations.json"
    try:
        asked = json.loads(path.read_text(encoding="utf-8"))["questions"]
        answered = {
            each["question_id"]: [answer["answer"] for answer in each["answers"]]
            for each in json.loads(annotations.read_text(encoding="utf-8"))["annotations"]
        }
        rows = [
            (
                str(folder / name / f"COCO_{name}_{each['image_id']:012}.jpg"),
                each["question"],
                answered.get(each["question_id"], []),
            )
            for each in asked
        ]
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: there is no such file.") from None
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} and {annotations.name} are not in VQA v2's layout: {type(error).__name__} "
            f"{error}."
        ) from None
    if missing := [question for _, question, answers in rows if not answers]:
        raise DataError(
            f"{annotations} has no answers to {len(missing)} of {len(rows)} questions, such as "
            f"{missing[0]!r}."
        )
    return grouped(rows)
