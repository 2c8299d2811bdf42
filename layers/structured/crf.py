"""A linear-chain conditional random field."""

import threading
import uuid
import weakref
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from unroll.layers import backend
from unroll.layers.initializers import clone_initializer
from unroll.layers.operations import best, require_size, time_major
from unroll.layers.structured import forward_backward
from unroll.layers.structured.arguments import require
from unroll.layers.structured.left_align import left_align
from unroll.layers.structured.log_space import IMPOSSIBLE, maximum


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

    The loss is the mean of -log P over a batch. Tags below zero are padding. A sequence of tags
    that `allowed_transitions` does not allow has the probability 0. Its loss is 0, without a
    gradient, so that it does not count; its `log_likelihood` is minus infinity.

    A compiled model is saved with the loss, also by `clone_model`, `pickle` and `copy.deepcopy`.

    Args:
        num_tags: K.
        allowed_transitions: `[K + 1, K + 1]`, boolean, whether a tag (row) may be followed by
            another (column). The last row is for the first tag of a sequence, the last column for
            the last tag. `bio_transitions` returns such a matrix. By default all are allowed.
        transition_initializer: the initializer of A, start and end.
        transition_regularizer: the regularizer of A.

    Call arguments:
        potentials: `[B, T, K]`. Minus infinity is allowed: such a tag is impossible.
        mask: `[B, T]`, boolean. A step where it is False is skipped, whatever its potentials; its
            tag is 0.

    Returns:
        The best tags, `[B, T]`, int32. They are valid indices even if potentials are NaN, or if no
        sequence is allowed.

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
        # Without autocast, which would round the potentials of a half-precision policy.
        super().__init__(autocast=False, **kwargs)
        self.num_tags = num_tags = require_size("num_tags", num_tags)
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
        self.loss_id = None  # by which a loaded loss finds its layer

    @property
    def loss(self) -> "CRFLoss":
        """The loss of the potentials, for `compile`."""
        if self.loss_id is None:
            self.loss_id = uuid.uuid4().hex
        return CRFLoss(self.log_likelihood, self.loss_id)

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
        """log P(tags), `[B]`, of `tags` `[B, T]`; 0 for a sequence without steps.

        It is minus infinity, with a gradient of 0, where the tags are not allowed. A tag that is
        not one of the K tags is an error in eager mode. In a graph, the result is NaN.
        """
        potentials, mask = self._prepare(potentials, mask)
        # The same constant in both terms keeps them small, so that their difference is precise.
        potentials = potentials - maximum(potentials)
        score = self.score(potentials, tags, mask)
        is_allowed = score != IMPOSSIBLE
        log_z = self.log_partition(potentials, mask)
        difference = ops.where(is_allowed, score, 0.0) - ops.where(is_allowed, log_z, 0.0)
        return ops.where(is_allowed, difference, IMPOSSIBLE)

    def log_partition(self, potentials, mask=None):
        """log Z, `[B]`; 0 for a sequence without steps. Its gradient is the marginals.

        It is minus infinity, with a gradient of 0, where no sequence of tags is allowed.
        """
        x, steps = self._time_major(*self._prepare(potentials, mask))
        return forward_backward.log_partition(x, steps, *self._scores())

    def marginals(self, potentials, mask=None):
        """P(y_t = k), `[B, T, K]`; 0 where the mask is False or no sequence of tags is allowed."""
        x, steps = self._time_major(*self._prepare(potentials, mask))
        transitions, start, end = self._scores()
        _, alphas, _, _ = forward_backward.forward(x, steps, transitions, start, end)
        betas = forward_backward.backward(x, steps, transitions, end)
        return ops.transpose(forward_backward.marginals(alphas, betas, steps), (1, 0, 2))

    def decode(self, potentials, mask=None):
        """The best tags, `[B, T]`, and their scores s, `[B]`, by the algorithm of Viterbi 1967.

        The score is minus infinity where no sequence of tags is allowed.
        """
        potentials, mask = self._prepare(potentials, mask)
        x, steps = self._time_major(potentials, mask)
        transitions, start, end = self._scores()
        tags = ops.arange(self.num_tags, dtype="int32")

        def forward(carry, xs):
            scores, started = carry
            x, step = xs
            pairs = scores[:, :, None] + transitions  # [B, K, K]
            top, previous = best(pairs, axis=1)  # [B, K]
            new = x + ops.where(started, top, start)
            # A constant is subtracted, so that the scores of many steps stay precise.
            top = maximum(new)
            # The pointers of a masked step, and of the first, are the tags themselves.
            pointers = ops.where(ops.logical_and(step, started), previous, tags)
            new = (ops.where(step, new - top, scores), ops.logical_or(started, step))
            return new, (pointers, ops.where(step, top, 0.0))

        batch = ops.shape(x)[1]
        scores = ops.zeros((batch, self.num_tags), self._dtype)
        carry = (scores, ops.zeros((batch, 1), "bool"))
        like = (ops.zeros((batch, self.num_tags), "int32"), scores[:, :1])
        final, (pointers, tops) = backend.scan(forward, carry, (x, steps), like, False)
        scores, started = final[0] + end, final[1]
        scores, last = best(scores)
        last = last[:, None]  # [B, 1]

        def backward(carry, xs):
            (tag,), (pointers,) = carry, xs
            previous = ops.sum(ops.where(tags == tag, pointers, 0), axis=-1, keepdims=True)
            return (previous,), (tag,)

        _, (path,) = backend.scan(backward, (last,), (pointers,), (last,), True)
        path = ops.transpose(path[..., 0], (1, 0))  # [B, T]
        scores = scores + ops.sum(tops[..., 0], axis=0)
        return ops.where(mask, path, 0), ops.where(started[:, 0], scores, 0.0)

    def score(self, potentials, tags, mask=None):
        """s(tags), `[B]`, of `tags` `[B, T]`; 0 for a sequence without steps.

        It is minus infinity where the tags are not allowed. A tag that is not one of the K tags is
        an error in eager mode. In a graph, the result is NaN.
        """
        potentials, mask = self._prepare(potentials, mask)
        transitions, start, end = self._scores()
        tags = ops.cast(tags, "int32")
        is_valid = ops.logical_and(tags >= 0, tags < self.num_tags)
        is_valid = ops.logical_or(is_valid, ops.logical_not(mask))
        is_valid = require(is_valid, tags, "tags", f"at least 0 and below {self.num_tags}")
        tags = ops.clip(tags, 0, self.num_tags - 1)
        is_tag = ops.arange(self.num_tags, dtype="int32") == tags[..., None]  # [B, T, K]
        own = ops.sum(ops.where(is_tag, potentials, 0.0), axis=-1)  # [B, T]
        counts = ops.cumsum(ops.cast(mask, "int32"), axis=1)  # [B, T]
        lengths = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True)  # [B, 1]
        is_first = ops.logical_and(mask, counts == 1)
        is_last = ops.logical_and(mask, counts == lengths)
        own = own + ops.where(is_first, ops.take(start, tags), 0.0)
        own = own + ops.where(is_last, ops.take(end, tags), 0.0)
        # The pairs of adjacent tags, with the masked steps removed.
        tags = left_align(tags, mask, 0)
        pairs = ops.take(
            ops.reshape(transitions, (-1,)), tags[:, :-1] * self.num_tags + tags[:, 1:]
        )
        positions = ops.arange(ops.shape(tags)[1], dtype="int32")[1:]
        pairs = ops.where(positions < lengths, pairs, 0.0)
        total = ops.sum(ops.where(mask, own, 0.0), axis=1) + ops.sum(pairs, axis=1)
        return ops.where(ops.all(is_valid, axis=1), total, float("nan"))

    @property
    def _dtype(self) -> str:
        return keras.backend.result_type(self.compute_dtype, "float32")

    def _prepare(self, potentials, mask) -> tuple:
        """The potentials in float32, 0 at masked steps, and the mask."""
        potentials = ops.cast(potentials, self._dtype)
        if mask is None:
            return potentials, ops.ones(ops.shape(potentials)[:2], "bool")
        mask = ops.cast(mask, "bool")
        return ops.where(ops.expand_dims(mask, -1), potentials, 0.0), mask

    def _time_major(self, potentials, mask) -> tuple:
        """The potentials as `[T, B, K]` and the mask as `[T, B, 1]`."""
        return ops.transpose(potentials, (1, 0, 2)), ops.expand_dims(time_major(mask), -1)

    def _scores(self) -> tuple:
        """A, start and end, minus infinity where a transition is not allowed."""
        weights = [ops.cast(w, self._dtype) for w in (self.transitions, self.start, self.end)]
        if self.allowed_transitions is None:
            return tuple(weights)
        allowed = np.array(self.allowed_transitions)
        parts = (allowed[:-1, :-1], allowed[-1, :-1], allowed[:-1, -1])
        return tuple(ops.where(part, w, IMPOSSIBLE) for part, w in zip(parts, weights, strict=True))

    def compute_output_shape(self, potentials_shape):
        return tuple(potentials_shape[:2])

    def compute_output_spec(self, potentials, mask=None):
        return keras.KerasTensor(potentials.shape[:2], "int32")

    def compute_mask(self, potentials, mask=None):
        return mask

    def get_config(self):
        config = {
            **super().get_config(),
            "num_tags": self.num_tags,
            "allowed_transitions": self.allowed_transitions,
            "transition_initializer": keras.initializers.serialize(self.transition_initializer),
            "transition_regularizer": keras.regularizers.serialize(self.transition_regularizer),
        }
        return config if self.loss_id is None else config | {"loss_id": self.loss_id}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        loss_id = config.pop("loss_id", None)
        layer = super().from_config(config)
        if loss_id is not None:
            layer.loss_id = loss_id
            _LAYERS.newest[loss_id] = layer
        return layer


