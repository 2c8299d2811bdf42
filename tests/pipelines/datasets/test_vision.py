"""Datasets of images: rendered scenes, published datasets, your own files."""

import itertools
import json
import re
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from tests.pipelines.datasets.helpers import jpeg, png, read_all
from unroll.pipelines import captions, datasets, image, visual_questions
from unroll.pipelines.captions import ImageCaptions
from unroll.pipelines.datasets.vision import (
    daquar,
    easy_vqa,
    scenes,
    scenes_captions,
    scenes_clips,
    scenes_dialog,
    scenes_qa,
)
from unroll.pipelines.errors import DataError


class TestQuestions:
    def test_unseen_combinations_are_in_one_split(self):
        pairs = {
            split: {
                (t.color, t.shape)
                for k in range(100)
                for t in scenes.sample(np.random.default_rng(k), split, 4)
            }
            for split in ("train", "valid", "test")
        }
        assert pairs["train"] == set(scenes.SEEN)
        assert len(scenes.SEEN) == 50
        for split in ("valid", "test"):
            assert pairs[split] - pairs["train"] == set(scenes.UNSEEN[split])
        assert not set(scenes.UNSEEN["valid"]) & set(scenes.UNSEEN["test"])

    def test_rendered_shapes_have_their_position_and_size(self):
        rng = np.random.default_rng(0)
        for shape in scenes.SHAPES:
            thing = scenes.Thing("red", shape, "large", 20.0, 40.0, 11.0)
            pixels = scenes.render([thing], rng).astype(int)
            red = (pixels[..., 0] - pixels[..., 1]) > 90
            rows, columns = np.nonzero(red)
            assert abs(columns.mean() - 20) < 1.5
            assert abs(rows.mean() - 40) < 3
            assert red[40, 20] == (shape != "ring")
            assert 60 < red.sum() < 450

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_answers_follow_from_the_scene(self, split):
        """A reader of the list of things is always right."""
        kinds = set()
        for k in range(60):
            rng = np.random.default_rng([7, k])
            things = scenes.sample(rng, split, int(rng.integers(2, 5)))
            pairs = scenes_qa.questions(things, rng, split)
            assert len({question for question, _ in pairs}) == scenes_qa.QUESTIONS
            for question, answer in pairs:
                assert answer == answer_of(question, things)
                kinds.add(" ".join(question.split()[:2]))
                words = question.split()
                for pair in set(itertools.pairwise(words)) & scenes._HIDDEN:
                    assert pair in scenes.UNSEEN[split]
        assert len(kinds) == 6

    def test_questions_alone_answer_less_than_half(self):
        splits = {"train": [], "test": []}
        for split, rows in splits.items():
            for k in range(200):
                rng = np.random.default_rng([k, len(split)])
                things = scenes.sample(rng, split, int(rng.integers(2, 5)))
                rows += scenes_qa.questions(things, rng, split)
        counts: dict[str, dict] = {}
        for question, answer in splits["train"]:
            own = counts.setdefault(" ".join(question.split()[:2]), {})
            own[answer] = own.get(answer, 0) + 1
        best = {kind: max(own, key=own.get) for kind, own in counts.items()}
        right = [best[" ".join(q.split()[:2])] == a for q, a in splits["test"]]
        assert np.mean(right) < 0.5

    def test_most_rounds_of_a_dialog_need_earlier_rounds(self):
        rounds = []
        for k in range(200):
            rng = np.random.default_rng([9, k])
            pairs = scenes_dialog.sample_twins(rng, "train")
            things = scenes.sample(rng, "train", len(pairs), pairs)
            dialog = scenes_dialog.dialog(things, rng)
            assert len(dialog) == scenes_dialog.ROUNDS
            assert {" it " in q or "other one" in q for q, _ in dialog[:1]} == {False}
            rounds += dialog
        dependent = [" it " in question or "other one" in question for question, _ in rounds]
        assert np.mean(dependent) > 0.5
        others = {a for q, a in rounds if q == "what color is the other one ?"}
        assert others == set(scenes.COLORS)


