"""The network: embedding, recurrent layers that carry their state, softmax; and one step of it."""

import keras
import numpy as np
from keras import ops

from unroll import layers
from unroll.apps.shared.recurrent import TIED_EMBEDDINGS
from unroll.pipelines.language_modeling import UNKNOWN

# The options that only a layer with a product of its state and a matrix takes.
RECURRENT_RATES = ("recurrent_dropout", "recurrent_weight_dropout")
# The size of the feed-forward part of a residual block, in relation to that of its input.
EXPANSION = 2.0


class CarriedState(keras.layers.Layer):
    """A stack of recurrent layers that continues where the batch before ended.

    Training and evaluation have states of their own, so that a validation between two batches does
    not change the streams of the training. The states are not part of a file of weights.

    Args:
        stack: a `layers.Stack` with `return_state=True`, or `Blocks`.
        batch_size: the maximum number of streams.

    Call arguments:
        sequences: `[B, T, D]`.
        start: `[B]`, booleans: the streams that start with this batch, from a state of zeros.
        training: whether dropout applies, and which of the states are carried.

    Returns:
        The outputs of the stack, `[B, T, U]`. No gradient flows into the batch before.
    """

    def __init__(self, stack: "layers.Stack | Blocks", batch_size: int, **kwargs):
        super().__init__(**kwargs)
        self.stack = stack
        self.batch_size = batch_size

    def _variable(self, name: str, size: int) -> keras.Variable:
        return keras.Variable(
            initializer="zeros",
            shape=(self.batch_size, size),
            dtype=self.compute_dtype,
            trainable=False,
            name=name,
            # Each replica carries the states of its own streams.
            synchronization="on_read",
            aggregation="only_first_replica",
        )

    def build(self, sequences_shape, start_shape):
        self.stack.build(sequences_shape)
        self.training_states, self.evaluation_states = (
            [self._variable(f"{name}_{k}", size) for k, size in enumerate(state_sizes(self.stack))]
            for name in ("training", "evaluation")
        )

    def call(self, sequences, start, training=False):
        variables = self.training_states if training else self.evaluation_states
        rows = ops.shape(sequences)[0]
        # Not a product: what is carried may be infinite.
        states = [ops.where(start[:, None], 0.0, variable[:rows]) for variable in variables]
        outputs, *new = self.stack(sequences, initial_state=states, training=training)
        for variable, state in zip(variables, new, strict=True):
            state = ops.cast(ops.stop_gradient(state), variable.dtype)
            variable.assign(ops.concatenate([state, variable[rows:]], axis=0))
        return outputs

    def compute_output_shape(self, sequences_shape, start_shape):
        return self.stack.compute_output_shape(sequences_shape)[0]

    def save_own_variables(self, store):
        """Saves nothing: weights do not depend on the number of streams."""

    def load_own_variables(self, store):
        """Loads nothing."""


class Bias(keras.layers.Layer):
    """Adds a bias b `[V]` to inputs `[..., V]`."""

    def build(self, input_shape):
        self.bias = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="bias")

    def call(self, inputs):
        return inputs + self.bias

    def compute_output_shape(self, input_shape):
        return input_shape


class Blocks(keras.layers.Layer):
    """Residual blocks, one on top of the other, and a normalization, with the call of a `Stack`.

    Args:
        blocks: `layers.ResidualBlock`s with `return_state=True`.
        dropout: the rate of the locked dropout of the input.
    """

    def __init__(self, blocks: list[layers.ResidualBlock], dropout: float, **kwargs):
        super().__init__(**kwargs)
        self.layers = blocks
        self.drop = keras.layers.Dropout(dropout, noise_shape=(None, 1, None))
        self.norm = keras.layers.RMSNormalization()
        self.norm.supports_masking = self.supports_masking = True

    def build(self, sequences_shape):
        for layer in (*self.layers, self.norm):
            layer.build(sequences_shape)

    def call(self, sequences, initial_state, mask=None, training=False):
        x, states, new = self.drop(sequences, training=training), list(initial_state), []
        for block in self.layers:
            own, states = states[: len(block.state_size)], states[len(block.state_size) :]
            x, *own = block(x, initial_state=own, mask=mask, training=training)
            new += own
        return (self.norm(x), *new)

    def compute_output_shape(self, sequences_shape):
        return (sequences_shape,)


