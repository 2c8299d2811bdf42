"""Saving: weights that a checkpoint may have or lack, and layers in the config of another."""

import keras


def load_own_variables(layer, store, weights: list, optional):
    """Loads the weights of a layer, and one more where the checkpoint and the layer have it.

    A checkpoint with the optional weight loads into a layer without it. In the opposite case the
    weight keeps its value.

    Args:
        layer: the layer, for the message of the error.
        store: as in `keras.layers.Layer.load_own_variables`.
        weights: the weights that the checkpoint must have, in the order of `save_own_variables`.
        optional: the weight after them, or None.

    Raises:
        ValueError: if the checkpoint has another number of weights.
    """
    count = len(weights)
    found = len(store.keys())
    if found not in (count, count + 1):
        raise ValueError(
            f"{layer.name} has {count} weights of its own, got a checkpoint with {found}: "
            f"{', '.join(w.name for w in weights)}."
        )
    for k, weight in enumerate(weights):
        weight.assign(store[str(k)])
    if optional is not None and found > count:
        optional.assign(store[str(count)])


def serialize_unbuilt(layer: keras.layers.Layer) -> dict:
    """A serialized layer without the shapes that it was built for."""
    serialized = keras.saving.serialize_keras_object(layer)
    return {key: value for key, value in serialized.items() if key != "build_config"}
