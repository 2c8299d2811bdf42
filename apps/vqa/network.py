"""The network: question and image encoders with attention, the memory of a dialog, loss, metric."""

import keras
from keras import ops

from unroll import layers
from unroll.apps.core.protocol import Assets
from unroll.apps.shared import groups
from unroll.apps.shared.recurrent import recurrent_layers
from unroll.layers.recurrent import max_over_time, mean_over_time
from unroll.pipelines.text import PADDING
from unroll.pipelines.visual_questions import FIRST_ANSWER, NO_QUESTION

# The initial standard deviation of word vectors, about that of pretrained ones. With Keras's
# smaller default, the attention needs several epochs more on generated scenes.
EMBEDDING_STDDEV = 0.3
# The temporal encoding of a dialog has an entry for this many rounds.
MAX_ROUNDS = 20


def build_answerer(config, assets: Assets, shapes: dict[str, tuple]) -> keras.Model:
    """The part of the model after the image encoder.

    Args:
        config: of the app.
        assets: of the app.
        shapes: of the inputs, without the batch axis: `tokens` `[P, Q, T]`, `regions` `[P, S, D]`
            or `[P, H, W, D]`, and the `rounds` of a dialog, `[P, R, T']`.

    Returns:
        A model to `logits` `[P, Q, A]` and, where the network has them, the weights
        `question_attention` `[P * Q, T]`, `history_attention` `[P * Q, hops, R]` and
        `image_attention` `[P, Q, glimpses, S]` or `[P, Q, glimpses, H, W]`.
    """
    inputs = {
        name: keras.Input(shape, dtype="float32" if name == "regions" else "int32", name=name)
        for name, shape in shapes.items()
    }
    embedding = keras.layers.Embedding(
        len(assets["vocabulary"]),
        config.embedding_dim,
        keras.initializers.RandomNormal(stddev=EMBEDDING_STDDEV),
    )
    dropout = keras.layers.Dropout(config.dropout)
    outputs, questions, image = {}, [None], None
    if config.question != "none":
        question, weights = encode_questions(config, inputs, embedding, dropout)  # [P, Q, U]
        outputs |= weights
        questions = [question]
        if config.word_vectors:
            states = question[..., : -config.embedding_dim]
            words = question[..., -config.embedding_dim :]
            questions = [states, keras.layers.Rescaling(1 / EMBEDDING_STDDEV)(words)]
    if config.image != "none":
        regions = inputs["regions"]
        # Regions that are padding are zeros.
        mask = None if len(regions.shape) == 4 else ops.any(ops.not_equal(regions, 0), axis=-1)
        if config.image == "attention" and config.question != "none":
            attended = attend_to_image(config, questions[-1], regions, mask)
            image, outputs["image_attention"] = attended  # [P, Q, D']
        else:
            image = ops.expand_dims(mean_over_regions(regions, mask), 1)  # [P, 1, D]
    fused = ops.concatenate(
        [fuse(each, image, config.fusion_units, config.dropout) for each in questions], axis=-1
    )
    if config.hidden_layer:
        fused = keras.layers.Dense(config.fusion_units, "relu")(fused)
    classifier = keras.layers.Dense(len(assets["answers"]), dtype="float32", name="answer")
    # Without a question the axis Q has size one up to here.
    number = ops.sum(inputs["tokens"], axis=-1, keepdims=True)  # also of questions without tokens
    fused = fused + ops.zeros_like(ops.cast(number, fused.dtype))
    outputs["logits"] = classifier(dropout(fused))
    return keras.Model(inputs, outputs, name="answerer")


def encode_questions(
    config, inputs: dict, embedding: keras.layers.Layer, dropout: keras.layers.Layer
) -> tuple:
    """The vector of each question, `[P, Q, U]`, and the attention weights.

    With `word_vectors`, the last `embedding_dim` entries are of the word vectors.
    """
    weights = {}
    tokens = groups.Merge()(inputs["tokens"])
    mask = ops.not_equal(tokens, PADDING)  # [PQ, T]
    words = dropout(embedding(tokens))
    states = layers.Stack(
        recurrent_layers(config.cell, config.units, config.depth),
        bidirectional=True,
        dropout=config.dropout,
    )(words, mask=mask)
    if config.word_vectors:
        states = ops.concatenate([states, words], axis=-1)  # [PQ, T, U]
    if config.question == "attention":
        pool = layers.AttentionPool(config.units, name="question_attention")
        question, weights["question_attention"] = pool(states, mask=mask)
    else:
        question = max_over_time(states, mask)  # [PQ, U]
    if config.history:
        read = read_history(question, inputs, embedding, config.hops)
        question, weights["history_attention"] = read
    return groups.Split()(question, inputs["tokens"]), weights


@keras.saving.register_keras_serializable(package="unroll")
class PreviousRounds(keras.layers.Layer):
    """The rounds of a dialog, for each of its questions, and a mask of those before the question.

    Call arguments:
        facts: `[P, R, U]`.
        mask: `[P, R]`, false where there is no round.
        like: `[P, Q, ...]`, for Q. The questions are those of the last Q rounds.

    Returns:
        `[P * Q, R, U]` and the mask `[P * Q, R]`.
    """

    def call(self, facts, mask, like):
        rounds, questions = ops.shape(mask)[1], ops.shape(like)[1]
        number = ops.arange(rounds)
        before = number[None, :] < number[rounds - questions :, None]  # [Q, R]
        mask = ops.logical_and(ops.expand_dims(mask, 1), ops.expand_dims(before, 0))
        each = ops.zeros((1, questions, 1, 1), facts.dtype)
        facts = ops.expand_dims(facts, 1) + each  # [P, Q, R, U]
        return (
            ops.reshape(facts, (-1, rounds, facts.shape[-1])),
            ops.reshape(mask, (-1, rounds)),
        )