def state_sizes(stack: layers.Stack | Blocks) -> list[int]:
    """The sizes of the states of a stack that is built, from the bottom up."""
    return [size for layer in stack.layers for size in layer.state_size]


class LanguageModel(keras.Model):
    """A model whose learning rate is proportional to the number of tokens in a stream of a batch.

    Merity et al. 2018, "Regularizing and optimizing LSTM language models", section 5: with random
    lengths and one learning rate, short sequences would have a larger effect than long ones.
    """

    sequence_length = 0  # the mean length; 0 if all lengths are the same

    def train_step(self, data):
        if self.sequence_length:
            length = ops.cast(ops.shape(data[0]["tokens"])[1], "float32")
            # In float16, the optimizer is in one that scales the loss.
            optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
            optimizer.rate_scale = length / self.sequence_length
        return super().train_step(data)


def scaled(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """An optimizer whose steps are multiplied by its `rate_scale`."""
    kind = type(optimizer)

    class Scaled(kind):
        rate_scale = 1.0

        def update_step(self, gradient, variable, learning_rate):
            super().update_step(gradient, variable, learning_rate * self.rate_scale)

    return Scaled.from_config(optimizer.get_config())


def cutoffs(vocabulary_size: int) -> tuple[int, int]:
    """The first tokens of the clusters of an adaptive softmax: a tenth and a half are before them.

    In a text of words, about nine of ten tokens are in the head.
    """
    return vocabulary_size // 10, vocabulary_size // 2


def build(config, vocabulary_size: int) -> keras.Model:
    """The network of a configuration.

    Its inputs are the features. Its output is the logits, `[B, T, V]`, or with an adaptive softmax,
    for which the labels are one of the features, the log-probability of each label, `[B, T]`.
    """
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    start = keras.Input((), dtype="bool", name="start")
    is_tied, is_adaptive = config.tie_weights, config.softmax == "adaptive"
    rates = {name: getattr(config, name) for name in RECURRENT_RATES}
    rates = {name: rate for name, rate in rates.items() if rate}  # not every layer takes them
    stack = _stack(config, rates)
    words = layers.WordDropout(config.word_dropout, UNKNOWN)(tokens)
    if is_adaptive:
        # The vocabulary of a text may be smaller than its largest size.
        used = [each for each in cutoffs(config.vocabulary_size) if 0 < each < vocabulary_size]
        if not used:
            raise ValueError(
                f"softmax=adaptive needs a larger vocabulary than {vocabulary_size} tokens, "
                f"with vocabulary_size={config.vocabulary_size}: use softmax=full."
            )
        softmax = layers.AdaptiveSoftmax(
            vocabulary_size,
            used,
            input_size=config.embedding_dim if is_tied else None,
            dtype="float32",
            name="logits",
        )
    if is_adaptive and is_tied:
        x = softmax(words, embed=True)
    else:
        embedding = keras.layers.ReversibleEmbedding(
            vocabulary_size,
            config.embedding_dim,
            tie_weights=True,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=TIED_EMBEDDINGS)
            if is_tied
            else "uniform",
            name="embedding",
        )
        x = embedding(words)
    x = CarriedState(stack, config.batch_size, name="carried")(x, start)  # [B, T, U]
    x = keras.layers.Dropout(config.output_dropout, noise_shape=(None, 1, None))(x)
    if is_tied and x.shape[-1] != config.embedding_dim:
        x = keras.layers.Dense(config.embedding_dim, name="projection")(x)
    features = {"tokens": tokens, "start": start}
    if is_adaptive:
        features["labels"] = keras.Input((None,), dtype="int32", name="labels")
        outputs = softmax(x, features["labels"])  # [B, T]
    elif is_tied:
        outputs = Bias(dtype="float32", name="logits")(embedding(x, reverse=True))  # [B, T, V]
    else:
        outputs = keras.layers.Dense(vocabulary_size, dtype="float32", name="logits")(x)
    model = LanguageModel(features, outputs)
    if config.random_lengths and not config.jit:
        model.sequence_length = config.sequence_length
    return model


