"""Units, vocabularies, ids on disk and the streams of language models."""

import gc
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from unroll.pipelines import language_modeling as modeling
from unroll.pipelines.errors import DataError

PIECES = ['the dog said " hi there " .\nnew line, ok\n\n', "zwei drei vier fünf\n"] * 20
TEXTS = ["", "\n", "the dog\n\nhi ok", "fünf 漢字 😀\r\nfive\n", "  the   dog "]


def pieces(texts=PIECES) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(texts)


def made(kind: str, size: int = 60, min_count: int = 1) -> modeling.Units:
    return modeling.Units(kind, *modeling.build_vocabulary(pieces(), kind, size, min_count))


@pytest.fixture(params=modeling.UNITS)
def units(request) -> modeling.Units:
    return made(request.param)


def names(units: modeling.Units, text: str) -> list[str]:
    return [units.vocabulary[k] for k in units(tf.constant([text])).flat_values.numpy()]


def test_vocabularies_begin_with_the_special_units(units):
    assert tuple(units.vocabulary[:2]) == modeling.SPECIAL
    assert len(set(units.vocabulary)) == len(units.vocabulary)


def test_known_texts_are_joined_again(units):
    texts = ["the dog said", 'hi there " .\nzwei\n', "\n", "", "ok\n\nvier"]
    assert [t.decode() for t in units.join(units(tf.constant(texts))).numpy()] == texts


def test_any_text_has_ids(units):
    ids = units(tf.constant([*TEXTS, b"\xff\xfe broken"]))
    assert ids.dtype == tf.int32
    flat = ids.flat_values.numpy()
    assert flat.min() >= 0
    assert flat.max() < len(units.vocabulary)
    assert ids.to_list()[:2] == [[], [modeling.END]]
    assert (np.array(ids.to_list()[2]) == modeling.END).sum() == 2


def test_a_prompt_is_extended(units):
    ids = units(tf.constant(["the dog\nsaid"] * 3))
    extended = units.extend(tf.constant(["", "x", "x\n"]), ids).numpy()
    between = b"" if units.kind == "characters" else b" "
    assert extended.tolist() == [
        b"the dog\nsaid",
        b"x" + between + b"the dog\nsaid",
        b"x\nthe dog\nsaid",
    ]


def test_splitting():
    assert names(made("characters"), "ok\nX") == ["o", "k", "<eos>", "<unk>"]
    assert names(made("words"), "new line,  ok") == ["new", "line,", "ok"]
    assert names(made("words"), "five line\n") == ["<unk>", "<unk>", "<eos>"]
    assert names(made("punctuation"), "new line, ok") == ["new", "line", ",", "ok"]
    expected = ["new", "line", ",", "<eos>", "ok", "<eos>"]
    assert names(made("tokens"), "NEW line,\n\tOK\n") == expected
    assert "".join(names(made("subwords"), "the dog")) == "\u2581the\u2581dog"


def test_equal_subwords_do_not_share_a_tokenizer():
    first, second = made("subwords"), made("subwords")
    expected = first(tf.constant(["the dog"])).to_list()
    del first
    gc.collect()
    assert second(tf.constant(["the dog"])).to_list() == expected


def test_size_and_counts_limit_a_vocabulary():
    assert len(made("words", size=5).vocabulary) == 5
    kept, _ = modeling.build_vocabulary(pieces(["a b a", " c\n"]), "words", 100, min_count=2)
    assert kept == ["<unk>", "<eos>", "a"]
    # Equally frequent ones are in alphabetical order.
    assert modeling.build_vocabulary(pieces(["b c a a"]), "words", 9)[0][2:] == ["a", "b", "c"]


def test_texts_without_units_are_refused():
    for kind in modeling.UNITS:
        with pytest.raises(DataError):
            modeling.build_vocabulary(pieces(["", "\n\n"]), kind, 10)


def test_a_labeled_text_is_a_document():
    text = modeling.document(tf.constant(" A film.<br /><br />Good.\r\n")).numpy()
    assert text == b"A film.\nGood.\n"


def test_ids_are_written_once(units, tmp_path, monkeypatch):
    ids = modeling.ids_on_disk(pieces(), units, tmp_path, "train[:90%]")
    assert isinstance(ids, np.memmap)
    expected = units(tf.constant(["".join(PIECES)])).flat_values.numpy()
    np.testing.assert_array_equal(ids, expected)
    [path] = tmp_path.iterdir()
    assert path.stat().st_size == 2 * len(ids)
    again = modeling.ids_on_disk(pieces(["else"]), units, tmp_path, "train[:90%]")
    np.testing.assert_array_equal(again, expected)


def test_a_failed_writing_leaves_nothing(tmp_path):
    units = made("characters")

    def fail():
        yield "abc"
        raise OSError("disk")

    texts = tf.data.Dataset.from_generator(fail, output_signature=tf.TensorSpec([], tf.string))
    with pytest.raises(tf.errors.OpError):
        modeling.ids_on_disk(texts, units, tmp_path, "train")
    assert list(Path(tmp_path).iterdir()) == []


IDS = np.arange(100, 1103, dtype="uint16")


