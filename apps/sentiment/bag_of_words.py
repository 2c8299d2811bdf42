"""The baseline of every text classifier: which words occur, whatever their order."""

import keras
import tensorflow as tf
from keras import ops


def train(
    vocabulary: int, classes: int, train: tf.data.Dataset, valid: tf.data.Dataset, seed: int = 0
) -> keras.Model:
    """Logistic regression on the count of each word, stopped at its best on `valid`.

    Args:
        vocabulary: V. classes: K.
        train, valid: batches of `({"tokens": [B, T] integers, 0 for padding, ...}, [B] labels)`.
        seed: of the first weights.

    Returns:
        A model from the same features to probabilities, `[B, K]`.
    """
    keras.utils.set_random_seed(seed)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    weights = keras.layers.Embedding(vocabulary, classes)(tokens)  # [B, T, K]
    counted = ops.cast(ops.expand_dims(ops.not_equal(tokens, 0), -1), "float32")
    scores = ops.sum(weights * counted, axis=1)  # [B, K]
    model = keras.Model({"tokens": tokens}, ops.softmax(scores))
    model.compile(
        keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    stop = keras.callbacks.EarlyStopping("val_accuracy", patience=2, restore_best_weights=True)
    model.fit(train, validation_data=valid, epochs=20, callbacks=[stop], verbose=0, shuffle=False)
    return model
