"""How a model that starts with pretrained layers is trained; for all models, the optimizer.

Howard and Ruder 2018, "Universal language model fine-tuning for text classification": the lower a
layer, the more general its features, and the less and the later it should change.
"""

import re

import keras

from unroll.apps.core import config as configs

_RECURRENT = re.compile(r"stack(?:_\d+)?/layer_(\d+)/")


def level(path: str, depth: int) -> int:
    """How far below the classifier a weight is: 0 for it and the pooling, up to `depth` + 1.

    Args:
        path: of the weight.
        depth: the number of recurrent layers.
    """
    if found := _RECURRENT.search(path):
        return depth - int(found[1])
    return depth + 1 if re.match(r"(embedding|word_hashing)", path) else 0


def optimizer(config) -> keras.optimizers.Optimizer:
    """Adam or AdamW, with discriminative learning rates if `layer_decay` is below 1 (section 3.2).

    The learning rate of a weight is `layer_decay` to the power of its `level`, times that of the
    training.
    """
    used = configs.optimizer(config, weight_decay=config.weight_decay)
    if config.layer_decay == 1:
        return used

    class Discriminative(type(used)):
        def build(self, variables):
            super().build(variables)
            self.factors = [config.layer_decay ** level(v.path, config.depth) for v in variables]

        def update_step(self, gradient, variable, learning_rate):
            factor = self.factors[self._get_variable_index(variable)]
            super().update_step(gradient, variable, learning_rate * factor)

    return Discriminative.from_config(used.get_config())


class GradualUnfreezing(keras.callbacks.Callback):
    """Trains the weights of `level` 0 in the first epoch, and one level more in each next epoch.

    Section 3.3 of the paper.

    Args:
        depth: the number of recurrent layers.
    """

    def __init__(self, depth: int):
        super().__init__()
        self.depth = depth

    def on_train_begin(self, logs=None):
        self.weights = [(v, level(v.path, self.depth)) for v in self.model.trainable_variables]

    def on_epoch_begin(self, epoch, logs=None):
        trains = [own <= epoch for _, own in self.weights]
        if trains != [variable.trainable for variable, _ in self.weights]:
            for (variable, _), value in zip(self.weights, trains, strict=True):
                variable.trainable = value
            self.model.make_train_function(force=True)
