"""Initializers for several weights of one layer."""

from keras import initializers


def clone_initializer(initializer):
    """A copy of an initializer without a seed, which creates other values than the original.

    Initializers of Keras are stateless: one that is called again with the same shape returns the
    same values. Two weights of a layer with the same initializer would therefore start equal. An
    initializer with a seed is returned as it is, because the user controls its values: with a
    `keras.random.SeedGenerator` as the seed, each weight gets other values.

    >>> import keras, numpy as np
    >>> normal = keras.initializers.RandomNormal()
    >>> bool(np.any(np.array(normal((2, 3))) != np.array(normal((2, 3)))))
    False
    >>> bool(np.any(np.array(clone_initializer(normal)((2, 3))) != np.array(normal((2, 3)))))
    True
    """
    if not isinstance(initializer, initializers.Initializer):
        return initializer
    config = initializer.get_config()
    if config.get("seed", 0) is not None:
        return initializer
    return type(initializer).from_config(config)
