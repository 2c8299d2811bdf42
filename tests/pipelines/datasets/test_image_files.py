"""Folders of your own images: layouts, what is skipped, what is held out, broken files."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

from tests.pipelines.datasets.helpers import jpeg, png
from tests.pipelines.mutations import mutations, outcomes
from unroll.pipelines import captions, datasets, visual_questions
from unroll.pipelines.captions import ImageCaptions
from unroll.pipelines.datasets.vision import caption_files, question_files
from unroll.pipelines.errors import DataError


def questions_of(folder):
    return datasets.builder(
        str(folder), kind="visual_questions", data_dir=folder.parent / "prepared"
    )


def captions_of(folder):
    return datasets.builder(str(folder), kind="captions", data_dir=folder.parent / "prepared")


@pytest.fixture
def question_folder(tmp_path):
    """A folder of images with questions."""
    folder = tmp_path / "my pictures, für später"
    folder.mkdir()
    for k, name in enumerate(("a", "b", "c")):
        (folder / f"{name}.jpg").write_bytes(jpeg(value=80 * k))
    (folder / "broken.png").write_bytes(b"text")
    rows = ["a.jpg\tWhat is it?\tA cat", "b.jpg\tIs it red?\tno", "a.jpg\tIs it new?\tyes"]
    (folder / "train.tsv").write_text("\n".join(rows) + "\n")
    (folder / "valid.tsv").write_text("c.jpg\tIs it old?\tno\n")
    return folder


@pytest.fixture
def caption_folder(tmp_path):
    """A folder of images with captions."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for k, name in enumerate(("a", "b", "c")):
        (folder / f"{name}.jpg").write_bytes(jpeg(value=80 * k))
    (folder / "captions.tsv").write_text("a.jpg\tA dog.\nb.jpg\tIt runs\na.jpg\tA pup\n")
    (folder / "valid.tsv").write_text("c.jpg\tA cat\n")
    return folder


def vqa(folder, answers=("many", *["3"] * 3, *["two"] * 4, "The 2.", "2")):
    """A folder with the layout of VQA v2, with one image in each split."""
    for k, name in enumerate(("train2014", "val2014")):
        (folder / name).mkdir(parents=True)
        (folder / name / f"COCO_{name}_000000000007.jpg").write_bytes(jpeg(value=99 * k))
        questions = [{"image_id": 7, "question": "How many dogs?", "question_id": 70}]
        path = folder / f"v2_OpenEnded_mscoco_{name}_questions.json"
        path.write_text(json.dumps({"questions": questions}))
        annotations = [{"question_id": 70, "answers": [{"answer": a} for a in answers]}]
        path = folder / f"v2_mscoco_{name}_annotations.json"
        path.write_text(json.dumps({"annotations": annotations}))
    return folder


def coco(folder, texts=("A dog.\n", "Dogs"), year=2017, encoding="utf-8"):
    """A folder with the layout of COCO, with one image in each split."""
    (folder / "annotations").mkdir(parents=True)
    for k, split in enumerate(("train", "val")):
        (folder / f"{split}{year}").mkdir()
        (folder / f"{split}{year}" / "7.jpg").write_bytes(jpeg(value=99 * k))
        annotations = {
            "images": [{"id": 7, "file_name": "7.jpg"}],
            "annotations": [
                {"image_id": 7, "id": k, "caption": c} for k, c in enumerate(texts, start=40)
            ],
        }
        path = folder / "annotations" / f"captions_{split}{year}.json"
        path.write_text(json.dumps(annotations), encoding=encoding)
    return folder


