"""Averages of the weights over the training, which are validated and saved in their place."""

import keras


class AveragedWeights(keras.callbacks.Callback):
    """Validates and saves the moving averages of the weights that the optimizer keeps.

    From the validation of an epoch to the start of the next one, the model has the averages, and
    the optimizer has the weights that the training continues with.

    Args:
        swapped: whether that is so now, as after a restored epoch.
    """

    def __init__(self, swapped: bool):
        super().__init__()
        self.swapped = swapped

    def on_epoch_begin(self, epoch, logs=None):
        if self.swapped:
            self._swap()

    def on_test_begin(self, logs=None):
        if not self.swapped:
            self._swap()

    def _swap(self):
        # A new one each time: it would not swap twice in the same direction.
        callback = keras.callbacks.SwapEMAWeights()
        callback.set_model(self.model)
        callback.on_test_begin()
        self.swapped = not self.swapped
