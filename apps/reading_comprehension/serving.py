"""What the app exports: stories and questions to answers; ids, for LiteRT."""

import keras
import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Assets, Service, with_inputs
from unroll.pipelines import stories, text

FIRST_WORD = text.UNKNOWN + 1  # padding and the unknown are no answers


def service(model: keras.Model, assets: Assets) -> Service:
    """The app's functions, of the copy with the least training loss.

    - `serving_default`: `story` and `question` `[B]`, strings, the facts being sentences or lines.
      It gives `answer` `[B]`, `scores` `[B, V]` of all words, `facts` `[B, S]` as they were split
      (of long stories the last ones), and `attention` `[B, hops, S]`.
    - `ids`: `facts` `[B, S, J]` and `question` `[B, J']` to `scores` and `attention`.
    """
    restarts = model.get_layer("restarts")
    copy = restarts.copies[int(restarts.best())]
    vocabulary = text.Vocabulary(assets["vocabulary"])
    entries = tf.constant(assets["vocabulary"])
    [kept] = assets["memory_size"]
    kept = int(kept)

    def answer(features: dict) -> dict:
        logits, attention = copy([features["facts"], features["question"]], training=False)
        return {"scores": tf.nn.softmax(logits), "attention": attention}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="story"),
            tf.TensorSpec([None], tf.string, name="question"),
        ]
    )
    def serving_default(story, question):
        facts = stories.split_facts(story)[:, -kept:]
        found = answer(_ids(facts, question, vocabulary))
        best = tf.argmax(found["scores"][:, FIRST_WORD:], axis=-1) + FIRST_WORD
        return {"answer": tf.gather(entries, best), "facts": text.to_dense(facts)} | found

    ids = {
        "facts": tf.TensorSpec([None, None, None], tf.int32),
        "question": tf.TensorSpec([None, None], tf.int32),
    }

    def requests(examples: list[tuple]) -> dict[str, dict[str, np.ndarray]]:
        stories, questions = zip(*examples, strict=True)
        facts = stories.split_facts(tf.constant(stories))[:, -kept:]
        given = _ids(facts, tf.constant(questions), vocabulary)
        raw = {"story": np.array(stories, object), "question": np.array(questions, object)}
        return {
            "serving_default": raw,
            "ids": {name: x.numpy() for name, x in given.items()},
        }

    functions = {"serving_default": serving_default, "ids": with_inputs(answer, ids)}
    return Service(functions, requests, litert="ids", keep=[copy.variables, vocabulary])


def _ids(facts: tf.RaggedTensor, question, vocabulary: text.Vocabulary) -> dict:
    """Facts `[B, (S)]` and questions `[B]` to ids `[B, S, J]` and `[B, J']`."""
    words = stories.to_ids(facts.flat_values, vocabulary)  # [N, J]
    told = tf.RaggedTensor.from_row_splits(words, facts.row_splits)
    return {
        "facts": text.to_dense(told.to_tensor()),
        "question": stories.to_ids(question, vocabulary),
    }