class _Layers(threading.local):
    """The layers that this thread created last from the configs with an id of a loss."""

    def __init__(self):
        self.newest = weakref.WeakValueDictionary()


_LAYERS = _Layers()


@keras.saving.register_keras_serializable(package="unroll")
class CRFLoss(keras.losses.Loss):
    """The mean of -log P(tags) over a batch: the attribute `loss` of a `CRF`.

    Sample weights are one per sequence. The loss uses the weights of its layer. Where Keras makes a
    copy of a compiled model, it creates the layers first and then the loss, which finds its layer
    by an id that is in the configs of both.

    Args:
        log_likelihood: the method of a `CRF`.
        loss_id: the id of the loss in the config of the layer.

    Call arguments:
        y_true: the tags, `[B, T]`, below zero where there is no step.
        y_pred: the potentials, `[B, T, K]`.

    Raises:
        ValueError: if a config of a loss is loaded before its layer.
    """

    def __init__(self, log_likelihood: Callable, loss_id: str, name: str = "crf_loss"):
        super().__init__(name=name)
        # Not the layer itself: Keras would save the layer as a part of the loss.
        self.log_likelihood = log_likelihood
        self.loss_id = loss_id

    def __call__(self, y_true, y_pred, sample_weight=None):
        # `+ 0` removes the Keras mask of the potentials, which would weight the sequences by steps.
        return super().__call__(y_true, y_pred + 0, sample_weight)

    def call(self, y_true, y_pred):
        tags = ops.cast(y_true, "int32")
        likelihood = self.log_likelihood(y_pred, ops.maximum(tags, 0), tags >= 0)
        return ops.where(likelihood == IMPOSSIBLE, 0.0, -likelihood)

    def get_config(self):
        return {"name": self.name, "loss_id": self.loss_id}

    @classmethod
    def from_config(cls, config):
        layer = _LAYERS.newest.get(config["loss_id"])
        if layer is None:
            raise ValueError(
                "CRFLoss.from_config needs the CRF layer of the loss: load the model, or create "
                "the layer from its config, in the same thread before."
            )
        return cls(layer.log_likelihood, **config)
