"""The registry of datasets: names, sizes, splits, slices."""

import functools

import pytest
import tensorflow as tf

from unroll.pipelines import datasets
from unroll.pipelines.datasets.sentiment import reviews
from unroll.pipelines.datasets.speech.fsdd import SPEAKERS
from unroll.pipelines.errors import DataError

SMALL = 0.02  # of `reviews`: 80 / 10 / 20
SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with small reviews, prepared."""
    folder = tmp_path_factory.mktemp("prepared")
    datasets.splits(datasets.builder("reviews", size=SMALL, data_dir=folder))
    return folder


def texts(split: str, data_dir, size: float = SMALL) -> list[tuple[str, int]]:
    dataset = datasets.load("reviews", split, size=size, data_dir=data_dir)
    return [(e["text"].decode(), int(e["label"])) for e in dataset.as_numpy_iterator()]


def test_names():
    sentiment = {"imdb", "reviews", "sst2", "sst5"}
    tagging = {"atis", "flights", "snips"}
    without = {f"fsdd_without_{speaker}" for speaker in SPEAKERS}
    speech = {"an4", "fsdd", "fsdd_strings", "librispeech", "spoken_digits"} | without
    questions = {"daquar", "easy_vqa", "scenes_dialog", "scenes_qa"}
    captions = {"coco_captions", "flickr8k", "scenes_captions", "scenes_clips"}
    stories = {"babi", "babi_10k", "stories"}
    key_terms = {"articles", "inspec", "semeval2017"}
    language = {"grammar", "ptb", "ptb_characters", "tiny_shakespeare", "wiki10m"}
    language |= {"word_questions", "world"}
    series = {"air_passengers", "etth1", "etth2", "exchange_rate", "m4_hourly", "seasons"}
    series |= {"stocknet", "sunspots"}
    translation = {"dailydialog", "multi30k", "phrases", "tatoeba_zh_en"}
    groups = (sentiment, tagging, speech, questions, captions, stories, language, key_terms)
    assert datasets.names() == sorted(series.union(translation, *groups))
    assert set(datasets.GENERATED) == {
        *(
            "articles",
            "flights",
            "grammar",
            "phrases",
            "reviews",
            "scenes_captions",
            "scenes_clips",
        ),
        *("scenes_dialog", "scenes_qa", "seasons", "spoken_digits", "stories", "world"),
    }


def test_unknown_name(tmp_path):
    with pytest.raises(DataError) as error:
        datasets.builder("sst3", data_dir=tmp_path)
    assert all(word in str(error.value) for word in ("'sst3'", *datasets.names(), "folder"))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_unknown_kind(tmp_path):
    with pytest.raises(DataError, match=r"^kind must be one of captions, .*, got 'texts'\.$"):
        datasets.builder(str(tmp_path), kind="texts", data_dir=tmp_path)


class TestSize:
    @pytest.mark.parametrize("name", datasets.GENERATED)
    def test_small_dataset(self, name, tmp_path):
        builder = datasets.builder(name, size=0.01, data_dir=tmp_path)
        made = builder.source
        kinds = 8 if name == "stories" else 1  # the sizes of `stories` are for each kind
        for split in SPLITS:
            expected = max(round(0.01 * made.SIZES[split]), made.MIN_SIZE) * kinds
            assert len(datasets.read(builder, split)) == expected >= 8
            # Sizes and splits do not share a folder.
            assert builder.folder(split) == tmp_path / name / f"size_0.01-{split}" / str(
                made.version
            )

    def test_default_is_size_one(self, tmp_path):
        assert reviews.Reviews(data_dir=tmp_path).sizes == reviews.SIZES
        builder = datasets.builder("reviews", size=1, data_dir=tmp_path)
        assert builder.folder("valid") == tmp_path / "reviews/valid" / str(reviews.Reviews.VERSION)

    def test_deterministic(self, prepared, tmp_path):
        assert texts("test", tmp_path) == texts("test", prepared)

    def test_sizes_beside_each_other(self, prepared):
        other = texts("train", prepared, size=0.01)
        assert len(other) == 40
        assert len(texts("train", prepared)) == 80
        assert set(other) < set(texts("train", prepared))

    @pytest.mark.parametrize("size", [0, -1, float("nan")])
    def test_not_positive(self, size, tmp_path):
        with pytest.raises(DataError, match="size must be greater than 0, got"):
            datasets.builder("reviews", size=size, data_dir=tmp_path)

    @pytest.mark.parametrize("name", ["sst2", "folder"])
    def test_not_generated(self, name, tmp_path):
        name = str(tmp_path) if name == "folder" else name
        with pytest.raises(DataError) as error:
            datasets.builder(name, size=0.5, data_dir=tmp_path)
        assert str(error.value).startswith(f"size=0.5: {name} is not generated. A size other than")
        assert "\n" not in str(error.value)


class TestSplits:
    def test_only_named_splits_are_read(self, prepared, monkeypatch):
        builder = datasets.builder("reviews", size=SMALL, data_dir=prepared)
        read, original = [], builder.read

        def record(split):
            read.append(split)
            return original(split)

        monkeypatch.setattr(builder, "read", record)
        assert list(datasets.splits(builder, ["test"])) == ["test"]
        assert list(datasets.splits(builder, ("valid", "train"))) == ["valid", "train"]
        assert read == ["test", "valid", "train"]
        assert list(datasets.splits(builder)) == list(SPLITS) == datasets.split_names(builder)
        assert len(datasets.splits(builder, ["valid"])["valid"]) == 10

    def test_unknown_split(self, prepared):
        builder = datasets.builder("reviews", size=SMALL, data_dir=prepared)
        with pytest.raises(DataError, match="no split 'dev'; it has train, valid, test"):
            datasets.splits(builder, ["train", "dev"])

    def test_last_tenth_of_training_validates(self, prepared, monkeypatch):
        builder = datasets.builder("reviews", size=SMALL, data_dir=prepared)
        monkeypatch.setattr(builder, "split_names", ("train", "test"))
        assert datasets.split_names(builder) == ["train", "test", "valid"]
        found = datasets.splits(builder, ["train", "valid"])
        assert {name: len(rows) for name, rows in found.items()} == {"train": 72, "valid": 8}
        assert list(found["valid"].as_numpy_iterator()) == list(
            datasets.read(builder, "train[90%:]").as_numpy_iterator()
        )

    def test_own_files_hold_out_their_own_tenth(self, tmp_path):
        folder = tmp_path / "own"
        folder.mkdir()
        rows = "".join(f"text {k}\t{k % 2}\n" for k in range(20))
        (folder / "train.tsv").write_text(f"text\tlabel\n{rows}")
        builder = datasets.builder(str(folder), data_dir=tmp_path / "prepared")
        assert datasets.split_names(builder) == ["train", "valid"]
        sizes = {name: len(rows) for name, rows in datasets.splits(builder).items()}
        assert sizes == {"train": 18, "valid": 2}


class TestLoad:
    @pytest.mark.parametrize(
        ("split", "reason"),
        [
            ("dev", "it has train, valid, test, and slices such as 'train[:90%]'."),
            ("", "it has train, valid, test, and slices such as 'train[:90%]'."),
            ("train+dev", "it has train, valid, test, and slices such as 'train[:90%]'."),
            *(
                (f"train[{bounds}", "train has 80 examples, and the slice is empty or not")
                for bounds in (":x%]", "", ":0%]", ":99999]", "40:40]")
            ),
        ],
    )
    def test_unknown_split(self, split, reason, prepared):
        with pytest.raises(DataError) as error:
            texts(split, prepared)
        message = str(error.value)
        assert message.startswith(f"reviews has no split {split!r}")
        assert reason in message
        assert "\n" not in message

    def test_slices_and_sums_of_splits(self, prepared):
        load = functools.partial(texts, data_dir=prepared)
        assert load("train[:90%]") + load("train[90%:]") == load("train")
        assert sorted(load("valid+test[:10]")) == sorted(load("valid") + load("test[:10]"))

    def test_element_spec(self, prepared):
        dataset = datasets.load("reviews", "train", size=SMALL, data_dir=prepared)
        assert dataset.element_spec == {
            "text": tf.TensorSpec((), tf.string),
            "label": tf.TensorSpec((), tf.int64),
        }

    def test_order_is_always_the_same(self, prepared, tmp_path):
        first = texts("valid", prepared)
        assert first == texts("valid", prepared)
        assert first == texts("valid", tmp_path)


class TestPreparation:
    def test_prints_nothing(self, tmp_path, capfd):
        datasets.load("reviews", "test", size=SMALL, data_dir=tmp_path)
        assert capfd.readouterr() == ("", "")

    def test_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match=r"^reviews cannot be prepared in .*file"):
            datasets.load("reviews", "test", data_dir=tmp_path / "file")

    def test_another_process_prepares_it_meanwhile(self, tmp_path, monkeypatch):
        generate = reviews.generate

        def slowly(sizes):
            monkeypatch.setattr(reviews, "generate", generate)
            datasets.load("reviews", "valid", size=SMALL, data_dir=tmp_path)
            return generate(sizes)

        monkeypatch.setattr(reviews, "generate", slowly)
        assert len(texts("valid", tmp_path)) == 10
        folder = tmp_path / "reviews" / f"size_{SMALL}-valid"
        assert [path.name for path in folder.iterdir()] == [str(reviews.Reviews.VERSION)]