def read_history(question, inputs: dict, embedding: keras.layers.Layer, hops: int) -> tuple:
    """Adds the output of a memory network to questions, `[P * Q, U]`.

    The facts are the rounds `[P, R, T]` of the dialog: the last state of an LSTM, and the mean of
    the word vectors.

    Returns:
        The questions, and the weight of each round in each hop, `[P * Q, hops, R]`.
    """
    units = question.shape[-1]
    rounds = groups.Merge()(inputs["rounds"])
    words, mask = embedding(rounds), ops.not_equal(rounds, PADDING)
    states = layers.LSTM(units - words.shape[-1], name="facts")(words, mask=mask)
    facts = ops.concatenate([states, mean_over_time(words, mask)], axis=-1)
    facts = groups.Split()(facts, inputs["rounds"])  # [P, R, U]
    present = ops.any(ops.not_equal(inputs["rounds"], PADDING), axis=-1)
    facts, before = PreviousRounds()(facts, present, inputs["tokens"])
    memory = layers.MemoryNetwork(units, hops, memory_size=MAX_ROUNDS, name="history")
    read, weights = memory(facts, question, facts_mask=before)
    # Zero at first: the model starts as one without a memory, whose weights `--start` may copy.
    project = keras.layers.Dense(units, kernel_initializer="zeros", name="history_projection")
    return question + project(read), weights


def attend_to_image(config, question, regions, mask) -> tuple:
    """The attended vectors of all glimpses, `[P, Q, D']`, and their weights.

    Each glimpse also depends on the vectors of the previous ones. With `global_average`, the mean
    of all regions is appended.
    """
    attended, weights = [], []
    for _ in range(config.glimpses):
        query = ops.concatenate([question, *attended], axis=-1)
        glimpse = layers.QuestionGuidedAttention(
            config.attention_units,
            # The weights of the regions differ from the start.
            scale_initializer=keras.initializers.RandomNormal(stddev=1.0),
            count_features=config.count_features,
        )
        vector, weight = glimpse(query, regions, regions_mask=mask)
        attended.append(vector)
        weights.append(weight)
    if config.global_average:
        mean = ops.expand_dims(mean_over_regions(regions, mask), 1)
        attended.append(mean + 0 * attended[0][..., :1])
    return ops.concatenate(attended, axis=-1), ops.concatenate(weights, axis=2)


def mean_over_regions(regions, mask=None):
    """The mean of `[B, S, D]` or `[B, H, W, D]`, `[B, D]`, over the regions in the mask."""
    if len(regions.shape) == 4:
        regions = keras.layers.Reshape((-1, regions.shape[-1]))(regions)
    return mean_over_time(regions, mask)


def fuse(question, image, units: int, dropout: float):
    """The normalized product of a dense layer of each: `[P, Q, ...]` to `[P, Q, units]`.

    One of the two may be `None`.
    """
    factors = []
    for x in (question, image):
        if x is not None:
            factors.append(keras.layers.Dense(units, "tanh")(keras.layers.Dropout(dropout)(x)))
    product = ops.multiply(*factors) if len(factors) > 1 else factors[0]
    return keras.layers.UnitNormalization()(product)


def with_attention(model: keras.Model) -> keras.Model:
    """A model with the outputs of `build_answerer`, from the same inputs."""
    features = dict(model.input)
    if "image" in features:
        features["regions"] = model.get_layer("encoder")(features.pop("image"))
    return keras.Model(model.input, model.get_layer("answerer")(features))


@keras.saving.register_keras_serializable(package="unroll")
class AnswerLoss(keras.losses.Loss):
    """Cross entropy of the first answer to each question.

    Labels are `[P, Q, N]`, logits `[P, Q, A]`. Questions whose answer is not in the vocabulary have
    no loss.
    """

    def __init__(self, name="answer_loss", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        first = ops.cast(y_true[..., 0], "int32")
        known = ops.cast(first >= FIRST_ANSWER, y_pred.dtype)
        target = ops.maximum(first - FIRST_ANSWER, 0)
        losses = keras.losses.sparse_categorical_crossentropy(target, y_pred + 0, from_logits=True)
        return ops.sum(losses * known) / ops.maximum(ops.sum(known), 1)


@keras.saving.register_keras_serializable(package="unroll")
class AnswerAccuracy(keras.metrics.Metric):
    """The accuracy of the first answer; labels `[P, Q, N]`, logits `[P, Q, A]`."""

    def __init__(self, name="accuracy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.correct = self.add_weight(name="correct", initializer="zeros")
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        first = ops.cast(y_true[..., 0], "int32")
        predicted = ops.cast(ops.argmax(y_pred, axis=-1), "int32") + FIRST_ANSWER
        self.correct.assign_add(ops.sum(ops.cast(first == predicted, "float32")))
        self.total.assign_add(ops.sum(ops.cast(first != NO_QUESTION, "float32")))

    def result(self):
        return self.correct / ops.maximum(self.total, 1)
