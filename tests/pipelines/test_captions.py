"""Pictures with captions: drawn scenes and clips, published and own files, batches."""

import json
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines import captions, datasets, image, text
from unroll.pipelines.captions import END, PADDING, START, UNKNOWN, Captioned
from unroll.pipelines.datasets import sources
from unroll.pipelines.datasets.vision import scenes, scenes_captions, scenes_clips
from unroll.pipelines.errors import DataError
from unroll.pipelines.visual import Augmentation

ENTRIES = [*captions.ENTRIES, "a", "dog", "runs"]


def picture(side: int = 8, value: int = 120) -> bytes:
    return tf.io.encode_jpeg(np.full((side, side + 2, 3), value, "uint8")).numpy()


class TestScenes:
    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_five_captions_name_every_thing(self, count):
        for k in range(40):
            rng = np.random.default_rng([k, count])
            things = scenes.draw(rng, "test", count)
            told = scenes_captions.captions(things, rng)
            assert len(set(told)) == 5
            for caption in told:
                for thing in things:
                    assert f"{thing.colour} {thing.shape}" in caption
                assert sum(caption.count(shape) for shape in scenes.SHAPES) == count

    def test_each_order_is_that_of_the_scene(self):
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
    def test_things_move_as_it_is_told(self):
        for k in range(30):
            rng = np.random.default_rng(k)
            things = scenes.draw(rng, "train", 2)
            moves = scenes_clips.draw_moves(things, rng)
            pictures, labels = scenes_clips.film(things, moves, rng)
            moving = [label for label in labels if label != scenes_clips.STILL]
            assert moving == [way for _, way in moves for _ in range(3)]
            for before, after, label in zip(pictures, pictures[1:], labels[1:], strict=False):
                changed = np.abs(before.astype(int) - after).max() > 50  # more than noise
                assert changed == (label != scenes_clips.STILL)
            told = scenes_clips.captions(things, moves, rng)
            assert len(set(told)) == 5

    def test_a_gif_is_what_was_drawn(self):
        rng = np.random.default_rng(0)
        things = scenes.draw(rng, "train", 2)
        pictures, _ = scenes_clips.film(things, scenes_clips.draw_moves(things, rng), rng)
        contents = scenes_clips.encode_gif(pictures)
        found = image.decode_clip(contents, scenes.SIDE, scenes_clips.FRAMES)
        # A GIF has 256 colours.
        assert np.abs(found - np.array(pictures, "float32")).mean(axis=(1, 2, 3)).max() < 3
        fewer = image.decode_clip(contents, 32, 3)
        assert fewer.shape == (3, 32, 32, 3)
        np.testing.assert_allclose(
            image.decode_clip(contents, scenes.SIDE, 2), tf.gather(found, [0, 9])
        )

    def test_a_picture_is_a_clip_that_stands_still(self):
        found = image.decode_clips(tf.constant([picture(), picture(20)]), 4, 3)
        assert found.shape == (2, 3, 4, 4, 3)
        np.testing.assert_allclose(found, 120, atol=3)

    def test_all_frames_are_disturbed_alike(self):
        frame = tf.random.stateless_uniform([1, 1, 8, 8, 3], [1, 2], maxval=200)
        options = {"shift": 2, "zoom": 0.5, "light": 0.2, "flip": True}
        clips = tf.tile(frame, [2, 3, 1, 1, 1])
        found = image.disturb(clips, [3, 4], **options)
        np.testing.assert_allclose(found, tf.repeat(found[:, :1], 3, axis=1))
        assert np.abs(found[0] - found[1]).mean() > 1  # each clip in another way
        np.testing.assert_allclose(
            found[:, 0], image.disturb(clips[:, 0], [3, 4], **options), atol=1e-4
        )

    def test_zoom_enlarges_a_part_of_at_least_the_size_that_is_allowed(self):
        rows = tf.broadcast_to(tf.range(32.0)[:, None, None], [32, 32, 3])
        sides = []
        for found in image.disturb(tf.repeat(rows[None], 50, axis=0), [1, 0], zoom=0.5):
            np.testing.assert_allclose(
                found, tf.broadcast_to(found[:, :1, :1], rows.shape), atol=1e-3
            )
            steps = np.diff(found[:, 0, 0])
            np.testing.assert_allclose(steps, steps[0], atol=1e-3)
            sides.append(steps[0])
        assert min(sides) >= 0.5 - 1e-3
        assert max(sides) <= 1
        assert max(sides) - min(sides) > 0.4


def flickr(folder, tokens="a.jpg#0\tA dog .\na.jpg#1\tIt runs .\nb.jpg#0\tTwo\nc.jpg.1#0\tX\n"):
    (folder / "flickr8k").mkdir()
    with zipfile.ZipFile(folder / "flickr8k" / "Flickr8k_Dataset.zip", "w") as archive:
        for name in "ab":
            archive.writestr(f"Flicker8k_Dataset/{name}.jpg", picture())
    with zipfile.ZipFile(folder / "flickr8k" / "Flickr8k_text.zip", "w") as archive:
        archive.writestr("Flickr8k.token.txt", tokens)
        for split, names in (("train", "a.jpg\n"), ("dev", "b.jpg\n"), ("test", "b.jpg\n")):
            archive.writestr(f"Flickr_8k.{split}Images.txt", names)
    return {"manual_dir": folder, "data_dir": folder / "prepared"}


