"""Weights that start from an initializer which several of them share."""

from keras import initializers


def drawn_anew(initializer):
    """The initializer, with draws of its own if it has no seed.

    An initializer of Keras is stateless: whoever calls it again with a shape gets the same values,
    and two weights of a layer would start equal. With a seed it is as its maker wants it; a
    `keras.random.SeedGenerator` as the seed gives each weight other values.

    >>> import keras, numpy as np
    >>> normal = keras.initializers.RandomNormal()
    >>> bool(np.any(np.array(normal((2, 3))) != np.array(normal((2, 3)))))
    False
    >>> bool(np.any(np.array(drawn_anew(normal)((2, 3))) != np.array(normal((2, 3)))))
    True
    """
    if not isinstance(initializer, initializers.Initializer):
        return initializer
    config = initializer.get_config()
    if config.get("seed", 0) is not None:
        return initializer
    return type(initializer).from_config(config)
