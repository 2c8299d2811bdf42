"""Pairs of texts: pieces, ids, batches."""

import numpy as np
import pytest
import tensorflow as tf

from unroll.pipelines import errors
from unroll.pipelines import translation as pairs
from unroll.pipelines.errors import DataError

TEXTS = [
    ("Das (große) Haus, 3.5 m - oder?", "The (big) house isn't small."),
    ("我是一个学生。 OK", "Ja: l'eau... \u201eso\u201c!"),
    ("Ein  Hund\u00a0bellt.\n", "A dog - a cat"),
]
EXAMPLES = [
    {"source": source, "target": target, "history": ["Hallo.", "Wie geht es?"][: k % 3]}
    for k, (source, target) in enumerate(TEXTS * 4)
]


@pytest.fixture(autouse=True)
def messages():
    """Every test prints its messages, although some are the same."""
    errors.report_once.cache_clear()


def dataset(examples=EXAMPLES) -> tf.data.Dataset:
    signature = {side: tf.TensorSpec([], tf.string) for side in pairs.SIDES}
    signature["history"] = tf.TensorSpec([None], tf.string)
    return tf.data.Dataset.from_generator(lambda: iter(examples), output_signature=signature)


@pytest.fixture(scope="module", params=pairs.UNITS)
def tokenizers(request):
    assets = pairs.build_assets(dataset(), request.param, 90)
    return pairs.tokenizers(assets, request.param)


def strings(tensor) -> list:
    """The strings of a tensor, ragged or not."""
    rows = tensor.to_list() if isinstance(tensor, tf.RaggedTensor) else tensor.numpy().tolist()
    return [[s.decode() for s in row] if isinstance(row, list) else row.decode() for row in rows]


class TestTokenizer:
    def test_vocabularies_begin_with_the_special_pieces(self, tokenizers):
        for tokenizer in tokenizers:
            assert tuple(tokenizer.pieces[:5]) == pairs.SPECIAL
            assert tokenizer.size == len(tokenizer.pieces) == len(set(tokenizer.pieces)) <= 90

    def test_known_texts_are_joined_again(self, tokenizers):
        for tokenizer, texts in zip(tokenizers, zip(*TEXTS, strict=True), strict=True):
            ids = tokenizer.encode(tf.constant(texts))
            assert ids.dtype == tf.int32
            assert pairs.UNKNOWN not in ids.flat_values
            expected = strings(pairs.normalize(tf.constant(texts)))
            assert strings(tokenizer.decode(ids)) == expected
            assert strings(tokenizer.join(tokenizer.split(tf.constant(texts)))) == expected

    def test_any_text_has_pieces_and_ids(self, tokenizers):
        texts = tf.constant([b"", b" \n ", b"\xff\xfe", "🙂☃️ Ω<s>".encode(), b"<pad></s> <sep>"])
        for tokenizer in tokenizers:
            ids, pieces = tokenizer.encode(texts), tokenizer.split(texts)
            # No text has the ids of the other special pieces.
            assert not set(ids.flat_values.numpy().tolist()) & {0, 1, 2, 4}
            assert ids.row_lengths().numpy().tolist() == pieces.row_lengths().numpy().tolist()
            assert ids.row_lengths().numpy()[:2].tolist() == [0, 0]
            assert strings(tokenizer.join(pieces))[3:] == ["🙂☃️ Ω<s>", "<pad></s> <sep>"]

    def test_a_text_ends_at_the_first_end(self, tokenizers):
        tokenizer = tokenizers[0]
        [hund] = tokenizer.encode(tf.constant(["Hund"])).to_list()
        start, end, pad = [pairs.START], [pairs.END], [pairs.PAD]
        rows = [
            start + hund + end + hund + pad,
            hund + [pairs.SEPARATOR] + end + (hund + pad + pad),
        ]
        rows = [row[: len(hund) + 2] + hund + pad for row in rows]
        assert strings(tokenizer.decode(tf.constant(rows))) == ["Hund", "Hund"]
        assert strings(tokenizer.decode(tf.ragged.constant([rows[0], [], end]))) == ["Hund", "", ""]

    def test_equal_texts_have_equal_pieces(self, tokenizers):
        composed = tokenizers[0].encode(tf.constant(["große Häu ", " große\tHa\u0308u"])).to_list()
        assert composed[0] == composed[1]