def answer_of(question: str, things: list[scenes.Thing]) -> str:
    words = question.split()
    plain = [word.removesuffix("es") if word.endswith("sses") else word for word in words]
    plain = [w[:-1] if w[:-1] in (*scenes.SHAPES, "thing") else w for w in plain]

    def matching(words):
        return [
            t
            for t in things
            if all(w in (t.color, t.shape, t.size, "thing", "the", "a", "?") for w in words)
        ]

    def yes(condition):
        return "yes" if condition else "no"

    match plain[:2]:
        case ["what", kind]:
            [thing] = matching(plain[3:])
            return thing.color if kind == "color" else thing.shape
        case ["is", "there"]:
            return yes(matching(plain[2:]))
        case ["how", "many"]:
            return str(len(matching(plain[2 : plain.index("are")])))
        case ["are", "there"]:
            middle = plain.index("than")
            return yes(len(matching(plain[3:middle])) > len(matching(plain[middle + 1 :])))
    [relation] = {"left", "right", "above", "below"} & set(plain)
    at = plain.index(relation)
    [first], [second] = matching(plain[1:at]), matching(plain[at + 1 + (plain[at + 1] == "of") :])
    across, down = second.x - first.x, second.y - first.y
    return yes({"left": across, "right": -across, "above": down, "below": -down}[relation] > 0)


class TestCaptions:
    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_five_captions_name_every_thing(self, count):
        for k in range(20):
            rng = np.random.default_rng([k, count])
            things = scenes.sample(rng, "test", count)
            wordings = scenes_captions.captions(things, rng)
            assert len(set(wordings)) == 5
            for caption in wordings:
                for thing in things:
                    assert f"{thing.color} {thing.shape}" in caption
                assert sum(caption.count(shape) for shape in scenes.SHAPES) == count

    def test_order_and_positions_are_those_of_the_scene(self):
        left = scenes.Thing("red", "ring", "small", 20.0, 50.0, 7.0)
        right = scenes.Thing("orange", "cross", "large", 44.0, 20.0, 12.0)
        assert set(scenes_captions.captions([right, left], np.random.default_rng(0))) == {
            "a red ring and an orange cross",
            "the picture shows an orange cross above a red ring",
            "two things : orange cross , red ring",
            "there is a small red ring and a large orange cross",
            "a picture with a red ring on the left and an orange cross on the right",
        }


class TestClips:
    def test_things_move_as_labeled(self):
        for k in range(15):
            rng = np.random.default_rng(k)
            things = scenes.sample(rng, "train", 2)
            moves = scenes_clips.sample_moves(things, rng)
            frames, labels = scenes_clips.render(things, moves, rng)
            moving = [label for label in labels if label != scenes_clips.STILL]
            assert moving == [direction for _, direction in moves for _ in range(3)]
            for before, after, label in zip(frames, frames[1:], labels[1:], strict=False):
                changed = np.abs(before.astype(int) - after).max() > 50  # more than noise
                assert changed == (label != scenes_clips.STILL)
            assert len(set(scenes_clips.captions(things, moves, rng))) == 5

    def test_gif_has_the_rendered_frames(self):
        rng = np.random.default_rng(0)
        things = scenes.sample(rng, "train", 2)
        frames, _ = scenes_clips.render(things, scenes_clips.sample_moves(things, rng), rng)
        contents = scenes_clips.encode_gif(frames)
        decoded = image.decode_clip(contents, scenes.SIDE, scenes_clips.FRAMES)
        # A GIF has 256 colors.
        assert np.abs(decoded - np.array(frames, "float32")).mean(axis=(1, 2, 3)).max() < 3
        fewer = image.decode_clip(contents, 32, 3)
        assert fewer.shape == (3, 32, 32, 3)
        np.testing.assert_allclose(
            image.decode_clip(contents, scenes.SIDE, 2), tf.gather(decoded, [0, 9])
        )


def archive(path, files: dict[str, bytes]):
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as file:
        for name, contents in files.items():
            file.writestr(name, contents)


