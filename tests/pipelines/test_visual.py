"""Pictures with questions: drawn scenes, published and own files, answers, batches."""

import itertools
import json
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from unroll.pipelines import datasets, image, text, visual
from unroll.pipelines.datasets.vision import scenes, scenes_qa, visual_questions
from unroll.pipelines.errors import DataError
from unroll.pipelines.visual import FIRST_ANSWER, NO_QUESTION, UNKNOWN_ANSWER, Asked


def picture(side: int = 8, value: int = 120, form: str = "png") -> bytes:
    pixels = np.full((side, side + 2, 3), value, "uint8")
    encode = tf.io.encode_jpeg if form == "jpg" else tf.io.encode_png
    return encode(pixels).numpy()


class TestScenes:
    def test_unseen_colours_and_shapes_are_in_one_split_alone(self):
        pairs = {
            split: {
                (t.colour, t.shape)
                for k in range(200)
                for t in scenes.draw(np.random.default_rng(k), split, 4)
            }
            for split in ("train", "valid", "test")
        }
        assert pairs["train"] == set(scenes.SEEN)
        assert len(scenes.SEEN) == 50
        for split in ("valid", "test"):
            assert pairs[split] - pairs["train"] == set(scenes.UNSEEN[split])
        assert not set(scenes.UNSEEN["valid"]) & set(scenes.UNSEEN["test"])

    def test_what_is_drawn_is_there(self):
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
        """A reader of the list of things, and of nothing else, is always right."""
        kinds = set()
        for k in range(150):
            rng = np.random.default_rng([7, k])
            things = scenes.draw(rng, split, int(rng.integers(2, 5)))
            asked = scenes_qa.questions(things, rng, split)
            assert len({question for question, _ in asked}) == scenes_qa.QUESTIONS
            for question, answer in asked:
                assert answer == answer_of(question, things)
                kinds.add(" ".join(question.split()[:2]))
                words = question.split()
                for pair in set(itertools.pairwise(words)) & scenes._HIDDEN:
                    assert pair in scenes.UNSEEN[split]
        assert len(kinds) == 6

    def test_the_questions_alone_tell_less_than_half(self):
        seen = {"train": [], "test": []}
        for split, rows in seen.items():
            for k in range(400):
                rng = np.random.default_rng([k, len(split)])
                things = scenes.draw(rng, split, int(rng.integers(2, 5)))
                rows += scenes_qa.questions(things, rng, split)
        counts: dict[str, dict] = {}
        for question, answer in seen["train"]:
            of = counts.setdefault(" ".join(question.split()[:2]), {})
            of[answer] = of.get(answer, 0) + 1
        best = {kind: max(of, key=of.get) for kind, of in counts.items()}
        right = [best[" ".join(q.split()[:2])] == a for q, a in seen["test"]]
        assert np.mean(right) < 0.5

    def test_the_rounds_of_a_dialog_need_those_before(self):
        rounds = []
        for k in range(200):
            rng = np.random.default_rng([9, k])
            pairs = scenes_qa._with_twins(rng, "train")
            things = scenes.draw(rng, "train", len(pairs), pairs)
            dialog = scenes_qa.dialog(things, rng)
            assert len(dialog) == scenes_qa.ROUNDS
            assert {" it " in q or "other one" in q for q, _ in dialog[:1]} == {False}
            rounds += dialog
        needy = [" it " in question or "other one" in question for question, _ in rounds]
        assert np.mean(needy) > 0.5
        others = {a for q, a in rounds if q == "what color is the other one ?"}
        assert others == set(scenes.COLOURS)


