"""The layers of key terms: how probable each candidate is, and which candidates are selected.

A candidate is the N words or less that begin at a word. All layers describe candidates as
`[B, T, N, L]`: by the word that they begin with, by their number of words minus 1, and by their
label. The L labels are those of the tags B-<label>, in the order of their names.
"""

import keras
from keras import ops

from unroll import layers
from unroll.layers import backend
from unroll.layers.operations import best
from unroll.layers.structured import forward_backward
from unroll.layers.structured.log_space import log_sum_exp

_NEVER = -1e9  # the value of a selection that is not possible


def begin_and_inside(tags: list[str]) -> tuple[list[int], list[int | None]]:
    """The ids of B-x and I-x for each label x; None where there is no I-x.

    >>> begin_and_inside(["B-b", "B-a", "I-a", "O"])
    ([1, 0], [2, None])
    """
    ids = {tag: k for k, tag in enumerate(tags)}
    labels = sorted(tag[2:] for tag in tags if tag.startswith("B-"))
    return [ids[f"B-{x}"] for x in labels], [ids.get(f"I-{x}") for x in labels]


def _later(x, steps: int):
    """`x` `[B, T, ...]` as it is `steps` later: the values at T and after are 0."""
    if not steps:
        return x
    missing = [[0, 0], [0, steps], *([0, 0] for _ in x.shape[2:])]
    return ops.pad(x, missing)[:, steps:]


@keras.saving.register_keras_serializable(package="unroll")
class SpanCRF(layers.CRF):
    """A CRF over BIO tags that returns the probability of each candidate.

    The probability that the words b to e are a span with label x is, since the tags are a Markov
    chain,

        P(y_b = B-x) P(y_{b+1} = I-x | y_b) ... P(y_e = I-x | y_{e-1}) P(y_{e+1} != I-x | y_e)

    with all factors from the forward-backward algorithm.

    Args:
        tags: the names of the K tags.
        max_words: N.

    Call arguments:
        potentials, mask: as in `layers.CRF`. The mask is True for the first words of a text.

    Returns:
        The probabilities, `[B, T, N, L]`, float32.
    """

    def __init__(self, tags: list[str], max_words: int, **kwargs):
        super().__init__(len(tags), allowed_transitions=layers.bio_transitions(tags), **kwargs)
        self.tags = list(tags)
        self.max_words = max_words

    def call(self, potentials, mask=None):
        x, steps = self._time_major(*self._prepare(potentials, mask))
        transitions, start, end = self._scores()
        _, alphas, _, _ = forward_backward.forward(x, steps, transitions, start, end)
        betas = forward_backward.backward(x, steps, transitions, end)
        marginals = forward_backward.marginals(alphas, betas, steps)
        # The log probability of the tags at and after a step, given the tag at this step.
        after = ops.where(steps, x + betas, 0.0)
        labels = []
        for begin, inside in zip(*begin_and_inside(self.tags), strict=True):
            first = ops.transpose(marginals[..., begin])  # [B, T]
            if inside is None:
                none = ops.zeros_like(first)
                labels.append(ops.stack([first, *[none] * (self.max_words - 1)], axis=-1))
                continue
            from_begin, from_inside = (
                self._probability_of(inside, tag, after, transitions, steps)
                for tag in (begin, inside)
            )
            spans, path, going_on = [], first, from_begin
            for n in range(self.max_words):
                if n:
                    path = path * going_on
                    going_on = _later(from_inside, n)
                spans.append(path * (1 - going_on))
            labels.append(ops.stack(spans, axis=-1))
        return ops.stack(labels, axis=-1)

    def _probability_of(self, tag: int, previous: int, after, transitions, steps):
        """P(y_{t+1} = tag | y_t = previous), `[B, T]`; 0 where there is no next step."""
        scores = after + transitions[previous]  # [T, B, K]
        probability = ops.exp(scores[..., tag] - log_sum_exp(scores))
        return _later(ops.transpose(ops.where(steps[..., 0], probability, 0.0)), 1)

    def compute_output_shape(self, potentials_shape):
        labels = sum(tag.startswith("B-") for tag in self.tags)
        return (*potentials_shape[:2], self.max_words, labels)

    def compute_output_spec(self, potentials, mask=None):
        return keras.KerasTensor(self.compute_output_shape(potentials.shape), "float32")

    def compute_mask(self, potentials, mask=None):
        return None

    def get_config(self):
        config = super().get_config() | {"tags": self.tags, "max_words": self.max_words}
        return {k: v for k, v in config.items() if k not in ("num_tags", "allowed_transitions")}