class TestQuestionFiles:
    def test_a_table(self, question_folder):
        splits = datasets.splits(questions_of(question_folder))
        assert set(splits) == {"train", "valid"}
        by_name = {each.image_id: each for each in visual_questions.read(splits["train"])}
        assert by_name["a.jpg"].questions == ["What is it?", "Is it new?"]
        assert by_name["a.jpg"].answers == [["a cat"], ["yes"]]

    def test_missing_and_broken_images_are_reported(self, question_folder, capsys):
        with (question_folder / "train.tsv").open("a") as file:
            file.write("broken.png\tWhat?\tx\nbroken.png\tWhere?\ty\nlost.png\tWho?\tz\n")
            file.write(f"{'long' * 100}.png\tWho?\tz\n")
        train = datasets.read(questions_of(question_folder), "train")
        assert {each.image_id for each in visual_questions.read(train)} == {"a.jpg", "b.jpg"}
        message = capsys.readouterr().err
        assert "3 of 5 images of train are skipped, with 4 questions" in message
        assert "broken.png (cannot be decoded as an image)" in message
        assert "lost.png (No such file or directory)" in message
        assert "longlong.png (File name too long)" in message

    def test_folder_without_its_images(self, question_folder):
        for path in question_folder.glob("*.jpg"):
            path.unlink()
        with pytest.raises(DataError, match=r"^2 of 2 images of train are skipped") as error:
            datasets.read(questions_of(question_folder), "train")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("line", ["a.jpg\tWhat?", "a.jpg\t\tx", "a.jpg\tWhat?\tx\ty"])
    def test_wrong_lines(self, question_folder, line):
        with (question_folder / "train.tsv").open("a") as file:
            file.write(line + "\n")
        with pytest.raises(DataError, match=r"train.tsv, line 4: expected an image, a tab, a q"):
            questions_of(question_folder)

    def test_an_empty_folder(self, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match=r"no training data: train.tsv .* or VQA v2's"):
            questions_of(tmp_path / "empty")

    def test_lines_and_paths_of_other_programs(self, question_folder):
        """Backslashes, spaces around tabs, CR, quotes of a spreadsheet, U+2028."""
        (question_folder / "part").mkdir()
        (question_folder / "part" / "d.jpg").write_bytes(jpeg())
        rows = ['part\\d.jpg \t"Is it ""big"",\u2028or not?"\t yes ', '"a.jpg"\t"Why, oh why?"\tno']
        (question_folder / "train.tsv").write_bytes("\r".join(rows).encode("utf-8-sig"))
        found = question_files.read(question_folder).splits["train"]
        assert found == {
            str(question_folder / "part/d.jpg"): [('Is it "big", or not?', ["yes"])],
            str(question_folder / "a.jpg"): [("Why, oh why?", ["no"])],
        }

    def test_images_of_one_name_have_different_ids(self, question_folder):
        for name in ("x", "y"):
            (question_folder / name).mkdir()
            (question_folder / name / "1.jpg").write_bytes(jpeg(value=len(name) + ord(name)))
        (question_folder / "train.tsv").write_text("x/1.jpg\ta ?\tb\ny/1.jpg\tc ?\td\n")
        rows = datasets.read(questions_of(question_folder), "train").as_numpy_iterator()
        assert {row["image_id"] for row in rows} == {b"x/1.jpg", b"y/1.jpg"}

    def test_layout_of_vqa(self, tmp_path):
        splits = datasets.splits(questions_of(vqa(tmp_path / "vqa")))
        assert set(splits) == {"train", "valid"}
        [first] = visual_questions.read(splits["valid"])
        assert first.image_id == "COCO_val2014_000000000007.jpg"
        assert first.questions == ["How many dogs?"]
        # "2" is the most frequent answer, together with "two" and "The 2.".
        assert first.answers == [["2"] * 6 + ["3"] * 3 + ["many"]]

    def test_answers_that_are_numbers_or_missing(self, tmp_path, capsys):
        folder = vqa(tmp_path / "vqa", answers=(2, 2.0, 2.5, None, float("nan"), " ", "two\n dogs"))
        [[(_, answers)]] = question_files.read(folder).splits["train"].values()
        assert answers == ["2", "2", "2.5", "two dogs"]
        message = capsys.readouterr().err
        assert "annotations.json: 3 of 7 answers are numbers and are read as texts" in message
        assert "3 of 7 answers are missing or empty and are left out: question 70" in message

    def test_questions_that_are_missing(self, tmp_path, capsys):
        folder = vqa(tmp_path / "vqa")
        path = folder / "v2_OpenEnded_mscoco_train2014_questions.json"
        rows = [{"image_id": 7, "question": q, "question_id": 70} for q in ("Why?", None, 5)]
        path.write_text(json.dumps({"questions": rows}), encoding="utf-8-sig")
        [found] = question_files.read(folder).splits["train"].values()
        assert [question for question, _ in found] == ["Why?", "5"]
        message = capsys.readouterr().err
        assert "1 of 3 questions are missing or empty and are left out: question 70" in message

    @pytest.mark.parametrize(
        ("annotations", "message"),
        [
            ('{"annotations": []}', r"has no answers to 1 of 1 questions.*'How many dogs"),
            ("{", r"annotations.json, line 1: not JSON"),
            ("[]", "not in VQA v2's layout: TypeError"),
            ('{"annotations": [{"question_id": 70, "answers": [{"answer": [1]}]}]}',
             r"annotations.json: question 70: expected a text of the answers, got \[1\]"),
            (None, r"annotations.json cannot be read: No such file"),
        ],
    )  # fmt: skip
    def test_annotations_of_vqa_that_are_missing_or_broken(self, tmp_path, annotations, message):
        folder = vqa(tmp_path / "vqa")
        path = folder / "v2_mscoco_train2014_annotations.json"
        path.unlink()
        if annotations:
            path.write_text(annotations)
        with pytest.raises(DataError, match=message):
            questions_of(folder)

    def test_a_thousand_broken_files(self, question_folder, tmp_path):
        table = question_folder / "train.tsv"
        for layout in outcomes(
            table, lambda _: question_files.read(question_folder), table.read_bytes()
        ):
            assert layout.splits["train"]
        folder, errors = vqa(tmp_path / "vqa"), []
        for path in folder.glob("*train2014*.json"):
            contents = path.read_bytes()
            for broken in mutations(contents, count=500):
                path.write_bytes(broken)
                try:
                    question_files.read(folder)
                except DataError as error:
                    errors.append(str(error))
            path.write_bytes(contents)
        assert 100 < len(errors) < 950
        # It may name the other one of the two files.
        assert all(re.fullmatch(rf"{folder}[^\r\n]+", error) for error in errors)