def answer_of(question: str, things: list[scenes.Thing]) -> str:
    words = question.split()
    plain = [word.removesuffix("es") if word.endswith("sses") else word for word in words]
    plain = [w[:-1] if w[:-1] in (*scenes.SHAPES, "thing") else w for w in plain]

    def fitting(about):
        return [
            t
            for t in things
            if all(w in (t.colour, t.shape, t.size, "thing", "the", "a", "?") for w in about)
        ]

    def yes(so):
        return "yes" if so else "no"

    match plain[:2]:
        case ["what", kind]:
            [thing] = fitting(plain[3:])
            return thing.colour if kind == "color" else thing.shape
        case ["is", "there"]:
            return yes(fitting(plain[2:]))
        case ["how", "many"]:
            return str(len(fitting(plain[2 : plain.index("are")])))
        case ["are", "there"]:
            middle = plain.index("than")
            return yes(len(fitting(plain[3:middle])) > len(fitting(plain[middle + 1 :])))
    [place] = {"left", "right", "above", "below"} & set(plain)
    at = plain.index(place)
    [first], [second] = fitting(plain[1:at]), fitting(plain[at + 1 + (plain[at + 1] == "of") :])
    across, down = second.x - first.x, second.y - first.y
    return yes({"left": across, "right": -across, "above": down, "below": -down}[place] > 0)


