"""A person's own pictures with questions: a folder in one of two layouts."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow_datasets as tfds

from pipelines.datasets.base import report_left_out
from pipelines.datasets.visual_questions import Questions, VisualQuestions, example, grouped
from pipelines.errors import DataError
from pipelines.image import readable_picture

_COCO = {"train": "train2014", "valid": "val2014"}


@dataclass
class _Folder(tfds.core.BuilderConfig):
    asked: dict[str, Questions] = field(default_factory=dict)


class VisualFiles(VisualQuestions, skip_registration=True):
    """Pictures with questions and answers, from a folder.

    - `train.tsv`, and perhaps `valid.tsv` and `test.tsv`: a line is the path of a picture as seen
      from the folder, a tab, a question, a tab, and the answer. The questions of a dialog stand in
      its order.
    - VQA v2's: `v2_OpenEnded_mscoco_train2014_questions.json`,
      `v2_mscoco_train2014_annotations.json` and the pictures in `train2014`, and the same of
      `val2014`, which is the validation split.

    Pictures that are missing or cannot be decoded are left out with their questions, which the
    standard error tells with their names and number.

    Args:
        folder: where the files are.

    Raises:
        DataError: one line, if the folder has neither layout, a line is no picture, question and
            answer, a question has no annotation, or a split has no picture left.
    """

    def __init__(self, folder: str | Path, **kwargs):
        asked = _read(Path(folder))
        digest = hashlib.sha256()
        for split, pictures in asked.items():
            for path, questions in pictures.items():
                about = Path(path).stat() if Path(path).is_file() else None
                stamp = (about.st_size, about.st_mtime_ns) if about else ()
                digest.update(repr((split, path, questions, stamp)).encode())
        super().__init__(config=_Folder(name=digest.hexdigest()[:16], asked=asked), **kwargs)

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(split, asked)
            for split, asked in self.builder_config.asked.items()
        }

    def _generate_examples(self, split: str, asked: Questions):
        left_out, lost = [], 0
        for path, questions in asked.items():
            try:
                contents = readable_picture(Path(path))
            except DataError as error:
                left_out.append(str(error))
                lost += len(questions)
                continue
            yield path, example(Path(path).name, contents, questions)
        report_left_out(left_out, len(asked), f"pictures of {split}", f"{lost} questions")


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
    rows = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 3 or not all(cells):
            raise DataError(
                f"{path}, line {number}: expected a picture, a tab, a question, a tab, an answer."
            )
        rows.append((str(path.parent / cells[0]), cells[1], [cells[2]]))
    return grouped(rows)


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