class TestPublished:
    def test_flickr8k(self, tmp_path):
        where = flickr(tmp_path)
        [found] = captions.read(datasets.load("flickr8k", "train", **where))
        assert found == Captioned("a.jpg", ["a dog", "it runs"])
        assert len(datasets.load("flickr8k", "test", **where)) == 1

    def test_what_is_broken_is_named(self, tmp_path):
        where = flickr(tmp_path, tokens="a.jpg#0\tA dog .\nno caption\n")
        with pytest.raises(DataError, match=r"Flickr8k.token.txt, line 2: expected .* 'no cap"):
            datasets.load("flickr8k", "train", **where)

    def test_a_photo_without_captions(self, tmp_path):
        where = flickr(tmp_path, tokens="a.jpg#0\tA dog .\n")
        with pytest.raises(DataError, match=r"Flickr8k_Dataset.zip: b.jpg has no photo or no cap"):
            datasets.load("flickr8k", "train", **where)

    def test_coco_s_captions_by_tfds(self, tmp_path, monkeypatch):
        def photos_of(builder, decoders, **_):
            assert decoders["image"]  # the file as it is
            rows = {"image": [picture()], "image/filename": ["7.jpg"]}
            told = {"captions": {"text": [["A dog.", "It runs"]], "id": [[1, 2]]}}
            return tf.data.Dataset.from_tensor_slices(rows | told)

        monkeypatch.setattr(sources, "require_reachable", lambda *_: None)
        with tfds.testing.mock_data(as_dataset_fn=photos_of):
            made = datasets.builder("coco_captions", data_dir=tmp_path)
            splits = datasets.splits(made)
            assert list(splits) == ["train", "valid", "test"]
            found = captions.read(splits["valid"])
        assert found == [Captioned("7.jpg", ["a dog", "it runs"])]


def load(folder, tmp_path):
    return datasets.builder(str(folder), folder="captioned", data_dir=tmp_path / "prepared")


