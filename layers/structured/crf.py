"""A linear-chain conditional random field."""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from unroll.layers import backend
from unroll.layers.initializers import clone_initializer
from unroll.layers.operations import LOG_ZERO, argmax, require_size, time_major
from unroll.layers.structured import forward_backward


@keras.saving.register_keras_serializable(package="unroll")
class CRF(keras.layers.Layer):
    """Predicts the most probable sequence of tags, with scores for pairs of adjacent tags.

    Lafferty, McCallum and Pereira 2001, "Conditional random fields"; with a recurrent network
    Huang, Xu and Yu 2015, "Bidirectional LSTM-CRF models for sequence tagging". With the potential
    x_t(k) of tag k at step t, a sequence of tags y has

        s(y) = start(y_1) + sum_t x_t(y_t) + sum_{t>1} A(y_{t-1}, y_t) + end(y_T)
        log P(y) = s(y) - log Z, where Z is the sum of exp(s) over all sequences

    The layer returns the best tags. Train the model on the potentials with `loss`:

        tags = crf(potentials, mask=mask)
        model = keras.Model(tokens, {"potentials": potentials, "tags": tags})
        model.compile("adam", loss={"potentials": crf.loss})

    The loss is the mean of -log P over a batch. Tags below zero are padding.

    Args:
        num_tags: K.
        allowed_transitions: `[K + 1, K + 1]`, boolean, whether a tag (row) may be followed by
            another (column). The last row is for the first tag of a sequence, the last column for
            the last tag. `bio_transitions` returns such a matrix. By default all are allowed.
        transition_initializer: the initializer of A, start and end.
        transition_regularizer: the regularizer of A.

    Call arguments:
        potentials: `[B, T, K]`.
        mask: `[B, T]`, boolean. A step where it is False is skipped; its tag is 0.

    Returns:
        The best tags, `[B, T]`, int32.

    Raises:
        ValueError: if `num_tags` is below one, or `allowed_transitions` or the potentials have
            another shape.

    >>> import numpy as np
    >>> from unroll.layers import CRF
    >>> potentials = np.array([[[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]]], "float32")
    >>> np.array(CRF(3)(potentials)).tolist()
    [[0, 2]]

    Differs from the paper: nothing. The recursions run in float32 under any dtype policy.
    """

    def __init__(
        self,
        num_tags: int,
        allowed_transitions=None,
        transition_initializer="zeros",
        transition_regularizer=None,
        **kwargs,
    ):
        require_size("num_tags", num_tags)
        super().__init__(**kwargs)
        self.num_tags = num_tags
        if allowed_transitions is not None:
            allowed = np.asarray(allowed_transitions, "bool")
            shape = (num_tags + 1, num_tags + 1)
            if allowed.shape != shape:
                raise ValueError(
                    f"allowed_transitions must have the shape {list(shape)} if "
                    f"num_tags={num_tags}, got {list(allowed.shape)}."
                )
            allowed_transitions = allowed.tolist()
        self.allowed_transitions = allowed_transitions
        self.transition_initializer = keras.initializers.get(transition_initializer)
        self.transition_regularizer = keras.regularizers.get(transition_regularizer)
        self.supports_masking = True
        self.loss = CRFLoss(self.log_likelihood)

    def build(self, potentials_shape):
        if len(potentials_shape) != 3 or potentials_shape[-1] != self.num_tags:
            raise ValueError(
                f"{type(self).__name__} expects potentials [B, T, {self.num_tags}], got "
                f"{tuple(potentials_shape)}."
            )
        self.transitions = self.add_weight(
            name="transitions",
            shape=(self.num_tags, self.num_tags),
            initializer=self.transition_initializer,
            regularizer=self.transition_regularizer,
        )
        self.start, self.end = (
            self.add_weight(
                name=name,
                shape=(self.num_tags,),
                initializer=clone_initializer(self.transition_initializer),
            )
            for name in ("start", "end")
        )

    def call(self, potentials, mask=None):
        return self.decode(potentials, mask)[0]

    def log_likelihood(self, potentials, tags, mask=None):
        """log P(tags), `[B]`, of `tags` `[B, T]`; 0 for a sequence without steps."""
        score = self.score(potentials, tags, mask)
        return score - self.log_partition(potentials, mask)

    def log_partition(self, potentials, mask=None):
        """log Z, `[B]`; 0 for a sequence without steps. Its gradient is the marginals."""
        x, steps = self._time_major(*self._prepare(potentials, mask))
        return forward_backward.log_partition(x, steps, *self._scores())

    def marginals(self, potentials, mask=None):
        """P(y_t = k), `[B, T, K]`; 0 where the mask is False."""
        x, steps = self._time_major(*self._prepare(potentials, mask))
        transitions, start, end = self._scores()
        _, alphas, _ = forward_backward.forward(x, steps, transitions, start, end)
        betas = forward_backward.backward(x, steps, transitions, end)
        return ops.transpose(forward_backward.marginals(alphas, betas, steps), (1, 0, 2))

    def decode(self, potentials, mask=None):
        """The best tags, `[B, T]`, and their scores s, `[B]`, by the algorithm of Viterbi 1967."""
        potentials, mask = self._prepare(potentials, mask)
        x, steps = self._time_major(potentials, mask)
        transitions, start, end = self._scores()
        tags = ops.arange(self.num_tags, dtype="int32")

        def forward(carry, xs):
            scores, started = carry
            x, step = xs
            pairs = scores[:, :, None] + transitions  # [B, K, K]
            best = argmax(ops.transpose(pairs, (0, 2, 1)))  # [B, K]
            new = x + ops.where(started, ops.max(pairs, axis=1), start)
            # The pointers of a masked step, and of the first, are the tags themselves.
            pointers = ops.where(ops.logical_and(step, started), best, tags)
            return (ops.where(step, new, scores), ops.logical_or(started, step)), (pointers,)

        carry = (ops.zeros_like(x[0]), ops.zeros_like(steps[0]))
        like = (ops.cast(x[0], "int32"),)
        (scores, started), (pointers,) = backend.scan(forward, carry, (x, steps), like, False)
        scores = scores + end
        last = argmax(scores)[:, None]  # [B, 1]

        def backward(carry, xs):
            (tag,), (pointers,) = carry, xs
            previous = ops.sum(ops.where(tags == tag, pointers, 0), axis=-1, keepdims=True)
            return (previous,), (tag,)

        _, (best,) = backend.scan(backward, (last,), (pointers,), (last,), True)
        best = ops.transpose(best[..., 0], (1, 0))  # [B, T]
        scores = ops.where(started[:, 0], ops.max(scores, axis=-1), 0.0)
        return ops.where(mask, best, 0), scores

    def score(self, potentials, tags, mask=None):
        """s(tags), `[B]`, of `tags` `[B, T]`; 0 for a sequence without steps."""
        potentials, mask = self._prepare(potentials, mask)
        transitions, start, end = self._scores()
        tags = ops.cast(tags, "int32")
        is_tag = ops.arange(self.num_tags, dtype="int32") == tags[..., None]  # [B, T, K]
        own = ops.sum(ops.where(is_tag, potentials, 0.0), axis=-1)  # [B, T]
        # The previous unmasked step of each step, or -1.
        positions = ops.arange(ops.shape(tags)[1], dtype="int32")
        is_earlier = ops.logical_and(positions < positions[:, None], mask[:, None])  # [B, T, T]
        previous = ops.max(ops.where(is_earlier, positions, -1), axis=-1)  # [B, T]
        is_previous = positions == previous[..., None]
        previous_tags = ops.sum(ops.where(is_previous, tags[:, None], 0), axis=-1)
        pairs = ops.take(ops.reshape(transitions, (-1,)), previous_tags * self.num_tags + tags)
        pairs = ops.where(previous >= 0, pairs, ops.take(start, tags))
        total = ops.sum(ops.where(mask, own + pairs, 0.0), axis=1)
        last = ops.max(ops.where(mask, positions, -1), axis=1, keepdims=True)  # [B, 1]
        is_last = ops.logical_and(positions == last, mask)
        return total + ops.sum(ops.where(is_last, ops.take(end, tags), 0.0), axis=1)

    @property
    def _dtype(self) -> str:
        return keras.backend.result_type(self.compute_dtype, "float32")

    def _prepare(self, potentials, mask) -> tuple:
        potentials = ops.cast(potentials, self._dtype)
        if mask is None:
            mask = ops.ones(ops.shape(potentials)[:2], "bool")
        return potentials, ops.cast(mask, "bool")

    def _time_major(self, potentials, mask) -> tuple:
        """The potentials as `[T, B, K]` and the mask as `[T, B, 1]`."""
        return ops.transpose(potentials, (1, 0, 2)), ops.expand_dims(time_major(mask), -1)

    def _scores(self) -> tuple:
        """A, start and end, with `LOG_ZERO` for transitions that are not allowed."""
        weights = [ops.cast(w, self._dtype) for w in (self.transitions, self.start, self.end)]
        if self.allowed_transitions is None:
            return tuple(weights)
        allowed = np.array(self.allowed_transitions)
        parts = (allowed[:-1, :-1], allowed[-1, :-1], allowed[:-1, -1])
        return tuple(ops.where(part, w, LOG_ZERO) for part, w in zip(parts, weights, strict=True))

    def compute_output_shape(self, potentials_shape):
        return tuple(potentials_shape[:2])

    def compute_output_spec(self, potentials, mask=None):
        return keras.KerasTensor(potentials.shape[:2], "int32")

    def compute_mask(self, potentials, mask=None):
        return mask

    def get_config(self):
        return {
            **super().get_config(),
            "num_tags": self.num_tags,
            "allowed_transitions": self.allowed_transitions,
            "transition_initializer": keras.initializers.serialize(self.transition_initializer),
            "transition_regularizer": keras.regularizers.serialize(self.transition_regularizer),
        }


class CRFLoss(keras.losses.Loss):
    """The mean of -log P(tags) over a batch, as the attribute `loss` of a `CRF`.

    Sample weights are one per sequence. The loss uses the weights of its layer and is not saved
    with a model: load the model with `compile=False` and compile it again.

    Args:
        log_likelihood: the method of a `CRF`.

    Call arguments:
        y_true: the tags, `[B, T]`, below zero where there is no step.
        y_pred: the potentials, `[B, T, K]`.
    """

    def __init__(self, log_likelihood: Callable, name: str = "crf_loss"):
        super().__init__(name=name)
        # Not the layer itself: Keras would find the layer in its own attributes when it saves it.
        self.log_likelihood = log_likelihood

    def __call__(self, y_true, y_pred, sample_weight=None):
        # `+ 0` removes the Keras mask of the potentials, which would weight the sequences by steps.
        return super().__call__(y_true, y_pred + 0, sample_weight)

    def call(self, y_true, y_pred):
        tags = ops.cast(y_true, "int32")
        return -self.log_likelihood(y_pred, ops.maximum(tags, 0), tags >= 0)
