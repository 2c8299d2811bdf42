"""Initializers of weights."""

from keras import initializers


def clone_initializer(initializer):
    """A copy of the initializer that gives values of its own.

    A Keras initializer is stateless: each call with the same shape gives the same values, so that
    two weights of one layer would start equal. An initializer without a seed is copied with a new
    random seed; one with a seed is returned unchanged, as is a plain function. To give each weight
    its own reproducible values, use a `keras.random.SeedGenerator` as the seed.

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