class TestCaptionFiles:
    def test_a_table(self, caption_folder):
        splits = datasets.splits(captions_of(caption_folder))
        assert set(splits) == {"train", "valid"}
        train = {each.image_id: each.captions for each in captions.read(splits["train"])}
        assert train == {"a.jpg": ["a dog", "a pup"], "b.jpg": ["it runs"]}

    def test_captions_without_their_image_are_reported(self, caption_folder, capsys):
        (caption_folder / "broken.jpg").write_text("text")
        with (caption_folder / "captions.tsv").open("a") as file:
            file.write("broken.jpg\tx\nlost.jpg\ty\nlost.jpg\tz\n")
        assert len(captions.read(datasets.read(captions_of(caption_folder), "train"))) == 2
        message = capsys.readouterr().err
        assert "2 of 4 images of train are skipped, with 3 captions" in message
        assert "broken.jpg (cannot be decoded as an image)" in message
        assert "lost.jpg (No such file or directory)" in message

    def test_wrong_folders(self, caption_folder, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match=r"no training data: captions.tsv .* or COCO's"):
            captions_of(tmp_path / "empty")
        (caption_folder / "captions.tsv").write_text("a.jpg\n")
        with pytest.raises(DataError, match=r"captions.tsv, line 1: expected an image, a tab, a"):
            captions_of(caption_folder)
        (caption_folder / "captions.tsv").write_text("\n")
        with pytest.raises(DataError, match=r"has no captions \(train\)"):
            captions_of(caption_folder)

    def test_captions_without_words(self, caption_folder, capsys):
        (caption_folder / "captions.tsv").write_text("a.jpg\t!!!\na.jpg\t<br>\na.jpg\tno. 7\n")
        [found] = caption_files.read(caption_folder).splits["train"].values()
        assert found == ["no. 7"]
        assert "2 of 3 captions have no words and are left out" in capsys.readouterr().err

    @pytest.mark.parametrize(("year", "encoding"), [(2014, "utf-8"), (2017, "utf-8-sig")])
    def test_layout_of_coco(self, tmp_path, year, encoding):
        folder = coco(tmp_path / "coco", year=year, encoding=encoding)
        splits = datasets.splits(captions_of(folder))
        assert set(splits) == {"train", "valid"}
        assert captions.read(splits["valid"]) == [ImageCaptions("7.jpg", ["a dog", "dogs"])]

    def test_captions_of_coco_that_are_null(self, tmp_path, capsys):
        folder = coco(tmp_path / "coco", texts=(None, "A dog", float("nan"), "", "!", 12))
        [found] = caption_files.read(folder).splits["train"].values()
        assert found == ["A dog", "12"]
        message = capsys.readouterr().err
        assert (
            "captions_train2017.json: 4 of 6 captions are missing or empty and are left out: "
            "annotation 40, annotation 42, annotation 43, ..." in message
        )
        assert "1 of 6 captions are numbers and are read as texts: annotation 45." in message

    @pytest.mark.parametrize(
        ("contents", "message"),
        [
            ("[]", "is not in COCO's layout: TypeError"),
            ('{"images": [{"id": 7, "file_name": 5}], "annotations": []}',
             "image 7: expected the name of a file, got 5"),
            ('{"images": [{"id": [7], "file_name": "7.jpg"}], "annotations": []}', "unhashable"),
            ('{"images": [], "annotations": [{"image_id": 7, "caption": "A dog"}]}',
             "has no image for 1 of 1 captions, such as that of 7"),
            ('{"images": [], "annotations": [{"image_id": 7, "id": 3, "caption": ["A dog"]}]}',
             r"annotation 3: expected a text of the captions, got \['A dog'\]"),
        ],
    )  # fmt: skip
    def test_files_that_are_not_of_coco(self, tmp_path, contents, message):
        folder = coco(tmp_path / "coco")
        (folder / "annotations" / "captions_train2017.json").write_text(contents)
        with pytest.raises(DataError, match=message):
            captions_of(folder)

    def test_a_thousand_broken_files(self, caption_folder, tmp_path):
        table = caption_folder / "captions.tsv"
        for layout in outcomes(
            table, lambda _: caption_files.read(caption_folder), table.read_bytes()
        ):
            assert layout.splits["train"]
        folder = coco(tmp_path / "coco")
        path = folder / "annotations" / "captions_train2017.json"
        for layout in outcomes(path, lambda _: caption_files.read(folder), path.read_bytes()):
            assert layout.splits["train"]