class TestPublishedQuestions:
    def test_easy_vqa(self, tmp_path):
        root = "easy-VQA-x/easy_vqa/data"
        files = {"easy-VQA-x/": b""}
        for split, count in (("train", 20), ("test", 3)):
            rows = [[f"is it {k}?", "yes", k] for k in range(count) for _ in range(2)]
            files[f"{root}/{split}/questions.json"] = json.dumps(rows).encode()
            for k in range(count):
                files[f"{root}/{split}/images/{k}.png"] = png(value=k)
        archive(tmp_path / "manual/easy_vqa" / easy_vqa.ARCHIVE.name, files)
        folders = {"manual_dir": tmp_path / "manual", "data_dir": tmp_path / "data"}
        splits = datasets.splits(datasets.builder("easy_vqa", **folders))
        names = {
            split: {each.image_id for each in visual_questions.read(rows)}
            for split, rows in splits.items()
        }
        assert names["valid"] == {"0", "10"}
        assert len(names["train"]) == 18
        assert names["test"] == {"0", "1", "2"}
        for example in splits["valid"]:
            pixels = tf.io.decode_image(example["image"])
            assert int(pixels[0, 0, 0]) == int(example["image_id"].numpy())

    def test_daquar_without_the_names_of_images(self, tmp_path):
        questions = [
            "what is left of the bed in the image1 ?\ntable",
            "how many chairs are there in this image2?\n2",
            "what is red in the image3 ?\nbook, cup",
        ]
        files = {"all_qa_pairs.txt": "\n".join(questions).encode()}
        files |= {f"images/image{k}.jpg": jpeg() for k in (1, 2, 3)}
        files["train_images_list.txt"] = b"image1\nimage2\n"
        files["test_images_list.txt"] = b"image3\n"
        archive(tmp_path / "manual/daquar/daquar.zip", files)
        folders = {"manual_dir": tmp_path / "manual", "data_dir": tmp_path / "data"}
        splits = datasets.splits(datasets.builder("daquar", **folders))
        [held] = visual_questions.read(splits["valid"])
        [kept] = visual_questions.read(splits["train"])
        [test] = visual_questions.read(splits["test"])
        assert held.questions == ["what is left of the bed ?"]
        assert kept.questions == ["how many chairs are there ?"]
        assert (test.questions, test.answers) == (["what is red ?"], [["book, cup"]])

    def test_missing_files_of_daquar(self, tmp_path):
        folders = {"manual_dir": tmp_path / "manual", "data_dir": tmp_path / "data"}
        files = {
            "all_qa_pairs.txt": b"what is it in the image1 ?\nbed",
            "train_images_list.txt": b"image1",
            "test_images_list.txt": b"image1",
        }
        (tmp_path / "manual").mkdir()
        with pytest.raises(DataError, match=r"put daquar/daquar.zip, the zipped files of https"):
            datasets.load("daquar", "test", **folders)
        archive(tmp_path / "manual/daquar/daquar.zip", files)
        with pytest.raises(DataError, match=r"daquar.zip: There is no item named 'images/image1"):
            datasets.load("daquar", "test", **folders)

    def test_published_easy_vqa(self, manual_dir, tmp_path):
        splits = read_all(easy_vqa.EasyVqa, tmp_path)
        assert {split: len(rows) for split, rows in splits.items()} == {
            "train": 3600, "valid": 400, "test": 1000
        }  # fmt: skip
        numbers = {split: sum(len(r["questions"]) for r in rows) for split, rows in splits.items()}
        assert numbers["train"] + numbers["valid"] == 48_248 - 9673
        assert numbers["test"] == 9673

    def test_published_daquar(self, manual_dir, tmp_path):
        splits = read_all(daquar.Daquar, tmp_path)
        numbers = {split: sum(len(r["questions"]) for r in rows) for split, rows in splits.items()}
        assert numbers["train"] + numbers["valid"] == 6795
        assert numbers["test"] == 5673
        questions = [q["question"] for r in splits["test"] for q in r["questions"]]
        # A few questions name an image twice, and keep the first name.
        assert sum(bool(re.search(r"image\d", question)) for question in questions) == 8


def flickr(folder, tokens="a.jpg#0\tA dog .\na.jpg#1\tIt runs .\nb.jpg#0\tTwo\nc.jpg.1#0\tX\n"):
    (folder / "flickr8k").mkdir()
    with zipfile.ZipFile(folder / "flickr8k" / "Flickr8k_Dataset.zip", "w") as archive:
        for name in "ab":
            archive.writestr(f"Flicker8k_Dataset/{name}.jpg", jpeg())
    with zipfile.ZipFile(folder / "flickr8k" / "Flickr8k_text.zip", "w") as archive:
        archive.writestr("Flickr8k.token.txt", tokens)
        for split, names in (("train", "a.jpg\n"), ("dev", "b.jpg\n"), ("test", "b.jpg\n")):
            archive.writestr(f"Flickr_8k.{split}Images.txt", names)
    return {"manual_dir": folder, "data_dir": folder / "prepared"}


class TestPublishedCaptions:
    def test_flickr8k(self, tmp_path):
        folders = flickr(tmp_path)
        [train] = captions.read(datasets.load("flickr8k", "train", **folders))
        assert train == ImageCaptions("a.jpg", ["a dog", "it runs"])
        assert len(datasets.load("flickr8k", "test", **folders)) == 1

    def test_broken_line_of_flickr8k(self, tmp_path):
        folders = flickr(tmp_path, tokens="a.jpg#0\tA dog .\nno caption\n")
        with pytest.raises(DataError, match=r"Flickr8k.token.txt, line 2: expected .* 'no cap"):
            datasets.load("flickr8k", "train", **folders)

    def test_photo_without_captions(self, tmp_path):
        folders = flickr(tmp_path, tokens="a.jpg#0\tA dog .\n")
        with pytest.raises(DataError, match=r"Flickr8k_Dataset.zip: b.jpg has no photo or no cap"):
            datasets.splits(datasets.builder("flickr8k", **folders))