@pytest.fixture
def own(tmp_path):
    """A folder of pictures with questions."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.jpg").write_bytes(picture(form="jpg"))
    (folder / "broken.png").write_bytes(b"no picture")
    rows = ["a.jpg\tWhat is it?\tA cat", "b.jpg\tIs it red?\tno", "a.jpg\tIs it new?\tyes"]
    (folder / "train.tsv").write_text("\n".join(rows) + "\n")
    return folder


def load(folder, tmp_path):
    return datasets.builder(str(folder), folder="visual", data_dir=tmp_path / "data")


class TestOwnFiles:
    def test_a_table(self, own, tmp_path):
        for split in ("valid", "test"):
            (own / f"{split}.tsv").write_text("b.jpg\tIs it old?\tno\n")
        splits = datasets.splits(load(own, tmp_path))
        assert set(splits) == {"train", "valid", "test"}
        found = visual.read(datasets.read(load(own, tmp_path), "train"))
        by_name = {each.image_id: each for each in found}
        assert by_name["a.jpg"].questions == ["What is it?", "Is it new?"]
        assert by_name["a.jpg"].answers == [["a cat"], ["yes"]]

    def test_missing_and_broken_pictures_are_named_and_counted(self, own, tmp_path, capsys):
        with (own / "train.tsv").open("a") as file:
            file.write("broken.png\tWhat?\tx\nbroken.png\tWhere?\ty\nlost.png\tWho?\tz\n")
        found = visual.read(datasets.read(load(own, tmp_path), "train"))
        assert {each.image_id for each in found} == {"a.jpg", "b.jpg"}
        told = capsys.readouterr().err
        assert "2 of 4 pictures of train are left out, with 3 questions" in told
        assert "broken.png (no picture that can be decoded)" in told
        assert "lost.png (No such file or directory)" in told

    def test_a_folder_that_does_not_match_its_questions(self, own, tmp_path):
        for path in own.glob("*.jpg"):
            path.unlink()
        with pytest.raises(DataError, match=r"^2 of 2 pictures of train are left out") as error:
            load(own, tmp_path)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("a.jpg\tWhat?", r"train.tsv, line 4: expected a picture, a tab"),
            ("a.jpg\t\tx", r"train.tsv, line 4: expected a picture, a tab"),
        ],
    )
    def test_wrong_lines(self, own, tmp_path, line, message):
        with (own / "train.tsv").open("a") as file:
            file.write(line + "\n")
        with pytest.raises(DataError, match=message):
            load(own, tmp_path)

    def test_an_empty_folder(self, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match=r"no training data: train.tsv .* or VQA v2's"):
            load(tmp_path / "empty", tmp_path)

    def test_the_layout_of_vqa(self, tmp_path):
        folder = coco(tmp_path / "vqa")
        splits = datasets.splits(load(folder, tmp_path))
        assert set(splits) == {"train", "valid"}
        [first] = visual.read(splits["valid"])
        assert first.image_id == "COCO_val2014_000000000007.jpg"
        assert first.questions == ["How many dogs?"]
        # "2", from people who wrote it as "two" too, is the most frequent.
        assert first.answers == [["2"] * 6 + ["3"] * 3 + ["many"]]

    def test_a_question_of_vqa_without_annotation(self, tmp_path):
        folder = coco(tmp_path / "vqa")
        path = folder / "v2_mscoco_train2014_annotations.json"
        path.write_text(json.dumps({"annotations": []}))
        with pytest.raises(DataError, match=r"has no answers to 1 of 1 questions.*'How many dogs"):
            load(folder, tmp_path)
        path.write_text("{")
        with pytest.raises(DataError, match="not in VQA v2's layout: JSONDecodeError"):
            load(folder, tmp_path)
        path.unlink()
        with pytest.raises(DataError, match=r"annotations.json: there is no such file"):
            load(folder, tmp_path)


def coco(folder):
    answers = ["many", *["3"] * 3, *["two"] * 4, "The 2.", "2"]
    for name in ("train2014", "val2014"):
        (folder / name).mkdir(parents=True)
        (folder / name / f"COCO_{name}_000000000007.jpg").write_bytes(picture(form="jpg"))
        asked = [{"image_id": 7, "question": "How many dogs?", "question_id": 70}]
        path = folder / f"v2_OpenEnded_mscoco_{name}_questions.json"
        path.write_text(json.dumps({"questions": asked}))
        given = [{"question_id": 70, "answers": [{"answer": a} for a in answers]}]
        path = folder / f"v2_mscoco_{name}_annotations.json"
        path.write_text(json.dumps({"annotations": given}))
    return folder


def archive(path, files: dict[str, bytes]):
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as file:
        for name, contents in files.items():
            file.writestr(name, contents)


class TestPublished:
    def test_easy_vqa(self, tmp_path):
        root = "easy-VQA-x/easy_vqa/data"
        files = {"easy-VQA-x/": b""}
        for split, count in (("train", 20), ("test", 3)):
            rows = [[f"is it {k}?", "yes", k] for k in range(count) for _ in range(2)]
            files[f"{root}/{split}/questions.json"] = json.dumps(rows).encode()
            for k in range(count):
                files[f"{root}/{split}/images/{k}.png"] = picture(value=k)
        archive(tmp_path / "manual/easy_vqa" / visual_questions._EASY_VQA.name, files)
        where = {"manual_dir": tmp_path / "manual", "data_dir": tmp_path / "data"}
        splits = datasets.splits(datasets.builder("easy_vqa", **where))
        names = {
            split: {each.image_id for each in visual.read(rows)} for split, rows in splits.items()
        }
        assert names["valid"] == {"0", "10"}
        assert len(names["train"]) == 18
        assert names["test"] == {"0", "1", "2"}
        for example in splits["valid"]:
            pixels = tf.io.decode_image(example["image"])
            assert int(pixels[0, 0, 0]) == int(example["image_id"].numpy())

    def test_daquar_loses_the_names_of_pictures(self, tmp_path):
        questions = [
            "what is left of the bed in the image1 ?\ntable",
            "how many chairs are there in this image2?\n2",
            "what is red in the image3 ?\nbook, cup",
        ]
        files = {"all_qa_pairs.txt": "\n".join(questions).encode()}
        files |= {f"images/image{k}.jpg": picture(form="jpg") for k in (1, 2, 3)}
        files["train_images_list.txt"] = b"image1\nimage2\n"
        files["test_images_list.txt"] = b"image3\n"
        archive(tmp_path / "manual/daquar/daquar.zip", files)
        where = {"manual_dir": tmp_path / "manual", "data_dir": tmp_path / "data"}
        splits = datasets.splits(datasets.builder("daquar", **where))
        [held] = visual.read(splits["valid"])
        [kept] = visual.read(splits["train"])
        [test] = visual.read(splits["test"])
        assert held.questions == ["what is left of the bed ?"]
        assert kept.questions == ["how many chairs are there ?"]
        assert (test.questions, test.answers) == (["what is red ?"], [["book, cup"]])

    def test_what_is_missing_is_named(self, tmp_path):
        where = {"manual_dir": tmp_path / "manual", "data_dir": tmp_path / "data"}
        files = {
            "all_qa_pairs.txt": b"what is it in the image1 ?\nbed",
            "train_images_list.txt": b"image1",
            "test_images_list.txt": b"image1",
        }
        (tmp_path / "manual").mkdir()
        with pytest.raises(DataError, match=r"put daquar/daquar.zip, the zipped files of https"):
            datasets.builder("daquar", **where)
        archive(tmp_path / "manual/daquar/daquar.zip", files)
        with pytest.raises(DataError, match=r"daquar.zip: There is no item named 'images/image1"):
            datasets.builder("daquar", **where)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("The dog.", "dog"),
        ("two  DOGS", "2 dogs"),
        ("none", "0"),
        ("dont know", "don't know"),
        ("3.5", "3.5"),
        ("1,000", "1000"),
        ("black/white", "black white"),
        ("yes!", "yes"),
        ("", ""),
    ],
)
def test_answers_are_spelled_as_vqa_s_evaluation_does(given, expected):
    assert visual.normalize_answer(given) == expected


ASKED = [
    Asked("a", ["is it red ?", "what is it ?"], [["yes"], ["cat"]]),
    Asked("b", ["is it ?"], [["no"]]),
    Asked("c", ["what is that thing ?"], [["zebra"]]),
]
ENTRIES = ["[PAD]", "[UNK]", "is", "it", "?", "what", "red"]


def batches(**options):
    pictures = np.arange(3 * 4 * 4 * 3, dtype="uint8").reshape(3, 4, 4, 3)
    encoder = text.Encoder(ENTRIES)
    options = {"batch_size": 2, **options}
    return visual.question_batches(ASKED, pictures, encoder, ["yes", "no", "cat"], **options)


class TestBatches:
    def test_pictures_with_all_their_questions(self):
        (features, labels), (last, unknown) = batches()
        assert features["tokens"].numpy().tolist() == [
            [[2, 3, 6, 4], [5, 2, 3, 4]],
            [[2, 3, 4, 0], [0, 0, 0, 0]],
        ]
        assert labels.numpy().tolist() == [
            [[FIRST_ANSWER], [FIRST_ANSWER + 2]],
            [[FIRST_ANSWER + 1], [NO_QUESTION]],
        ]
        assert features["image"].shape == (2, 4, 4, 3)
        np.testing.assert_array_equal(last["image"][0], np.arange(96, 144).reshape(4, 4, 3))
        assert unknown.numpy().tolist() == [[[UNKNOWN_ANSWER]]]

    def test_rounds_are_questions_with_their_answers(self):
        features, _ = next(iter(batches(rounds=True)))
        assert features["rounds"].numpy().tolist()[0] == [[2, 3, 6, 4, 1], [5, 2, 3, 4, 1]]

    def test_each_epoch_has_an_order_and_disturbances_of_its_own(self):
        def epochs(seed):
            made = batches(
                shuffle=seed, batch_size=3, augmentation=visual.Augmentation(1, 0.2, 0.3)
            )
            return [next(iter(made))[0]["image"].numpy() for _ in range(3)]

        one, same, other = epochs(1), epochs(1), epochs(2)
        for a, b in zip(one, same, strict=True):
            np.testing.assert_array_equal(a, b)
        assert not np.array_equal(one[0], one[1])
        assert not np.array_equal(one[0], other[0])

    def test_static_shapes(self):
        shapes = {
            tuple(x.shape)
            for features, labels in batches(static=True, batch_size=1, rounds=True)
            for x in (*features.values(), labels)
        }
        assert shapes == {(1, 2, 5), (1, 2, 6), (1, 4, 4, 3), (1, 2, 1)}

    def test_without_pictures(self):
        made = visual.question_batches(ASKED, None, text.Encoder(ENTRIES), ["yes"], 3)
        features, _ = next(iter(made))
        assert set(features) == {"tokens"}


class TestPictures:
    def test_every_form_is_decoded_and_resized(self):
        files = [picture(9, 77), picture(20, 77, "jpg")]
        found = image.decode_all(tf.constant(files), 6)
        assert found.shape == (2, 6, 6, 3)
        np.testing.assert_allclose(found, 77, atol=2)

    def test_made_smaller_nothing_is_skipped(self):
        stripes = np.zeros((8, 8, 3), "uint8")
        stripes[::2] = 200
        found = image.decode(tf.io.encode_png(stripes), 2)
        np.testing.assert_allclose(found, 100, atol=15)

    def test_pixels_are_whole_numbers_as_training_keeps_them(self):
        noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), "uint8")
        found = image.decode(tf.io.encode_png(noise), 5)
        np.testing.assert_array_equal(found, found.numpy().astype("uint8"))

    def test_disturbances_stay_in_bounds(self):
        pixels = tf.cast(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)), tf.float32)
        moved = image.disturb(pixels, [1, 2], shift=2)
        assert set(moved.numpy().ravel()) <= set(pixels.numpy().ravel())
        lit = image.disturb(pixels, [1, 2], light=0.5).numpy()
        assert lit.min() >= 0
        assert lit.max() <= 255
        assert np.abs(lit - pixels).mean() > 1
        np.testing.assert_array_equal(image.disturb(pixels, [1, 2]), pixels)


class TestStored:
    def test_once(self, tmp_path):
        asked = []

        def function(files):
            asked.append(1)
            return (
                tf.ones([tf.shape(files)[0], 2])
                * tf.cast(tf.strings.length(files), "float32")[:, None]
            )

        rows = tf.data.Dataset.from_tensor_slices({"image": [b"a", b"bbb", b"cc"]})
        path = tmp_path / "x.npy"
        found = visual.stored(rows, path, function, "float16", batch_size=2)
        assert found.tolist() == [[1, 1], [3, 3], [2, 2]]
        traced = len(asked)
        visual.stored(rows, path, function, "float16")
        assert len(asked) == traced
        assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]

    def test_nothing_half_written_stays(self, tmp_path):
        rows = tf.data.Dataset.from_tensor_slices({"image": [picture(), b"broken"]})
        with pytest.raises(tf.errors.InvalidArgumentError):
            visual.stored(rows, tmp_path / "x.npy", lambda f: image.decode_all(f, 4), "uint8", 1)
        assert list(tmp_path.iterdir()) == []


class TestRegions:
    def test_both_forms(self, tmp_path):
        arrays = {"a": np.ones((2, 3), "float32"), "b": np.full((1, 3), 2, "float32")}
        np.savez(tmp_path / "x.npz", **arrays)
        with tf.io.TFRecordWriter(str(tmp_path / "x.tfrecord")) as writer:
            for name, array in arrays.items():
                feature = {
                    "image_id": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[name.encode()])
                    ),
                    "features": tf.train.Feature(
                        float_list=tf.train.FloatList(value=array.ravel())
                    ),
                    "shape": tf.train.Feature(int64_list=tf.train.Int64List(value=array.shape)),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
        for path in (tmp_path / "x.npz", tmp_path / "x.tfrecord"):
            found = visual.read_regions(path)
            padded = visual.regions_of(found, ["b.jpg", "a"], path)
            assert padded.tolist() == [[[2, 2, 2], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]]
            with pytest.raises(DataError, match=r"no regions for 1 of 2 pictures, such as c.jpg"):
                visual.regions_of(found, ["a", "c.jpg"], path)

    def test_wrong_files(self, tmp_path):
        with pytest.raises(DataError, match="there is no such file of regions"):
            visual.read_regions(tmp_path / "none.npz")
        (tmp_path / "text.npz").write_text("no arrays")
        with pytest.raises(DataError, match=r"neither an .npz file nor TFRecords"):
            visual.read_regions(tmp_path / "text.npz")
        (tmp_path / "text.tfrecord").write_text("no records at all, but for some words")
        with pytest.raises(DataError, match=r"neither an .npz file nor TFRecords"):
            visual.read_regions(tmp_path / "text.tfrecord")
        np.savez(tmp_path / "flat.npz", a=np.ones(3))
        with pytest.raises(DataError, match=r"a has the shape \(3,\), not \[S, D\]"):
            visual.read_regions(tmp_path / "flat.npz")
        np.savez(tmp_path / "two.npz", a=np.ones((1, 3)), b=np.ones((1, 4)))
        with pytest.raises(DataError, match=r"one width are needed, got \[3, 4\]"):
            visual.read_regions(tmp_path / "two.npz")
