"""Stories with questions, as batches of ids: facts, questions and answers."""

from collections import Counter

import numpy as np
import tensorflow as tf

from unroll.pipelines import text
from unroll.pipelines.batching import batches

# The numbers of facts at which a new bucket of questions begins.
BOUNDARIES = (4, 8, 12, 16, 24, 32, 50)
MAX_WORDS = 2**10  # of a sentence; all sentences of a batch are padded to the longest


def normalize_answer(answer):
    """Lowercases an answer. Each answer is one token, even if it has several words."""
    return tf.strings.lower(tf.strings.strip(answer), "utf-8")


def task_names(dataset: tf.data.Dataset) -> list[str]:
    """The names of the tasks of a split: numbers in numerical order, then the others."""
    names = dataset.map(lambda row: row["task"], tf.data.AUTOTUNE)
    return sorted(
        {name.decode() for name in names.as_numpy_iterator()},
        key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name),
    )


def fact_counts(dataset: tf.data.Dataset) -> np.ndarray:
    """The number of facts before each question, `[N]`."""
    sizes = dataset.map(lambda row: tf.shape(row["facts"])[0], tf.data.AUTOTUNE)
    return np.fromiter(sizes.as_numpy_iterator(), "int64")


def filter_task(dataset: tf.data.Dataset, task: str) -> tf.data.Dataset:
    """The questions of one task."""
    return dataset.filter(lambda row: row["task"] == task)


def build_vocabulary(dataset: tf.data.Dataset) -> list[str]:
    """Padding, the unknown token, and the words of facts and questions and the answers, sorted."""
    counts: Counter[bytes] = Counter()

    def tokens(example: dict):
        sentences = tf.concat([example["facts"], [example["question"]]], axis=0)
        return text.words(sentences).flat_values, normalize_answer(example["answer"])

    for words, answer in dataset.map(tokens, tf.data.AUTOTUNE).as_numpy_iterator():
        counts.update([*words.tolist(), answer])
    return ["[PAD]", "[UNK]", *sorted(word.decode() for word in counts)]


def split_facts(stories) -> tf.RaggedTensor:
    """Splits stories `[B]` into their facts `[B, (S)]`: lines, and sentences within a line.

    >>> split_facts(tf.constant(["Bob left. Ann is here.\\nShe sat down"])).to_list()
    [[b'Bob left.', b'Ann is here.', b'She sat down']]
    """
    lines = tf.strings.unicode_transcode(stories, "UTF-8", "UTF-8", errors="replace")
    lines = tf.strings.regex_replace(lines, "\r\n?", "\n")
    lines = tf.strings.regex_replace(lines, r"([.!?])\s+", "\\1\n")
    facts = tf.strings.split(lines, "\n")
    facts = facts.with_values(tf.strings.strip(facts.flat_values))
    return tf.ragged.boolean_mask(facts, facts.with_values(facts.flat_values != ""))


def to_ids(strings, vocabulary: text.Vocabulary):
    """Sentences `[N]` to ids `[N, J]` of their words, without punctuation.

    J is at least 1 and at most `MAX_WORDS`: the words of a sentence after these are not read.
    """
    return text.to_dense(vocabulary(text.words(strings)[:, :MAX_WORDS]))


def question_batches(
    dataset: tf.data.Dataset,
    vocabulary: text.Vocabulary,
    tasks: list[str],
    batch_size: int,
    memory_size: int,
    *,
    shuffle: int | None = None,
) -> tf.data.Dataset:
    """Batches of B questions with the S facts before each.

    Args:
        dataset: of `{"task", "facts", "question", "answer"}`, as in `datasets.stories`.
        vocabulary: made by `build_vocabulary`.
        tasks: the names of all tasks.
        batch_size: B.
        memory_size: the largest S. Longer stories lose their first facts.
        shuffle: as in `pipelines.batching.batches`.

    Returns:
        Batches of `({"facts": [B, S, J], "question": [B, J']}, [B, 2])`. The labels are the id of
        the answer (UNKNOWN if it is not in the vocabulary) and the index of the task. S is at least
        1: a story without facts has one fact of padding.
    """
    names = tf.constant(tasks)

    def encode(example: dict) -> tuple:
        facts = to_ids(example["facts"][-memory_size:], vocabulary)
        facts = text.to_dense(facts, time_axis=0)
        question = to_ids([example["question"]], vocabulary)[0]
        answer = vocabulary.table.lookup(normalize_answer(example["answer"]))
        [task] = tf.unstack(tf.where(names == example["task"])[:, 0], num=1)
        return {"facts": facts, "question": question}, tf.stack([answer, task])

    return batches(
        dataset.map(encode, tf.data.AUTOTUNE).cache(),
        lambda features, _: tf.shape(features["facts"])[0],
        batch_size,
        boundaries=(*(b for b in BOUNDARIES if b <= memory_size), memory_size + 1),
        shuffle=shuffle,
    )
