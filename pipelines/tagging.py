"""Words with tags, in the graph: words and characters to ids, texts to words, tags to spans."""

from collections import Counter

import tensorflow as tf
import tensorflow_text as tf_text

from unroll.pipelines.batching import batches
from unroll.pipelines.text import BOUNDARIES, Vocabulary, most_frequent, to_dense

# Of a word no more characters than these are read.
CHARACTERS = 20


def split_words(text) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
    """The words of texts as people type them, and where they stand.

    White space separates, and so do commas, question and exclamation marks, brackets, quotes and
    semicolons, which are words themselves. A full stop at the end of a text is left out, but for
    one after a single letter or after others ("p.m.").

    Args:
        text: `[B]`, strings. Bytes that are no UTF-8 become U+FFFD.

    Returns:
        The words `[B, (T)]`, and the characters at which they begin and end, `[B, (T)]`, int32.

    >>> words, begins, ends = split_words(tf.constant(["To Zürich, please."]))
    >>> [word.decode() for word in words[0].numpy()], ends[0].numpy().tolist()
    (['To', 'Zürich', ',', 'please'], [2, 9, 10, 17])
    """
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    # The splitter takes a NUL byte for the end.
    text = tf.strings.regex_replace(text, r"\p{Cc}", " ")
    body = tf.strings.regex_replace(text, r"((?:^|\s)[^\s.]{2,})\.+\s*$", r"\1")
    delimiter = r"\s+|[,?!;()\[\]\"]"
    words, begins, ends = tf_text.regex_split_with_offsets(body, delimiter, r"[,?!;()\[\]\"]")
    rows = tf.cast(words.value_rowids(), tf.int32)

    def characters(offsets):
        """Bytes from the start of a text as characters."""
        own = tf.gather(body, rows)
        before = tf.strings.substr(own, tf.zeros_like(offsets), offsets)
        return tf.strings.length(before, unit="UTF8_CHAR")

    return (
        words,
        words.with_flat_values(characters(begins.flat_values)),
        words.with_flat_values(characters(ends.flat_values)),
    )


def normalize_words(words):
    """Words in the form in which a vocabulary holds them: NFKC, case folded, a 0 for each digit."""
    words = tf_text.case_fold_utf8(tf_text.normalize_utf8(words, "NFKC"))
    return tf.strings.regex_replace(words, r"\pN", "0")


