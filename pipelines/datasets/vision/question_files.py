"""Your own images with questions: a folder in one of two layouts."""

from pathlib import Path

from unroll.pipelines.datasets.vision.base import (
    Questions,
    VisualQuestions,
    group_questions,
    question_example,
)
from unroll.pipelines.datasets.vision.image_files import (
    ImageFiles,
    JsonTexts,
    Layout,
    read_table,
)
from unroll.pipelines.errors import DataError
from unroll.pipelines.lines import read_json

_COCO = {"train": "train2014", "valid": "val2014"}


class QuestionFiles(ImageFiles, VisualQuestions, skip_registration=True):
    """Images with questions and answers, from a folder.

    - `train.tsv` and, optionally, `valid.tsv` and `test.tsv`: a line is the path of an image
      relative to the folder, a tab, a question, a tab, and the answer. The questions of a dialog
      are in its order.
    - The layout of VQA v2: `v2_OpenEnded_mscoco_train2014_questions.json`,
      `v2_mscoco_train2014_annotations.json` and the images in `train2014`, and the same of
      `val2014` for validation.

    Unreadable images are skipped, as in `ImageFiles`. In VQA's layout, answers that are numbers are
    read as texts, and missing questions and answers are left out.

    Raises:
        DataError: one line, if the folder has neither layout, a line is not an image, a question
            and an answer, a question has no annotation, a split has no image left, or there are too
            few images to hold some out for validation.
    """

    name = "visual_files"  # prepared folders stay valid
    ANNOTATION = "questions"

    def _read(self, folder: Path) -> Layout:
        return read(folder)

    def _example(self, name: str, contents: bytes, rows: list) -> dict:
        return question_example(name, contents, rows)


def read(folder: Path) -> Layout:
    """The questions of a folder.

    Raises:
        DataError: as `QuestionFiles`.
    """
    tables = {split: folder / f"{split}.tsv" for split in ("train", "valid", "test")}
    coco = {
        split: folder / f"v2_OpenEnded_mscoco_{name}_questions.json"
        for split, name in _COCO.items()
    }
    if tables["train"].is_file():
        files = {split: path for split, path in tables.items() if path.is_file()}
        questions = {split: _read_table(path) for split, path in files.items()}
        layout = Layout(questions, tables["valid"].name, (folder,))
    elif coco["train"].is_file():
        files = {split: path for split, path in coco.items() if path.is_file()}
        questions = {split: _read_vqa(folder, _COCO[split], path) for split, path in files.items()}
        roots = tuple(folder / name for name in _COCO.values())
        layout = Layout(questions, coco["valid"].name, roots)
    else:
        raise DataError(
            f"{folder} has no training data: train.tsv of images, questions and answers, or "
            f"VQA v2's {coco['train'].name} with its annotations and images."
        )
    for split, rows in questions.items():
        if not rows:
            raise DataError(f"{files[split]} has no questions ({split}).")
    return layout


def _read_table(path: Path) -> Questions:
    rows = read_table(path, ["an image", "a question", "an answer"])
    return group_questions((image, question, [answer]) for image, question, answer in rows)


def _read_vqa(folder: Path, name: str, path: Path) -> Questions:
    annotations = folder / f"v2_mscoco_{name}_annotations.json"
    question_file, annotation_file = read_json(path), read_json(annotations)
    questions, texts = JsonTexts(path, "questions"), JsonTexts(annotations, "answers")
    try:
        answers = {
            each["question_id"]: [
                texts.read(answer["answer"], f"question {each['question_id']}")
                for answer in each["answers"]
            ]
            for each in annotation_file["annotations"]
        }
        rows = [
            (
                str(folder / name / f"COCO_{name}_{int(each['image_id']):012}.jpg"),
                questions.read(each["question"], f"question {each['question_id']}"),
                answers.get(each["question_id"], []),
            )
            for each in question_file["questions"]
        ]
    except DataError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{path} and {annotations.name} are not in VQA v2's layout: {type(error).__name__} "
            f"{error}."
        ) from None
    if missing := [question for _, question, own in rows if not own]:
        raise DataError(
            f"{annotations} has no answers to {len(missing)} of {len(rows)} questions, such as "
            f"{missing[0]!r}."
        )
    rows = [(image, question, list(filter(None, own))) for image, question, own in rows]
    for _, question, own in rows:
        if question and not own:
            questions.left_out.append(f"{question!r}, which has no answer")
    questions.report()
    texts.report()
    return group_questions(row for row in rows if row[1] and row[2])