@pytest.fixture
def own(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(picture())
    (folder / "captions.tsv").write_text("a.jpg\tA dog.\nb.jpg\tIt runs\na.jpg\tA pup\n")
    return folder


class TestOwnFiles:
    def test_a_table(self, own, tmp_path):
        (own / "valid.tsv").write_text("b.jpg\tA cat\n")
        splits = datasets.splits(load(own, tmp_path))
        assert set(splits) == {"train", "valid"}
        found = {each.image_id: each.captions for each in captions.read(splits["train"])}
        assert found == {"a.jpg": ["a dog", "a pup"], "b.jpg": ["it runs"]}

    def test_captions_without_their_picture_are_counted_and_named(self, own, tmp_path, capsys):
        (own / "broken.jpg").write_text("no picture")
        with (own / "captions.tsv").open("a") as file:
            file.write("broken.jpg\tx\nlost.jpg\ty\nlost.jpg\tz\n")
        assert len(captions.read(datasets.read(load(own, tmp_path), "train"))) == 2
        told = capsys.readouterr().err
        assert "2 of 4 pictures of train are left out, with 3 captions" in told
        assert "broken.jpg (no picture that can be decoded)" in told
        assert "lost.jpg (No such file or directory)" in told

    def test_wrong_folders(self, own, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match=r"no training data: captions.tsv .* or COCO's"):
            load(tmp_path / "empty", tmp_path)
        (own / "captions.tsv").write_text("a.jpg\n")
        with pytest.raises(DataError, match=r"captions.tsv, line 1: expected a picture, a tab, a"):
            load(own, tmp_path)
        (own / "captions.tsv").write_text("\n")
        with pytest.raises(DataError, match=r"has no captions \(train\)"):
            load(own, tmp_path)

    @pytest.mark.parametrize("year", [2014, 2017])
    def test_coco_s_layout(self, tmp_path, year):
        folder = tmp_path / "coco"
        (folder / "annotations").mkdir(parents=True)
        for split in ("train", "val"):
            (folder / f"{split}{year}").mkdir()
            (folder / f"{split}{year}" / "7.jpg").write_bytes(picture())
            told = {
                "images": [{"id": 7, "file_name": "7.jpg"}],
                "annotations": [{"image_id": 7, "caption": c} for c in ("A dog.\n", "Dogs")],
            }
            path = folder / "annotations" / f"captions_{split}{year}.json"
            path.write_text(json.dumps(told))
        splits = datasets.splits(load(folder, tmp_path))
        assert set(splits) == {"train", "valid"}
        assert captions.read(splits["valid"]) == [Captioned("7.jpg", ["a dog", "dogs"])]
        path.write_text(json.dumps(told | {"images": []}))
        with pytest.raises(DataError, match="has no image for 2 of 2 captions, such as that of 7"):
            load(folder, tmp_path)
        path.write_text("[]")
        with pytest.raises(DataError, match="is not in COCO's layout: TypeError"):
            load(folder, tmp_path)


class TestWords:
    def test_the_vocabulary_has_what_occurs_often(self):
        told = [Captioned("a", ["a dog runs", "a dog"]), Captioned("b", ["a cat"])]
        assert captions.build_vocabulary(told, 2) == [*captions.ENTRIES, "a", "dog"]

    def test_words_that_the_vocabulary_lacks_are_told_apart(self):
        found = captions.ids(["a cat", "a cow runs", ""], text.Vocabulary(ENTRIES)).to_list()
        assert (found[0][0], found[1][0], found[1][2], found[2]) == (4, 4, 6, [])
        assert found[0][1] != found[1][1]
        assert min(found[0][1], found[1][1]) >= len(ENTRIES)


TOLD = [
    Captioned("one", ["a dog runs", "a cat"]),
    Captioned("two", ["dog"]),
    Captioned("three", ["runs a dog a dog", "dog"]),
]
PIXELS = np.arange(3 * 4 * 4 * 3, dtype="uint8").reshape(3, 4, 4, 3)


def batches(pictures=PIXELS, size=2, **options):
    vocabulary = text.Vocabulary(ENTRIES)
    return captions.caption_batches(TOLD, pictures, vocabulary, size, **options)


class TestBatches:
    def test_a_picture_with_all_its_captions(self):
        features, labels = next(iter(batches()))
        np.testing.assert_array_equal(features["image"], PIXELS[:2])
        np.testing.assert_array_equal(
            features["tokens"],
            [[[START, 4, 5, 6], [START, 4, UNKNOWN, 0]], [[START, 5, 0, 0], [PADDING] * 4]],
        )
        unknown = int(labels[0, 1, 1])
        assert unknown >= len(ENTRIES)
        np.testing.assert_array_equal(
            labels, [[[4, 5, 6, END], [4, unknown, END, 0]], [[5, END, 0, 0], [0] * 4]]
        )

    def test_long_captions_are_cut(self):
        *_, (features, labels) = batches(max_length=2)
        np.testing.assert_array_equal(labels, [[[6, 4, END], [5, END, 0]]])
        np.testing.assert_array_equal(features["tokens"][0, 0], [START, 6, 4])

    def test_captions_are_drawn_anew_in_each_epoch(self):
        made = batches(size=1, shuffle=1, drawn=1)
        seen = {}
        for _ in range(8):
            for features, labels in made:
                assert labels.shape[1] == 1
                words = tuple(k for k in labels[0, 0].numpy().tolist() if k < len(ENTRIES))
                seen.setdefault(int(features["image"][0, 0, 0, 0]), set()).add(words)
        numbers = PIXELS[:, 0, 0, 0].tolist()
        assert [len(seen[number]) for number in numbers] == [2, 1, 2]
        one, other = (batches(size=1, shuffle=1, drawn=1) for _ in range(2))
        for (_, labels), (_, again) in zip(one, other, strict=True):
            np.testing.assert_array_equal(labels, again)
        static = batches(static=True, drawn=1).element_spec[1]
        assert static.shape[1] == 1

    def test_static_shapes(self):
        clips = np.zeros((3, 2, 4, 4, 3), "uint8")
        frames = np.array([[0, 1], [1, 1], [2, 0]], "int32")
        made = batches(
            clips, static=True, frames=frames, augmentation=Augmentation(1, 0.5, 0.1, True)
        )
        [(features, labels)] = made
        assert features["tokens"].shape == (2, 2, 6)
        assert features["image"].shape == (2, 2, 4, 4, 3)
        np.testing.assert_array_equal(labels["frames"], frames[:2])
        assert None not in made.element_spec[1]["captions"].shape

    def test_features_are_regions(self):
        features, _ = next(iter(batches(np.ones((3, 5, 7), "float32"))))
        assert features["regions"].shape == (2, 5, 7)

    def test_each_epoch_has_its_own_order(self):
        made = batches(shuffle=1, size=1)
        orders = [[int(x["image"][0, 0, 0, 0]) for x, _ in made] for _ in range(3)]
        assert len({tuple(order) for order in orders}) > 1
        assert [[int(x["image"][0, 0, 0, 0]) for x, _ in batches(shuffle=1, size=1)]] == orders[:1]


class TestFrames:
    ROWS = tf.data.Dataset.from_tensors({"frames": ["still", "left", "left", "up", "still"]})

    def test_labels_of_the_frames_that_are_taken(self):
        assert captions.labels_of_frames(self.ROWS) == ["left", "still", "up"]
        found = captions.frame_labels(self.ROWS, ["left", "still", "up"], 3)
        np.testing.assert_array_equal(found, [[1, 0, 1]])

    def test_an_unknown_label(self):
        with pytest.raises(DataError, match="labelled 'up'; known are left, still"):
            captions.frame_labels(self.ROWS, ["left", "still"], 5)
