"""Trains structured layers on two replicas, one of which gets no examples in the last batch."""

import keras
import numpy as np
import tensorflow as tf

from unroll import layers


def tagger() -> tuple[keras.Model, dict]:
    inputs = keras.Input((None, 4))
    potentials = keras.layers.Dense(3)(inputs)
    layer = layers.CRF(3, allowed_transitions=layers.bio_transitions(["O", "B-x", "I-x"]))
    model = keras.Model(inputs, {"potentials": potentials, "tags": layer(potentials)})
    return model, {"potentials": layer.loss}


def recognizer() -> tuple[keras.Model, keras.losses.Loss]:
    inputs = keras.Input((None, 4))
    return keras.Model(inputs, keras.layers.Dense(3)(inputs)), layers.CTCLoss()


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    x, y = np.random.default_rng(0).normal(size=(5, 6, 4)).astype("float32"), np.ones((5, 6), int)
    for make, targets in ((tagger, {"potentials": y}), (recognizer, y[:, :1])):
        with strategy.scope():
            model, loss = make()
            model.compile(keras.optimizers.SGD(0.1), loss)
        history = model.fit(x, targets, batch_size=4, epochs=2, shuffle=False, verbose=0).history
        assert np.isfinite(history["loss"]).all(), history
        assert history["loss"][1] < history["loss"][0], history
        assert all(np.isfinite(w).all() for w in model.get_weights())


if __name__ == "__main__":
    main()