def test_words():
    assets = pairs.build_assets(dataset(), "words", 90)
    source, target = pairs.tokenizers(assets, "words")
    [split] = strings(source.split(tf.constant(["(don't!) a - b, 我是b c.. ￭"])))
    words = ["(￭", "don", "￭'￭", "t", "￭!", "￭)", "a", "-", "b", "￭,", "我", "￭是￭", "b", "c"]
    assert split == [*words, "￭.", "￭.", "■"]
    assert strings(pairs.split_words(tf.constant(["It isn't."]))) == [["It", "isn", "'", "t", "."]]
    assert assets["target_vocabulary"] == target.pieces


def test_size_and_counts_limit_a_vocabulary():
    found = pairs.build_assets(dataset(), "words", 8)["source_vocabulary"]
    assert len(found) == 8
    rare = [*EXAMPLES, {"source": "selten", "target": "rare", "history": []}]
    found = pairs.build_assets(dataset(rare), "words", 90, shared=True, min_count=2)
    assert list(found) == ["vocabulary"]
    assert {"Hund", "dog"} <= set(found["vocabulary"])
    assert not {"selten", "rare"} & set(found["vocabulary"])


@pytest.mark.parametrize("kind", pairs.SUBWORD_TYPES)
def test_subwords(kind, capfd):
    texts = [{**each, "target": each["source"]} for each in EXAMPLES]
    options = {"shared": True, "subword_type": kind}
    assets = pairs.build_assets(dataset(texts), "subwords", 100, **options)
    assert sorted(assets) == ["subwords", "vocabulary"]
    source, target = pairs.tokenizers(assets, "subwords")
    assert source is target
    text = tf.constant(["Das (große) Haus, 3.5 m - oder?"])
    [expected] = source.encode(text).to_list()
    found = [source.encode(text, sampling=0.3) for _ in range(20)]
    assert len({tuple(ids.to_list()[0]) for ids in found}) > 1
    assert {strings(source.decode(ids))[0] for ids in found} == set(strings(text))
    # Without sampling, and after the deletion of other tokenizers, they are split as before.
    assert source.encode(text).to_list() == [expected]
    assert "normalizer" not in capfd.readouterr().err  # a message of SentencePiece
    assert pairs.build_assets(dataset(texts), "subwords", 100, **options) == assets


def test_rare_characters_are_pieces_if_they_leave_room():
    common = [{"source": "a common text", "target": "b", "history": []}] * 400
    rare = [*common, {"source": "7", "target": "b", "history": []}]
    assert "7" in pairs.build_assets(dataset(rare), "subwords", 40)["source_vocabulary"]
    assert "7" not in pairs.build_assets(dataset(rare), "subwords", 18)["source_vocabulary"]


@pytest.mark.parametrize("units", pairs.UNITS)
def test_no_text_is_an_error(units):
    with pytest.raises(DataError, match="training text"):
        pairs.build_assets(dataset([]), units, 40)


def test_turns_are_separated(tokenizers):
    source = tokenizers[0]
    ids = pairs.encode_source(
        source, tf.constant(["Hund", ""]), tf.ragged.constant([["Das", "Haus"], []])
    )
    words = {text: source.encode(tf.constant([text])).to_list()[0] for text in ("Das", "Haus")}
    [hund] = source.encode(tf.constant(["Hund"])).to_list()
    between, end = [pairs.SEPARATOR], [pairs.END]
    assert ids.to_list() == [words["Das"] + between + words["Haus"] + between + hund + end, end]
    alone = pairs.encode_source(source, tf.constant(["Hund"]))
    assert alone.to_list() == [hund + end]
    assert alone.dtype == tf.int32


@pytest.fixture(scope="module")
def of_words():
    return pairs.tokenizers(pairs.build_assets(dataset(), "words", 90), "words")


def made(tokenizers, **options) -> tf.data.Dataset:
    return pairs.batches(dataset(), *tokenizers, 5, **options)


def targets_of(batches) -> list[tuple]:
    """The labels of all pairs without padding."""
    return [tuple(row[row > 0].tolist()) for _, labels in batches for row in np.asarray(labels)]


