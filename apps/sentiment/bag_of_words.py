"""A bag-of-words classifier, the baseline."""

import keras
import tensorflow as tf
from keras import ops

from unroll.pipelines.datasets.sentiment.text_files import UNSEEN


def train(
    vocabulary: int, classes: int, train: tf.data.Dataset, valid: tf.data.Dataset, seed: int = 0
) -> keras.Model:
    """Trains a logistic regression on word counts, with early stopping on `valid`.

    Args:
        vocabulary: size of the vocabulary, V.
        classes: number of classes, K.
        train, valid: batches of `({"tokens": [B, T] integers, 0 for padding, ...}, [B] labels)`.
        seed: of the initial weights.

    Returns:
        A model from these features to probabilities, `[B, K]`.
    """
    keras.utils.set_random_seed(seed)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    weights = keras.layers.Embedding(vocabulary, classes)(tokens)  # [B, T, K]
    real = ops.cast(ops.expand_dims(ops.not_equal(tokens, 0), -1), "float32")
    scores = ops.sum(weights * real, axis=1)  # [B, K]
    model = keras.Model({"tokens": tokens}, ops.softmax(scores))
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(ignore_class=UNSEEN),
        metrics=["accuracy"],
    )
    stop = keras.callbacks.EarlyStopping("val_accuracy", patience=2, restore_best_weights=True)
    model.fit(train, validation_data=valid, epochs=20, callbacks=[stop], verbose=0, shuffle=False)
    return model