def columns(dataset: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tokens and the labels of all batches side by side, `[B, N]`, and the starts."""
    batches = list(dataset.as_numpy_iterator())
    tokens = np.concatenate([features["tokens"] for features, _ in batches], axis=1)
    labels = np.concatenate([labels for _, labels in batches], axis=1)
    return tokens, labels, np.array([features["start"] for features, _ in batches])


@pytest.mark.parametrize("block", [5, 12, 10_000])
@pytest.mark.parametrize("random_lengths", [True, False])
def test_training_streams_go_on_from_batch_to_batch(random_lengths, block, monkeypatch):
    monkeypatch.setattr(modeling, "_BLOCK", block)
    dataset = modeling.training_batches(IDS, 4, 20, seed=3, random_lengths=random_lengths)
    assert int(dataset.cardinality()) == len(list(dataset)) == 250 // 20
    firsts = []
    for _ in range(2):
        tokens, labels, start = columns(dataset)
        assert start[0].all()
        # The text is a circle.
        np.testing.assert_array_equal(labels, (tokens - 100 + 1) % 1003 + 100)
        np.testing.assert_array_equal(tokens[:, 1:], labels[:, :-1])
        read = np.sort(tokens.ravel())
        assert len(np.unique(read)) == len(read) == (1000 if random_lengths else 960)
        firsts.append(tokens[0, 0])
    assert firsts[0] != firsts[1]


def test_lengths_and_restarts_are_random():
    spread = modeling.training_batches(np.zeros(200_001, "int32"), 2, 50, seed=0)
    batches = list(spread.as_numpy_iterator())
    lengths = np.array([labels.shape[1] for _, labels in batches])
    assert lengths.sum() == 100_000
    assert lengths.mean() == pytest.approx(50)
    assert 1.5 < lengths.std() < 10
    assert 0.02 < (lengths < 35).mean() < 0.09
    restarts = np.array([features["start"] for features, _ in batches[1:]])
    assert 0.012 < restarts.mean() < 0.028
    assert (restarts.sum(axis=1) == 1).any()
    fixed = modeling.training_batches(IDS, 4, 20, seed=3, random_lengths=False)
    assert fixed.element_spec[1].shape == (4, 20)


def test_training_is_the_same_for_a_seed_and_continues_after_skipped_epochs():
    def epochs(skip: int, seed: int = 5) -> list[np.ndarray]:
        dataset = modeling.training_batches(IDS, 4, 20, seed=seed)
        for _ in range(skip):
            iter(dataset)
        return [columns(dataset)[0] for _ in range(3 - skip)]

    whole, resumed, other = epochs(0), epochs(2), epochs(0, seed=6)
    np.testing.assert_array_equal(whole[2], resumed[0])
    assert whole[0][0, 0] != other[0][0, 0]


def test_an_epoch_can_be_shorter_than_the_text():
    dataset = modeling.training_batches(IDS, 4, 20, seed=0, most=200)
    assert int(dataset.cardinality()) == 2
    tokens, _, _ = columns(dataset)
    assert tokens.size == 200
    assert np.ptp(tokens[:, 0]) > 500
    with pytest.raises(DataError, match="4 units, too few for 4 streams"):
        modeling.training_batches(IDS[:4], 4, 20, seed=0)


@pytest.mark.parametrize("total", [1, 3, 7, 39, 40, 160, 1003])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_each_unit_is_evaluated_once(total, batch_size):
    dataset = modeling.evaluation_batches(IDS[:total], batch_size, 20)
    assert int(dataset.cardinality()) == len(list(dataset))
    tokens, labels, start = columns(dataset)
    counts = labels != modeling.IGNORED
    np.testing.assert_array_equal(labels[counts], IDS[:total])  # row by row, in order
    previous = np.concatenate([[modeling.END], IDS[: total - 1]])
    np.testing.assert_array_equal(tokens[counts], previous)
    assert start[0].all()
    assert not start[1:].any()
    if total >= 160:  # a stream has read the end of the one before it
        assert all(np.argmax(row) == 20 for row in counts[1:])
    assert counts[0, 0]


def test_evaluation_limits():
    _, labels, _ = columns(modeling.evaluation_batches(IDS, 4, 20, most=50))
    assert labels[labels >= 0].tolist() == IDS[:50].tolist()
    with pytest.raises(DataError, match="empty"):
        modeling.evaluation_batches(IDS[:0], 4, 20)


def test_lengths_and_words():
    text = "the dog\n\nhi there\n"
    for kind in ("characters", "words", "subwords"):  # the lengths of others are not known
        units = made(kind)
        ids = units(tf.constant([text])).flat_values.numpy()
        total = modeling.unit_lengths(kind, units.vocabulary)[ids].sum()
        assert total == len(text) - (kind != "characters")  # the end of the empty line
        starts = modeling.starts_of_words(kind, units.vocabulary)
        assert (starts is None) == (kind == "characters")
        if starts is not None:
            assert starts[ids].sum() == 7  # four words, three line ends
    assert np.isnan(modeling.unit_lengths("punctuation", ["<unk>", "<eos>", "a"])).all()
    assert np.isnan(modeling.unit_lengths("words", ["<unk>", "<eos>", "a"])[0])