@keras.saving.register_keras_serializable(package="unroll")
class CandidateScores(keras.layers.Layer):
    """Scores each candidate by its words, and by a document vector and its attention weights.

    With the states h of the words, the vector d of the document and the weights a of its words, the
    score of the words b to e is

        m = mean of W_m h_t, s = sum of T a_t, over t = b, ..., e
        u = tanh(W_b h_b + W_e h_e + m + (W_p d) * m + W_d d + s w_a + l_{e-b+1} + b)
        score = V u

    with a vector l for each number of words. There is a score for each of the K tags, so that the
    columns of V are those of the tags. Those of B-x are returned.

    Args:
        tags: the names of the K tags.
        max_words: N.
        units: the size of u.

    Call arguments:
        states: `[B, T, D]`.
        document: `[B, E]`.
        weights: `[B, T]`.
        mask: `[B, T]`, boolean, True for the first words of a text.

    Returns:
        The scores, `[B, T, N, L]`.
    """

    def __init__(self, tags: list[str], max_words: int, units: int, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.tags = list(tags)
        self.max_words = max_words
        self.units = units
        self.of_first, self.of_last, self.of_mean, self.of_document, self.of_product = (
            keras.layers.Dense(units, use_bias=name == "document", name=name)
            for name in ("first", "last", "mean", "document", "product")
        )
        self.head = keras.layers.Dense(len(tags), dtype="float32", name="head")

    def build(self, states_shape, document_shape, weights_shape):
        for layer in (self.of_first, self.of_last, self.of_mean):
            layer.build(states_shape)
        for layer in (self.of_document, self.of_product):
            layer.build(document_shape)
        self.head.build((*states_shape[:2], self.units))
        self.of_attention = self.add_weight(shape=(self.units,), name="attention")
        self.of_length = self.add_weight(shape=(self.max_words, self.units), name="length")

    def call(self, states, document, weights, mask=None):
        if mask is None:
            mask = ops.ones(ops.shape(weights), "bool")
        lengths = ops.sum(ops.cast(mask, weights.dtype), axis=1, keepdims=True)
        first, last, mean = (f(states) for f in (self.of_first, self.of_last, self.of_mean))
        whole = ops.expand_dims(self.of_document(document), 1)  # [B, 1, M]
        gate = 1 + ops.expand_dims(self.of_product(document), 1)
        weights = ops.expand_dims(weights * lengths, -1)  # [B, T, 1]
        begins, _ = begin_and_inside(self.tags)
        total, attended, scores = 0, 0, []
        for n in range(self.max_words):
            total, attended = total + _later(mean, n), attended + _later(weights, n)
            u = first + _later(last, n) + gate * (total / (n + 1)) + whole
            u = ops.tanh(u + attended * self.of_attention + self.of_length[n])
            scores.append(ops.take(self.head(u), ops.array(begins, "int32"), axis=-1))
        return ops.stack(scores, axis=2)

    def compute_mask(self, inputs, mask=None):
        return None

    def compute_output_shape(self, states_shape, document_shape, weights_shape):
        labels = sum(tag.startswith("B-") for tag in self.tags)
        return (*states_shape[:2], self.max_words, labels)

    def get_config(self):
        own = {"tags": self.tags, "max_words": self.max_words, "units": self.units}
        return super().get_config() | own


@keras.saving.register_keras_serializable(package="unroll")
class CandidateLoss(keras.losses.Loss):
    """The cross-entropy of all candidates of a text, each a key term or not; mean over the batch.

    Args:
        tags: the names of the K tags.
        max_words: N. A span with more words is not a candidate.

    Call arguments:
        y_true: the tags, `[B, T]`, below zero for padding.
        y_pred: the scores, `[B, T, N L]`.
    """

    def __init__(self, tags: list[str], max_words: int, name: str = "candidate_loss"):
        super().__init__(name=name)
        self.tags = list(tags)
        self.max_words = max_words

    def call(self, y_true, y_pred):
        targets, counted = self.targets(ops.cast(y_true, "int32"))
        scores = ops.reshape(ops.cast(y_pred, "float32"), ops.shape(targets))
        losses = ops.softplus(scores) - scores * targets
        return ops.sum(ops.where(counted, losses, 0.0), axis=(1, 2, 3))

    def targets(self, tags) -> tuple:
        """Whether each candidate is a span `[B, T, N, L]`, and whether it is in the text."""
        real = ops.cast(tags >= 0, "int32")
        labels = []
        for begin, inside in zip(*begin_and_inside(self.tags), strict=True):
            path, spans = ops.cast(tags == begin, "int32"), []
            is_inside = ops.cast(tags == (-2 if inside is None else inside), "int32")
            for n in range(1, self.max_words + 1):
                after = _later(is_inside, n)
                spans.append(path * (1 - after))
                path = path * after
            labels.append(ops.stack(spans, axis=-1))
        counted = ops.stack([_later(real, n) for n in range(self.max_words)], axis=-1)
        return ops.cast(ops.stack(labels, axis=-1), "float32"), ops.expand_dims(counted, -1) > 0

    def get_config(self):
        return {"tags": self.tags, "max_words": self.max_words, "name": self.name}


@keras.saving.register_keras_serializable(package="unroll")
class SelectSpans(keras.layers.Layer):
    """The candidates that do not overlap with the largest sum of probability minus threshold.

    If the F1 of spans is F, the selection with the threshold F / 2 has the highest expected F1: a
    span of probability p adds p correct spans, and 1 to the number of predicted ones. The selection
    is found by dynamic programming over the words.

    Args:
        tags: the names of the K tags.
        threshold: of the probability. It can be lower than that of all selected spans only if they
            are the better of two that overlap.

    Call arguments:
        probabilities: `[B, T, N, L]`.
        mask: `[B, T]`, boolean, True for the first words of a text.

    Returns:
        A tuple of the tags `[B, T]`, int32, 0 where the mask is False; and the probability of the
        span that begins at a word `[B, T]`, 0 at the other words.
    """

    def __init__(self, tags: list[str], threshold: float, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        self.tags = list(tags)
        self.threshold = threshold

    def call(self, probabilities, mask=None):
        max_words = probabilities.shape[2]
        begins, insides = begin_and_inside(self.tags)
        if mask is None:
            mask = ops.ones(ops.shape(probabilities)[:2], "bool")
        probabilities = ops.cast(probabilities, "float32")
        # A label without a tag I-x has no spans of several words.
        possible = [[n == 0 or i is not None for i in insides] for n in range(max_words)]
        p, label = best(ops.where(ops.array(possible), probabilities, 0.0))  # [B, T, N]
        real = ops.cast(mask, "float32")
        inside_text = ops.stack([_later(real, n) for n in range(max_words)], axis=-1)
        gains = ops.where(inside_text > 0, p - self.threshold, -1.0)
        # From the candidates that begin at a word to those that end there.
        ending = [_earlier(gains[:, :, n], n, -1.0) for n in range(max_words)]
        ending_label = [_earlier(label[:, :, n], n, 0) for n in range(max_words)]
        sizes = self._forward(ops.transpose(ops.stack(ending, axis=-1), (1, 0, 2)))  # [T, B, 1]
        numbers = ops.arange(1, max_words + 1, dtype="int32")
        labels = ops.transpose(ops.stack(ending_label, axis=-1), (1, 0, 2))
        labels = ops.sum(ops.where(sizes == numbers, labels, 0), axis=-1, keepdims=True)
        first, own = (ops.transpose(x[..., 0]) for x in self._backward(sizes, labels))  # [B, T]
        is_first, is_inside = first > 0, first < 0
        begin = ops.take(ops.array(begins, "int32"), own)
        inside = ops.take(ops.array([i or 0 for i in insides], "int32"), own)
        outside = self.tags.index("O")
        tags = ops.where(is_first, begin, ops.where(is_inside, inside, outside))
        scores = ops.sum(ops.where(ops.expand_dims(first, -1) == numbers, p, 0.0), axis=-1)
        return ops.where(mask, tags, 0), ops.where(is_first, scores, 0.0)

    def _forward(self, ending):
        """The number of words of the best span that ends at each word; 0 for none."""
        max_words = ending.shape[-1]
        empty = ops.zeros((ops.shape(ending)[1], max_words), ending.dtype)
        start = ops.where(ops.arange(max_words) == 0, empty, _NEVER)

        def step(carry, xs):
            # The values of the best selections up to 1, 2, ... words before, minus the first.
            (history,), (gain,) = carry, xs
            top, n = best(history + gain)
            top, n = ops.expand_dims(top, -1), ops.expand_dims(n, -1)
            chosen = top > 0
            value = ops.where(chosen, top, 0.0)
            history = ops.concatenate([value, history[:, :-1]], axis=-1) - value
            return (ops.maximum(history, _NEVER),), (ops.where(chosen, n + 1, 0),)

        like = ops.cast(empty[:, :1], "int32")
        return backend.scan(step, (start,), (ending,), (like,), False)[1][0]

    def _backward(self, sizes, labels) -> tuple:
        """At each word the number of words of the span that it begins, -1 inside; its label."""
        none = ops.zeros((ops.shape(sizes)[1], 1), sizes.dtype)

        def step(carry, xs):
            # The words that remain of the span that ends at this word or later, and its words.
            (remaining, size, own), (new, label) = carry, xs
            ends = remaining == 0
            remaining, size = ops.where(ends, new, remaining), ops.where(ends, new, size)
            own = ops.where(ends, label, own)
            begins = ops.where(remaining == 1, size, ops.where(remaining > 1, -1, 0))
            return (ops.maximum(remaining - 1, 0), size, own), (begins, own)

        return backend.scan(step, (none,) * 3, (sizes, labels), (none,) * 2, True)[1]

    def compute_mask(self, probabilities, mask=None):
        return [None, None]

    def compute_output_spec(self, probabilities, mask=None):
        shape = probabilities.shape[:2]
        return keras.KerasTensor(shape, "int32"), keras.KerasTensor(shape, "float32")

    def get_config(self):
        return super().get_config() | {"tags": self.tags, "threshold": self.threshold}


def _earlier(x, steps: int, value):
    """`x` `[B, T]` as it was `steps` before: the values before the first are `value`."""
    if not steps:
        return x
    return ops.pad(x, [[0, 0], [steps, 0]], constant_values=value)[:, : ops.shape(x)[1]]