def blurred(seed: int, side: int = 48) -> tf.Tensor:
    """A picture that looks like no other one."""
    colors = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), np.uint8)
    return tf.cast(tf.image.resize(colors, [side, side]), tf.uint8)


class TestHeldOut:
    def test_a_picture_is_not_in_both_parts(self, tmp_path, capsys):
        """Copies, and the same picture in another size or format, stay together."""
        folder = tmp_path / "own"
        (folder / "small").mkdir(parents=True)
        lines, kinds = [], {}
        for k in range(30):
            copies = {
                f"{k}.png": tf.io.encode_png(blurred(k)).numpy(),
                f"copy of {k}.png": tf.io.encode_png(blurred(k)).numpy(),
                f"small/{k}.jpg": tf.io.encode_jpeg(blurred(k, 32), quality=95).numpy(),
            }
            for name, contents in copies.items():
                (folder / name).write_bytes(contents)
                kinds[name] = k
                lines += [f"{name}\tcaption {line} of {name}\n" for line in range(2)]
        # Different pictures of the same name.
        (folder / "small" / "0.png").write_bytes(tf.io.encode_png(blurred(99)).numpy())
        lines.append("small/0.png\tanother one\n")
        kinds["small/0.png"] = 99
        rng = np.random.default_rng(0)
        (folder / "captions.tsv").write_text("".join(rng.permutation(lines)))
        builder = captions_of(folder)
        message = capsys.readouterr().err
        assert "of 91 images are held out for it, by image" in message
        assert "of 31)" in message
        splits = {name: captions.read(rows) for name, rows in datasets.splits(builder).items()}
        shown = {name: {kinds[row.image_id] for row in rows} for name, rows in splits.items()}
        assert not shown["train"] & shown["valid"]
        assert 6 <= len(splits["valid"]) <= 12
        assert sum(len(row.captions) for rows in splits.values() for row in rows) == len(lines)

    @pytest.mark.parametrize("layout", ["questions", "captions"])
    def test_too_few_images(self, layout, tmp_path):
        (tmp_path / "a.png").write_bytes(png())
        table, row, read = {
            "questions": ("train.tsv", "a.png\tWhat?\tx\n", questions_of),
            "captions": ("captions.tsv", "a.png\tA dog\n", captions_of),
        }[layout]
        (tmp_path / table).write_text(row)
        with pytest.raises(DataError) as error:
            read(tmp_path)
        assert "a tenth of 1 images cannot be held out for one: add valid.tsv" in str(error.value)

    def test_the_file_to_add_has_the_name_of_the_layout(self, tmp_path):
        folder = coco(tmp_path / "coco")
        (folder / "annotations" / "captions_val2017.json").unlink()
        with pytest.raises(DataError, match=r"add annotations/captions_val2017\.json"):
            captions_of(folder)

    def test_pictures_of_training_in_another_split_are_reported(self, question_folder, capsys):
        (question_folder / "again.jpg").write_bytes((question_folder / "a.jpg").read_bytes())
        (question_folder / "test.tsv").write_text("again.jpg\tWhy?\tno\nc.jpg\tWhy?\tno\n")
        questions_of(question_folder)
        assert "1 of 2 images of test are also in train" in capsys.readouterr().err

    def test_the_rows_are_not_in_the_representation_that_tfds_logs(self, question_folder):
        found = questions_of(question_folder)
        assert "Is it red?" not in repr(found.source.builder_config)
