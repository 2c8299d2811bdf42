"""The network: vectors and context vectors of words, trained with shared negative samples."""

import keras
import tensorflow as tf
from keras import ops

from unroll.pipelines import text as texts
from unroll.pipelines.word_vectors import BLOCK, END, letter_ngrams

_WORDS_OF_A_BLOCK = 64  # of the vocabulary, for each block of an update
_NGRAMS_OF = 4096  # words whose n-grams are looked up at once
_LARGE = 1e9


class NegativeSampling(keras.Model):
    """Skip-gram and CBOW with negative sampling (Mikolov et al. 2013).

    A word w and a word c in its window have the score `u_w . v_c`, where u are the vectors and v
    the context vectors. For K negative samples n of each pair, the loss is

        -log sigmoid(u_w . v_c) - sum_n log sigmoid(-u_w . v_n).

    CBOW replaces `u_w` by the mean of the vectors of all words in the window, and `v_c` by `v_w`.

    The words of a block share their negative samples, whose losses are weighted so that each pair
    has K of them. So the scores of all pairs of a block are one matrix product, and so are the
    gradients. An update is stochastic gradient descent on the rows of the words of `batch_size`
    blocks, fewer if the vocabulary is small; no other row is read or written. The norm of the
    gradient of a word in a block is limited: without, one of several runs diverges at learning
    rates that are good for the others. One training step makes many updates, in a loop in the
    graph. With letter n-grams, `u_w` is the mean of the vectors of the word and of its n-grams.

    What the app uses is `u_w + v_w` (Pennington et al. 2014), or `u_w` without `add_contexts`.

    Under a distribution strategy each replica updates its own vectors, and the mean of the replicas
    replaces them after each step.

    Args:
        config: of the app.
        vocabulary: the words by id.

    Call arguments:
        inputs: `words`, `[B]` ids; with n-grams also `ngrams`, `[B, L]`, where 0 is padding.

    Returns:
        `vectors` and `contexts`, `[B, D]` each.
    """

    def __init__(self, config, vocabulary: list[str]):
        size, dim = len(vocabulary), config.embedding_dim
        inputs = {"words": keras.Input((), dtype="int32", name="words")}
        start = keras.initializers.RandomUniform(-0.5 / dim, 0.5 / dim, seed=config.seed)
        vectors = keras.layers.Embedding(size, dim, start, name="vectors")
        contexts = keras.layers.Embedding(size, dim, "zeros", name="contexts")
        ngrams = None
        x = vectors(inputs["words"])
        if config.ngram_buckets:
            inputs["ngrams"] = keras.Input((None,), dtype="int32", name="ngrams")
            start = keras.initializers.RandomUniform(-0.5 / dim, 0.5 / dim, seed=config.seed + 1)
            ngrams = keras.layers.Embedding(config.ngram_buckets + 1, dim, start, name="ngrams_of")
            is_ngram = ops.cast(ops.not_equal(inputs["ngrams"], 0), "float32")[..., None]
            total = x + ops.sum(ngrams(inputs["ngrams"]) * is_ngram, axis=1)
            x = total / (1 + ops.sum(is_ngram, axis=1))
        outputs = {"vectors": x, "contexts": contexts(inputs["words"])}
        super().__init__(inputs, outputs)
        self.vectors, self.contexts, self.ngrams = vectors, contexts, ngrams
        self.table = None
        if ngrams:
            self.table = padded_ngrams(config, tf.constant(vocabulary[texts.UNKNOWN + 1 :]))
            self.table = tf.pad(self.table, [[texts.UNKNOWN + 1, 0], [0, 0]])  # [V, L]
        self.objective = config.objective
        self.add_contexts = config.add_contexts
        self.negatives = float(config.negatives)
        self.clip_norm = config.clip_norm
        # The steps of repeated words add up: with a small vocabulary, many blocks would diverge.
        self.blocks = max(1, min(config.batch_size, size // _WORDS_OF_A_BLOCK))
        self.decay = config.learning_rate / config.epochs if config.schedule == "linear" else 0.0
        self.loss_mean = keras.metrics.Mean("loss")
        self.accuracy_mean = keras.metrics.Mean("accuracy")

    def train_step(self, data):
        """Updates the vectors with the blocks of a segment of the text, and returns the loss.

        The loss is that of the first update. There are no analogies, whose accuracy is zero.
        """
        (features, labels), rate = data, self.optimizer.learning_rate
        words, negatives = features["words"], features["negatives"]
        progress, windows = features["progress"], labels["windows"]
        count = tf.shape(words)[0]

        def update(first, loss):
            part = slice(first, first + self.blocks)
            step = rate - self.decay * progress[first]
            losses = self._update(words[part], negatives[part], windows[part], step, first == 0)
            return first + self.blocks, loss + losses

        _, loss = tf.while_loop(
            lambda first, _: first < count, update, (0, 0.0), parallel_iterations=1
        )
        self.optimizer.iterations.assign_add(1)
        self._average_over_replicas()
        # Rows that the next loss does not read, or the validation, may have diverged.
        loss = tf.where(self._is_finite(), loss, float("nan"))
        self.loss_mean.update_state(loss)
        return {"loss": self.loss_mean.result(), "accuracy": self.accuracy_mean.result()}

    def test_step(self, data):
        """The loss of blocks of a text, and the accuracy of analogies."""
        features, labels = data
        losses, pairs = self.losses(features["words"], features["negatives"], labels["windows"])
        self.loss_mean.update_state(losses / tf.maximum(pairs, 1.0), sample_weight=pairs)
        questions = features["words"][:, :4]
        counted = (labels["section"] > 0) & tf.reduce_all(questions > texts.UNKNOWN, axis=1)
        questions = tf.boolean_mask(questions, counted)
        is_right = answer(self.matrix(), questions[:, :3]) == questions[:, 3]
        self.accuracy_mean.update_state(tf.cast(is_right, "float32"))
        return {"loss": self.loss_mean.result(), "accuracy": self.accuracy_mean.result()}

    def losses(self, words, negatives, windows) -> tuple:
        """The sum of the losses of the pairs of blocks, and the number of pairs, scalars."""
        return self._scores(words, negatives, windows).losses()

    def matrix(self):
        """The vectors of all words, `[V, D]`, with those of their n-grams and contexts."""
        contexts = tf.convert_to_tensor(self.contexts.embeddings) if self.add_contexts else 0.0
        matrix = tf.convert_to_tensor(self.vectors.embeddings)
        if self.table is None:
            return matrix + contexts
        parts = [
            self._composed(matrix[k : k + _NGRAMS_OF], self.table[k : k + _NGRAMS_OF])[0]
            for k in range(0, matrix.shape[0], _NGRAMS_OF)
        ]
        return tf.concat(parts, axis=0) + contexts

    def compose(self, ngrams):
        """The vectors of unknown words from their n-grams: `[B, L]` padded ids to `[B, D]`."""
        nothing = tf.zeros([tf.shape(ngrams)[0], self.contexts.output_dim])
        composed, has, _ = self._composed(nothing, ngrams)
        # The mean is over the n-grams alone.
        count = tf.reduce_sum(has, axis=1)
        return composed * (1 + count) / tf.maximum(count, 1)

    def _composed(self, vectors, ngrams) -> tuple:
        """The means of vectors `[M, D]` and of those of n-grams `[M, L]`, and which these are."""
        is_ngram = tf.cast(ngrams > 0, tf.float32)[..., None]  # [M, L, 1]
        total = vectors + tf.reduce_sum(gather(self.ngrams, ngrams) * is_ngram, axis=1)
        return total / (1 + tf.reduce_sum(is_ngram, axis=1)), is_ngram, ngrams

    def _rows(self, ids) -> tuple:
        """The vectors of words, and a function that subtracts a gradient from what they are of."""
        if self.table is None:
            return gather(self.vectors, ids), lambda step: subtract(self.vectors, ids, step)
        unique, positions = tf.unique(tf.reshape(ids, [-1]))
        composed, is_ngram, ngrams = self._composed(
            gather(self.vectors, unique), tf.gather(self.table, unique)
        )

        def update(step):
            step = tf.reshape(step, [-1, step.shape[-1]])
            step = tf.math.unsorted_segment_sum(step, positions, tf.shape(unique)[0])
            subtract(self.vectors, unique, step)
            # As fastText does, not divided by the number of n-grams.
            subtract(self.ngrams, ngrams, step[:, None] * is_ngram)

        return tf.reshape(tf.gather(composed, positions), [*tf.unstack(tf.shape(ids)), -1]), update

    def _scores(self, words, negatives, windows) -> "_Scores":
        kind = _SkipGram if self.objective == "skip_gram" else _Cbow
        return kind(self, words, negatives, windows)

    def _update(self, words, negatives, windows, rate, with_loss):
        """Updates the rows of some blocks; the mean loss of a pair, or zero without the loss."""
        scores = self._scores(words, negatives, windows)

        def mean():
            losses, pairs = scores.losses()
            return losses / tf.maximum(pairs, 1.0)

        loss = tf.cond(with_loss, mean, lambda: 0.0)
        with tf.control_dependencies([loss]):
            scores.update(rate)
        return loss

    def _is_finite(self):
        layers = filter(None, (self.vectors, self.contexts, self.ngrams))
        sums = [tf.reduce_sum(tf.convert_to_tensor(each.embeddings)) for each in layers]
        return tf.reduce_all(tf.math.is_finite(sums))

    def _average_over_replicas(self) -> None:
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return
        for layer in filter(None, (self.vectors, self.contexts, self.ngrams)):
            handle = layer.embeddings.value.handle
            own = tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)
            mean = replica.all_reduce(tf.distribute.ReduceOp.MEAN, own)
            tf.raw_ops.AssignVariableOp(resource=handle, value=mean)


class _Scores:
    """The scores of the pairs of blocks, and the gradients of their losses.

    Attributes:
        ids: of the words that are predicted and of the negative samples, `[B, P + K]`.
        inputs: the vectors that predict, `[B, BLOCK, D]`.
        outputs: the context vectors of `ids`, `[B, P + K, D]`.
        is_pair: which scores are those of pairs, `[B, BLOCK, P]`.
        weight: of the negative samples of each word, `[B, BLOCK, 1]`.
    """

    def __init__(self, model: NegativeSampling, words, negatives, windows):
        self.model = model
        window = (words.shape[1] - BLOCK) // 2
        self.words = words
        self.centers = words[:, window : window + BLOCK]
        self.neighbors = _neighbors(words, windows, window)  # [B, BLOCK, S]
        self.shared = negatives.shape[1]
        self.count = tf.reduce_sum(self.neighbors, axis=-1, keepdims=True)
        self.ids = tf.concat([self.predicted(), negatives], axis=1)
        self.outputs = gather(model.contexts, self.ids)
        self.inputs, self.update_inputs = self.predict()
        self.scores = tf.matmul(self.inputs, self.outputs, transpose_b=True)
        self.pairs = self.scores[..., : -self.shared]
        self.unpaired = self.scores[..., -self.shared :]

    def losses(self) -> tuple:
        """The sum of the losses, and the number of pairs."""
        positive = tf.reduce_sum(self.is_pair * tf.nn.softplus(-self.pairs))
        negative = tf.reduce_sum(self.weight * tf.nn.softplus(self.unpaired))
        return positive + negative, tf.reduce_sum(self.is_pair)

    def update(self, rate) -> None:
        """A step of gradient descent on the rows of the words."""
        positive = self.is_pair * (tf.sigmoid(self.pairs) - 1)
        negative = self.weight * tf.sigmoid(self.unpaired)
        slopes = tf.concat([positive, negative], axis=-1) * rate
        of_inputs = tf.matmul(slopes, self.outputs)  # [B, BLOCK, D]
        of_outputs = tf.matmul(slopes, self.inputs, transpose_a=True)  # [B, P + K, D]
        if self.model.clip_norm:
            most = self.model.clip_norm * rate
            of_inputs, of_outputs = (
                tf.clip_by_norm(x, most, axes=-1) for x in (of_inputs, of_outputs)
            )
        self.update_inputs(of_inputs)
        subtract(self.model.contexts, self.ids, of_outputs)


class _SkipGram(_Scores):
    """Each word predicts the words in its window."""

    def predicted(self):
        return self.words

    def predict(self):
        self.is_pair = self.neighbors
        self.weight = self.count * (self.model.negatives / self.shared)
        return self.model._rows(self.centers)


class _Cbow(_Scores):
    """The mean of the words in a window predicts the word."""

    def predicted(self):
        return self.centers

    def predict(self):
        has_window = tf.minimum(self.count, 1.0)
        self.is_pair = tf.eye(BLOCK) * has_window
        self.weight = has_window * (self.model.negatives / self.shared)
        rows, update = self.model._rows(self.words)
        means = tf.matmul(self.neighbors / tf.maximum(self.count, 1.0), rows)
        # As word2vec does, the gradient is that of the sum.
        return means, lambda step: update(tf.matmul(self.neighbors, step, transpose_a=True))


def _neighbors(words, windows, window: int):
    """Which words are in the window of which, as 0 and 1: `[B, BLOCK, W + BLOCK + W]`.

    A word is not in its own window, and windows end at the ends of lines.
    """
    distances = tf.abs(tf.range(BLOCK + 2 * window) - tf.range(BLOCK)[:, None] - window)
    distances = tf.where(distances == 0, window + 1, distances)  # [BLOCK, S]
    lines = tf.cumsum(tf.cast(words == END, tf.int32), axis=1)
    of_centers = slice(window, window + BLOCK)
    is_in = (distances <= windows[..., None]) & (lines[:, None] == lines[:, of_centers, None])
    is_word = words != END
    return tf.cast(is_in & is_word[:, None] & is_word[:, of_centers, None], tf.float32)


def gather(layer: keras.layers.Embedding, ids):
    """The rows of an embedding: those of this replica, under a distribution strategy."""
    variable = layer.embeddings.value
    if isinstance(variable, tf.distribute.DistributedValues):
        return tf.raw_ops.ResourceGather(resource=variable.handle, indices=ids, dtype=tf.float32)
    return tf.gather(variable, ids)


def subtract(layer: keras.layers.Embedding, ids, steps) -> None:
    """Subtracts steps from the rows of an embedding of this replica, also from repeated ones."""
    tf.raw_ops.ResourceScatterSub(
        resource=layer.embeddings.value.handle, indices=ids, updates=steps
    )


def padded_ngrams(config, names):
    """The n-grams of words, `[N]` strings, as `[N, L]` ids. 0 is padding."""
    found = letter_ngrams(names, config.min_ngram, config.max_ngram, config.ngram_buckets)
    return texts.to_dense(found)


def normalized(vectors):
    """Vectors of length 1, `[..., D]`; a vector of zeros remains."""
    return tf.math.divide_no_nan(vectors, tf.norm(vectors, axis=-1, keepdims=True))


def nearest(matrix, queries, excluded, most: int) -> tuple:
    """The words whose vectors have the largest cosines with queries.

    Args:
        matrix: the vectors of all words, `[V, D]`.
        queries: `[B, D]`.
        excluded: ids of words that are no results, `[B, E]`. Padding and the unknown word are none
            either.
        most: N, the number of results.

    Returns:
        The cosines and the ids, `[B, N]` each, the largest first.
    """
    lengths = tf.norm(matrix, axis=-1)
    scores = tf.math.divide_no_nan(
        tf.matmul(normalized(queries), matrix, transpose_b=True), lengths
    )
    size = tf.shape(matrix)[0]
    special = tf.fill([tf.shape(excluded)[0], 1], 0) + tf.range(texts.UNKNOWN + 1)
    excluded = tf.concat([excluded, special], axis=1)
    rows = tf.repeat(tf.range(tf.shape(excluded)[0]), tf.shape(excluded)[1])
    positions = tf.stack([rows, tf.reshape(excluded, [-1])], axis=1)
    lowest = tf.fill([tf.shape(positions)[0]], -_LARGE)
    scores = tf.tensor_scatter_nd_update(scores, positions, lowest)
    return tf.math.top_k(scores, tf.minimum(most, size))


def answer(matrix, questions):
    """The id d for which a is to b as c is to d, from the ids a, b and c: `[B, 3]` to `[B]`.

    The word with the largest cosine with `b - a + c` (3CosAdd), which is none of these.
    """
    a, b, c = tf.unstack(normalized(tf.gather(matrix, questions)), axis=1)
    _, ids = nearest(matrix, b - a + c, questions, 1)
    return ids[:, 0]
