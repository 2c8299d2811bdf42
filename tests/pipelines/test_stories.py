"""Stories as ids: the vocabulary, the facts of a long story, batches."""

import numpy as np
import tensorflow as tf

from unroll.pipelines import stories, text

ROWS = [
    ("1", ["Mary is here.", "Bob left."], "Where is Mary?", " Here"),
    ("2", ["Ann left."] * 5 + ["Bob is in the New York office."], "Where is Bob?", "New York"),
    ("1", [], "Is Ann here?", "s,e"),
]
WORDS = ["ann", "bob", "here", "in", "is", "left", "mary", "new", "new york", "office", "s,e"]
TOKENS = ["[PAD]", "[UNK]", *WORDS, "the", "where", "york"]


def dataset() -> tf.data.Dataset:
    rows = [
        {"task": task, "facts": tf.constant(facts, tf.string), "question": q, "answer": answer}
        for task, facts, q, answer in ROWS
    ]
    signature = {name: tf.TensorSpec([], tf.string) for name in ("task", "question", "answer")}
    signature["facts"] = tf.TensorSpec([None], tf.string)
    return tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=signature)


def decode(ids) -> list[str]:
    return [" ".join(TOKENS[k] for k in row if k) for row in ids]


def test_tasks_and_sizes():
    assert stories.task_names(dataset()) == ["1", "2"]
    rows = stories.filter_task(dataset(), "2")
    assert [row["answer"] for row in rows.as_numpy_iterator()] == [b"New York"]
    assert stories.fact_counts(dataset()).tolist() == [2, 6, 0]


def test_stories_may_be_broken_and_sentences_long():
    facts = stories.split_facts(tf.constant([b"Bob\xff left.\n\0. A\xe2\x80"]))
    assert [fact.decode() for fact in facts[0].numpy()] == ["Bob\ufffd left.", "\0.", "A\ufffd"]
    vocabulary = text.Vocabulary(TOKENS)
    ids = stories.to_ids(tf.constant(["Bob left", "Bob " * 2 * stories.MAX_WORDS]), vocabulary)
    assert ids.shape == (2, stories.MAX_WORDS)


def test_words_and_answers_share_a_vocabulary():
    assert stories.build_vocabulary(dataset()) == TOKENS


def test_stories_of_similar_lengths_share_a_batch():
    vocabulary = text.Vocabulary(TOKENS)
    batches = stories.question_batches(dataset(), vocabulary, ["1", "2"], 2, 4)
    by_size = {len(labels): (features, labels.numpy()) for features, labels in batches}
    features, labels = by_size[2]
    assert features["facts"].shape == [2, 2, 3]
    assert decode(features["facts"][0]) == ["mary is here", "bob left"]
    assert not np.any(features["facts"][1])
    assert decode(features["question"]) == ["where is mary", "is ann here"]
    assert labels.tolist() == [[TOKENS.index("here"), 0], [TOKENS.index("s,e"), 0]]
    features, labels = by_size[1]
    # The last facts of a long story.
    assert decode(features["facts"][0]) == [*["ann left"] * 3, "bob is in the new york office"]
    assert labels.tolist() == [[TOKENS.index("new york"), 1]]


def test_answer_that_is_not_in_the_vocabulary():
    vocabulary = text.Vocabulary(["[PAD]", "[UNK]", "here"])
    batches = stories.question_batches(dataset(), vocabulary, ["1", "2"], 3, 50)
    answers = np.concatenate([labels.numpy()[:, 0] for _, labels in batches])
    assert sorted(answers) == [1, 1, 2]


def test_facts_of_a_typed_story():
    """Lines of any system, and sentences; a no-break space does not end a sentence."""
    story = "Ann left. Is it?  Yes!\rDr.\u00a0Bob\r\nis here.\n\n"
    [facts] = stories.split_facts(tf.constant([story])).to_list()
    expected = ["Ann left.", "Is it?", "Yes!", "Dr.\u00a0Bob", "is here."]
    assert [fact.decode() for fact in facts] == expected
    both = text.words(tf.constant(["Dr.\u00a0Bob", "Dr. Bob"])).to_list()
    assert both[0] == both[1] == [b"dr", b"bob"]