class TestBatches:
    def test_evaluation_has_all_pairs_in_their_order_with_their_texts(self, of_words):
        batches = made(of_words, with_text=True)
        assert [len(labels["tokens"]) for _, labels in batches] == [5, 5, 2]
        assert batches.cardinality() == 3
        rows = []
        for features, labels in batches.as_numpy_iterator():
            for k in range(len(labels["tokens"])):
                history = [turn.decode() for turn in labels["history"][k] if turn]
                own = {side: labels[side][k].decode() for side in pairs.SIDES}
                rows.append({**own, "history": history})
                ids, given, expected = (
                    row[row > 0].tolist()
                    for row in (features["source"][k], features["target"][k], labels["tokens"][k])
                )
                assert ids[-1] == expected[-1] == pairs.END
                assert ids.count(pairs.SEPARATOR) == len(history)
                assert given == [pairs.START, *expected[:-1]]
        assert rows == EXAMPLES

    def test_training_has_all_pairs_in_another_order_each_epoch(self, of_words):
        batches = made(of_words, shuffle=1)
        for features, labels in batches.as_numpy_iterator():
            assert labels.shape == features["target"].shape
        first, second = targets_of(batches), targets_of(batches)
        assert len(list(batches)) == batches.cardinality() == 3
        assert first != second
        still = made(of_words)
        assert targets_of(still) == targets_of(still)
        assert sorted(first) == sorted(second) == sorted(targets_of(still))

    def test_long_pairs_are_left_out_of_training_with_a_message(self, of_words, capsys):
        kept = made(of_words, shuffle=1, max_tokens=13)
        message = "4 of 12 training pairs are left out: they have more than 13 tokens (max_tokens)."
        assert message in capsys.readouterr().err
        assert len(targets_of(kept)) == 8

    def test_texts_are_split_at_random_in_each_epoch(self):
        """Also after `set_seed`, which deletes the resources of tokenizers that exist."""
        assets = pairs.build_assets(dataset(), "subwords", 90, shared=True)
        own = pairs.tokenizers(assets, "subwords")
        batches = made(own, shuffle=1, sampling=0.4)
        tf.random.set_seed(1)
        first, second = (
            [features["target"].numpy().tolist() for features, _ in batches] for _ in range(2)
        )
        assert sorted(map(str, first)) != sorted(map(str, second))
        tokenizer, _ = pairs.tokenizers(assets, "subwords")
        texts = {text for rows in first for text in strings(tokenizer.decode(tf.constant(rows)))}
        assert texts == set(strings(pairs.normalize(tf.constant([text for _, text in TEXTS]))))


class TestOrder:
    lengths = np.random.default_rng(0).integers(2, 20, [2, 300])

    def order(self, seed: int | None, batch_tokens: int = 0) -> tf.data.Dataset:
        indices = np.arange(300) + 1000
        return pairs._similar(indices, self.lengths, 8, batch_tokens, seed)

    def test_pairs_of_a_batch_have_similar_lengths(self):
        for seed in (None, 3):
            batches = [rows - 1000 for rows in self.order(seed).as_numpy_iterator()]
            assert sorted(np.concatenate(batches).tolist()) == list(range(300))
            assert {len(rows) for rows in batches} == {8, 300 % 8}
            own = [self.lengths[:, rows] for rows in batches]
            padding = [lengths.max(axis=1, keepdims=True) - lengths for lengths in own]
            targets, sources = np.concatenate([each.T for each in padding]).T
            assert targets.mean() < 0.5
            assert sources.mean() < 5 < self.lengths[1].max() - self.lengths[1].mean()
        assert np.any(np.diff([self.lengths[0, rows].max() for rows in batches]) < 0)

    def test_tokens_limit_a_batch(self):
        sizes = []
        for rows in self.order(3, batch_tokens=60).as_numpy_iterator():
            longest = self.lengths[:, rows - 1000].max()
            # The sources of a batch depend on the random order.
            assert len(rows) * (longest - pairs._NOISE) <= 60 or len(rows) == 1
            sizes.append(len(rows))
        assert min(sizes) == 3 < max(sizes)
        assert len(sizes) == self.order(3, batch_tokens=60).cardinality()

    def test_it_depends_on_the_seed_and_continues_after_skipped_epochs(self):
        def epochs(seed: int, skipped: int) -> list[list]:
            batches = self.order(seed)
            for _ in range(skipped):
                iter(batches)
            return [
                [rows.tolist() for rows in batches.as_numpy_iterator()] for _ in range(3 - skipped)
            ]

        first, second, third = epochs(4, 0)
        assert first != second != third
        assert epochs(4, 1) == [second, third]
        assert epochs(5, 2) != [third]


def test_no_pairs_and_no_short_pairs_are_errors(of_words):
    with pytest.raises(DataError, match="There are no pairs"):
        pairs.batches(dataset([]), *of_words, 4)
    with pytest.raises(DataError, match=r"No training pair has at most 1 tokens \(max_tokens\)"):
        made(of_words, max_tokens=1)
