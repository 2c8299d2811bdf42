"""Functions of `unroll.layers` as layers, for the checks of layers."""

import keras
import numpy as np

from tests.layers.case import Case
from unroll import layers


@keras.saving.register_keras_serializable(package="unroll_tests")
class Function(keras.layers.Layer):
    """A function of frames and their mask, by its name in `FUNCTIONS`."""

    def __init__(self, function: str, **kwargs):
        super().__init__(**kwargs)
        self.function = function
        self.supports_masking = True

    def call(self, frames, mask=None):
        lengths = None
        if mask is not None:
            lengths = keras.ops.sum(keras.ops.cast(mask, "int32"), axis=1)
        return FUNCTIONS[self.function](frames, lengths)

    def compute_mask(self, frames, mask=None):
        return None

    def get_config(self):
        return {**super().get_config(), "function": self.function}


def _loss(logits, lengths):
    batch = keras.ops.shape(logits)[0]
    labels = keras.ops.broadcast_to(keras.ops.convert_to_tensor([[1, 2]]), (batch, 2))
    counts = keras.ops.broadcast_to(keras.ops.convert_to_tensor([2]), (batch,))
    return layers.ctc_loss(labels, logits, counts, lengths)


FUNCTIONS = {
    "ctc_loss": _loss,
    "ctc_greedy": lambda logits, lengths: tuple(layers.ctc_greedy(logits, lengths)),
    "ctc_beam_search": lambda logits, lengths: tuple(
        layers.ctc_beam_search(logits, lengths, beam_width=4)
    ),
}
FUNCTION_NAMES = set(FUNCTIONS)
SEARCHES = FUNCTION_NAMES - {"ctc_loss"}
FRAMES = np.array([[1, 1, 1, 1, 1]] * 3 + [[1, 1, 1, 0, 0]] * 2 + [[0] * 5], "bool")


def function_case(name: str) -> Case:
    return Case(
        name=name,
        make=lambda **options: Function(name, **options),
        oracle=None,
        covers=(name,),
        mask=FRAMES,
        segmented=True,
    )


FUNCTION_CASES = tuple(function_case(name) for name in FUNCTIONS)