def _stack(config, rates: dict) -> layers.Stack | Blocks:
    """The recurrent layers of a configuration, with these rates of their recurrent dropout."""
    if config.residual_blocks:
        blocks = [
            layers.ResidualBlock(
                getattr(layers, config.cell)(config.units, **rates),
                expansion=EXPANSION,
                dropout=config.dropout,
                return_state=True,
                name=f"block_{k}",
            )
            for k in range(config.depth)
        ]
        return Blocks(blocks, config.embedding_dropout, name="blocks")
    # One mask for all steps of a batch: the locked dropout of Merity et al. 2018.
    made = [
        getattr(layers, config.cell)(
            config.units, dropout=config.dropout if k else config.embedding_dropout, **rates
        )
        for k in range(config.depth)
    ]
    return layers.Stack(made, return_state=True)


class Steps:
    """A trained network with its states as arguments.

    Args:
        model: made by `build`.
        tie_weights: as in its configuration.
    """

    def __init__(self, model: keras.Model, tie_weights: bool):
        names = {layer.name: layer for layer in model.layers}
        self.embedding, self.output = names.get("embedding"), names["logits"]
        self.stack = names["carried"].stack
        self.projection = names.get("projection")
        self.tie_weights = tie_weights
        self.state_sizes = state_sizes(self.stack)

    def initial_states(self, batch_size) -> list:
        """The states before a text: zeros, `[B, size]` each."""
        return [
            ops.zeros((batch_size, size), self.stack.compute_dtype) for size in self.state_sizes
        ]

    def step(self, tokens, states: list) -> tuple:
        """The logits after one token, `[N, V]`, and the new states. It has no loop."""
        x, new, states = self.embed(tokens), [], list(states)
        for layer in self.stack.layers:
            own, states = states[: len(layer.state_size)], states[len(layer.state_size) :]
            is_block = isinstance(layer, layers.ResidualBlock)
            x, own = (layer.step if is_block else layer.cell)(x, own)
            new += own
        if isinstance(self.stack, Blocks):
            x = self.stack.norm(x)
        return self.logits(x), new

    def outputs(self, tokens, mask) -> tuple:
        """The outputs `[B, T, U]` of texts from their start, for `logits`, and the last states.

        Args:
            tokens: `[B, T]`.
            mask: `[B, T]`, False where a text has ended.
        """
        states = self.initial_states(ops.shape(tokens)[0])
        outputs, *new = self.stack(self.embed(tokens), initial_state=states, mask=mask)
        # Without a Keras mask, which a tied embedding would warn that it loses.
        return ops.where(mask[..., None], outputs, 0.0), new

    def embed(self, tokens):
        """The vectors of tokens, `[...]` to `[..., D]`."""
        return self.embedding(tokens) if self.embedding else self.output(tokens, embed=True)

    def logits(self, x):
        """The logits after the outputs of the network, `[..., U]` to `[..., V]`."""
        if self.projection:
            x = self.projection(x)
        if isinstance(self.output, layers.AdaptiveSoftmax):
            return self.output(x)
        return self.output(self.embedding(x, reverse=True) if self.tie_weights else x)


def word_vectors(trained) -> np.ndarray:
    """The vectors of the vocabulary, `[V, D]`, also where clusters of it have smaller ones."""
    steps = Steps(trained.model, trained.config.tie_weights)
    return ops.convert_to_numpy(steps.embed(ops.arange(len(trained.assets["vocabulary"]))))