class WordEncoder(tf.Module):
    """Words to a model's inputs: `tokens`, their ids, and `characters`, those of their letters.

    Args:
        vocabulary: the entries of the words' `Vocabulary`.
        characters: those of the characters'.
    """

    def __init__(self, vocabulary: list[str], characters: list[str]):
        super().__init__()
        self.vocabulary = Vocabulary(vocabulary)
        self.characters = Vocabulary(characters)

    def __call__(self, words: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """`[B, (T)]` strings to `[B, T]` and `[B, T, L]`, int32, padded with zeros."""
        tokens = tf.ragged.map_flat_values(normalize_words, words)
        letters = tf.strings.unicode_split(words.flat_values, "UTF-8", errors="replace")
        letters = letters[:, :CHARACTERS]
        ids = words.with_flat_values(self.characters(letters))
        ids = to_dense(ids.to_tensor())  # [B, T, L]
        missing = tf.maximum(0, 1 - tf.shape(ids)[2])
        ids = tf.pad(ids, [[0, 0], [0, 0], [0, missing]])
        return {"tokens": to_dense(self.vocabulary(tokens)), "characters": ids}


def count_words(dataset: tf.data.Dataset, max_size: int, min_count: int = 1) -> tuple[list, list]:
    """The vocabularies of words and of characters of `{"words": [T] strings}` examples."""
    words, characters = Counter(), Counter()
    for batch in dataset.map(lambda example: example["words"]).ragged_batch(1024):
        words.update(normalize_words(batch.flat_values).numpy().tolist())
        split = tf.strings.unicode_split(batch.flat_values, "UTF-8", errors="replace")
        characters.update(split.flat_values.numpy().tolist())
    return most_frequent(words, max_size, min_count), most_frequent(characters, max_size)


def vocabularies(
    splits: dict[str, tf.data.Dataset], max_size: int, min_count: int = 1
) -> dict[str, list[str]]:
    """What turns the strings of a dataset into ids, and back.

    Args:
        splits: by name, of `{"words": [T], "tags": [T], "intent": []}`, strings.
        max_size, min_count: of the words, as in `pipelines.text.most_frequent`.

    Returns:
        `vocabulary` and `characters`, the words and letters of the training split; its `tags`, O
        among them, and `intents`; and `unseen_tags` and `unseen_intents`, which other splits alone
        have: no model finds them, and scores count that.
    """
    words, characters = count_words(splits["train"], max_size, min_count)
    tags, intents = _names(splits["train"])
    others = [_names(split) for split in splits.values()]
    return {
        "vocabulary": words,
        "characters": characters,
        "tags": sorted(tags | {"O"}),
        "intents": sorted(intents),
        "unseen_tags": sorted(set().union(*(found for found, _ in others)) - tags - {"O"}),
        "unseen_intents": sorted(set().union(*(found for _, found in others)) - intents),
    }


def _names(dataset: tf.data.Dataset) -> tuple[set[str], set[str]]:
    """The tags and the intents of a dataset."""
    tags, intents = set(), set()
    for example in dataset.as_numpy_iterator():
        tags.update(tag.decode() for tag in example["tags"])
        intents.add(example["intent"].decode())
    return tags, intents - {""}


def tagged_batches(
    dataset: tf.data.Dataset,
    encoder: WordEncoder,
    assets: dict[str, list[str]],
    batch_size: int,
    shuffle: int | None = None,
) -> tf.data.Dataset:
    """Batches of features and targets.

    Args:
        dataset: of `{"words": [T], "tags": [T], "intent": []}`, strings, one example each.
        encoder: what makes the features of words.
        assets: `vocabularies`.
        batch_size: B.
        shuffle: as in `batches`.

    Returns:
        Of `(features, targets)`. The targets are `tags`, `[B, T]`, the unseen ones with the ids
        behind the K others, -1 for padding; `potentials`, the same without unseen ones; and, where
        there are intents, `intent`, `[B]`, of which all unseen ones have one id behind the others.
    """
    tags, intents = assets["tags"], assets["intents"]
    tables = {"tags": _table(tags + assets["unseen_tags"]), "intent": _table(intents)}

    def encode(example: dict) -> tuple[dict, dict]:
        words = tf.RaggedTensor.from_tensor(example["words"][None])
        features = {name: x[0] for name, x in encoder(words).items()}
        # Padding is zero until the batch is made.
        return features, {name: table.lookup(example[name]) + 1 for name, table in tables.items()}

    def targets(features: dict, ids: dict) -> tuple[dict, dict]:
        ids = {name: x - 1 for name, x in ids.items() if name == "tags" or intents}
        return features, ids | {"potentials": tf.where(ids["tags"] < len(tags), ids["tags"], -1)}

    made = batches(
        dataset.map(encode, tf.data.AUTOTUNE).cache(),
        lambda features, _: tf.shape(features["tokens"])[0],
        batch_size,
        boundaries=BOUNDARIES,
        shuffle=shuffle,
    )
    return made.map(targets)


def _table(names: list[str]) -> tf.lookup.StaticHashTable:
    ids = tf.range(len(names), dtype=tf.int32)
    # A dataset without intents has none, and a table must hold something.
    initial = tf.lookup.KeyValueTensorInitializer(tf.constant(names or [""]), ids if names else [0])
    return tf.lookup.StaticHashTable(initial, default_value=len(names))


def spans_of(tags, begins: tf.RaggedTensor, ends: tf.RaggedTensor, names: list[str]) -> tuple:
    """The spans that BIO tags mark.

    Args:
        tags: `[B, T]`, ids.
        begins, ends: of the words, `[B, (T)]`, as `split_words` gives them.
        names: of the tags.

    Returns:
        `[B, N, 2]`, int32, first character and end of each span, -1 where a text has fewer; and
        their labels, `[B, N]`, strings, empty there.
    """
    kinds = tf.constant([{"B": 1, "I": 2}.get(name[:1], 0) for name in names])
    labels = tf.constant([name[2:] for name in names])
    real = tf.sequence_mask(begins.row_lengths(), tf.shape(tags)[1])  # [B, T]
    kind = tf.where(real, tf.gather(kinds, tags), 0)
    places = tf.range(tf.shape(tags)[1])
    # A span goes on to the last I before anything else.
    others = tf.where(kind == 2, tf.int32.max, places)  # [B, T]
    later = places[None, :, None] < places  # [1, T, T]
    following = tf.reduce_min(tf.where(later, others[:, None], tf.shape(tags)[1]), axis=2)
    starts = kind == 1
    dense = [to_dense(x) for x in (begins, ends)]
    last = tf.gather(dense[1], tf.minimum(following, tf.shape(tags)[1]) - 1, batch_dims=1)
    both = tf.stack([dense[0], last], axis=-1)  # [B, T, 2]
    found = tf.ragged.boolean_mask(both, starts).to_tensor(-1)
    return found, tf.ragged.boolean_mask(tf.gather(labels, tags), starts).to_tensor("")
