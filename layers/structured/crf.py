"""A linear-chain conditional random field."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from unroll.layers import backend
from unroll.layers.initializers import clone_initializer
from unroll.layers.operations import LOG_ZERO, argmax, require_size, time_major

# The least sum of exponentials that has a logarithm in float32.
TINY = 1e-37


@keras.saving.register_keras_serializable(package="unroll")
class CRF(keras.layers.Layer):
    """The best sequence of tags, where neighbours have a say.

    Lafferty, McCallum and Pereira 2001, "Conditional random fields"; on top of a recurrent network
    Huang, Xu and Yu 2015. With potentials x_t(k) of tag k at step t, a sequence of tags y scores

        s(y) = start(y_1) + sum over t of x_t(y_t) + sum over t > 1 of A(y_{t-1}, y_t) + end(y_T)
        log P(y) = s(y) - log Z, with Z the sum of exp(s) over all sequences

    Called as a layer it returns the best tags; the model trains on the potentials with `loss`:

        tags = crf(potentials, mask=mask)
        model = keras.Model(words, {"potentials": potentials, "tags": tags})
        model.compile("adam", loss={"potentials": crf.loss})

    The loss is the mean of -log P over a batch; tags below zero are padding.

    Args:
        num_tags: K.
        allowed_transitions: `[K + 1, K + 1]`, boolean: whether a tag (row) may be followed by another (column).
            The last row tells which tags may stand first, the last column which ones last.
            `bio_transitions` makes it from labels. All moves are allowed by default.
        transition_initializer: of A, start and end.
        transition_regularizer: of A.

    Call arguments:
        potentials: `[B, T, K]`.
        mask: `[B, T]`, boolean. A step where it is False is as good as removed; its tag is 0.

    Returns:
        The best tags, `[B, T]`, integers.

    Raises:
        ValueError: if `tags` is below one, `allowed` has another shape, or the potentials have not
            K as last dimension.

    >>> import numpy as np
    >>> from unroll.layers import CRF
    >>> potentials = np.array([[[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]]], "float32")
    >>> np.array(CRF(3)(potentials)).tolist()
    [[0, 2]]

    Differs from the paper: nothing. The recursions run in float32 under any policy.
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
            if allowed.shape != (num_tags + 1, num_tags + 1):
                raise ValueError(
                    f"allowed_transitions must be [{num_tags + 1}, {num_tags + 1}] for {num_tags} tags: moves from each "
                    f"tag and the start, to each tag and the end; got {list(allowed.shape)}."
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
                f"{self.name} takes potentials [B, T, {self.num_tags}], got {tuple(potentials_shape)}."
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
        self.built = True

    def call(self, potentials, mask=None):
        return self.decode(potentials, mask)[0]

    def log_likelihood(self, potentials, tags, mask=None):
        """log P(tags), `[B]`, for `tags [B, T]`; 0 for a sequence without steps."""
        potentials, mask = self._prepare(potentials, mask)
        return self._score(potentials, tags, mask) - self.log_partition(potentials, mask)

    def log_partition(self, potentials, mask=None):
        """log Z, `[B]`; 0 for a sequence without steps. Its gradient is the marginals."""
        potentials, mask = self._prepare(potentials, mask)
        x = ops.transpose(potentials, (1, 0, 2))  # [T, B, K]
        given = (x, ops.expand_dims(time_major(mask), -1), *self._moves())

        def forward(x, steps, *moves):
            log_z, alphas, started = _forward(x, steps, *moves)
            return (log_z,), (x, steps, moves, alphas, started)

        def backward(residuals, cotangents):
            (d_log_z,) = cotangents
            x, steps, (transitions, _, end), alphas, started = residuals
            betas = _backward(x, steps, transitions, end)
            shares = _marginals(alphas, betas, steps) * d_log_z[:, None]  # [T, B, K]
            before = ops.concatenate([ops.zeros_like(alphas[:1]), alphas[:-1]], axis=0)
            begun = ops.concatenate([ops.zeros_like(started[:1]), started[:-1]], axis=0)
            moves = ops.logical_and(steps, begun)  # [T, B, 1]
            # The share of each pair of neighbours is exp(before_i + A_ij + after_j) over the sum of
            # all; one matrix product adds them up over all steps and examples.
            after = x + betas
            total = ops.logsumexp(_log_product(before, transitions) + after, axis=-1, keepdims=True)
            top, most = ops.max(before, axis=-1, keepdims=True), ops.max(transitions)
            onward = ops.exp(ops.minimum(after + top + most - total, 80.0)) * d_log_z[:, None]
            onward = ops.where(moves, onward, 0.0)
            rows = (-1, x.shape[-1])
            pairs = ops.matmul(
                ops.transpose(ops.reshape(ops.exp(before - top), rows)), ops.reshape(onward, rows)
            )
            first = ops.logical_and(steps, ops.logical_not(begun))
            d_start = ops.sum(ops.where(first, shares, 0.0), axis=(0, 1))
            last = ops.softmax(alphas[-1] + end) * d_log_z[:, None]
            d_end = ops.sum(ops.where(started[-1], last, 0.0), axis=0)
            return shares, None, pairs * ops.exp(transitions - most), d_start, d_end

        if not backend.uses_custom_gradient():
            return forward(*given)[0][0]
        return backend.custom_vjp(forward, backward)(*given)[0]

    def marginals(self, potentials, mask=None):
        """P(y_t = k), `[B, T, K]`; zero where the mask is False."""
        potentials, mask = self._prepare(potentials, mask)
        x, steps = ops.transpose(potentials, (1, 0, 2)), ops.expand_dims(time_major(mask), -1)
        transitions, start, end = self._moves()
        _, alphas, _ = _forward(x, steps, transitions, start, end)
        found = _marginals(alphas, _backward(x, steps, transitions, end), steps)
        return ops.transpose(found, (1, 0, 2))

    def decode(self, potentials, mask=None):
        """The best tags `[B, T]` and their score s, `[B]` (Viterbi 1967)."""
        potentials, mask = self._prepare(potentials, mask)
        transitions, start, end = self._moves()
        x, steps = ops.transpose(potentials, (1, 0, 2)), ops.expand_dims(time_major(mask), -1)
        tags = ops.arange(self.num_tags, dtype="int32")

        def forward(carry, xs):
            scores, started = carry
            x, step = xs
            options = scores[:, :, None] + transitions  # [B, K, K]
            before = argmax(ops.transpose(options, (0, 2, 1)))  # [B, K]
            new = x + ops.where(started, ops.max(options, axis=1), start)
            moved = ops.logical_and(step, started)
            # A step that is skipped, or the first, points to the same tag.
            pointers = ops.where(moved, before, tags)
            return (ops.where(step, new, scores), ops.logical_or(started, step)), (pointers,)

        scores = ops.zeros_like(x[0])
        nothing = ops.zeros_like(steps[0])
        like = (ops.cast(x[0], "int32"),)
        (scores, started), (pointers,) = backend.scan(
            forward, (scores, nothing), (x, steps), like, False
        )
        scores = scores + end
        last = argmax(scores)[:, None]  # [B, 1]

        def back(carry, xs):
            (tag,), (pointers,) = carry, xs
            before = ops.sum(ops.where(tags == tag, pointers, 0), axis=-1, keepdims=True)
            return (before,), (tag,)

        _, (found,) = backend.scan(back, (last,), (pointers,), (last,), True)
        found = ops.transpose(found[..., 0], (1, 0))  # [B, T]
        best = ops.where(started[:, 0], ops.max(scores, axis=-1), 0.0)
        return ops.where(mask, found, 0), best

    @property
    def _dtype(self) -> str:
        return keras.backend.result_type(self.compute_dtype, "float32")

    def _prepare(self, potentials, mask):
        potentials = ops.cast(potentials, self._dtype)
        if mask is None:
            mask = ops.ones(ops.shape(potentials)[:2], "bool")
        return potentials, ops.cast(mask, "bool")

    def _moves(self) -> tuple:
        """A, start and end, with `LOG_ZERO` for what is not allowed."""
        moves = [ops.cast(w, self._dtype) for w in (self.transitions, self.start, self.end)]
        if self.allowed_transitions is None:
            return tuple(moves)
        allowed = np.array(self.allowed_transitions)
        parts = (allowed[:-1, :-1], allowed[-1, :-1], allowed[:-1, -1])
        return tuple(ops.where(part, w, LOG_ZERO) for part, w in zip(parts, moves, strict=True))

    def _score(self, potentials, tags, mask):
        """s(tags), `[B]`."""
        transitions, start, end = self._moves()
        tags = ops.cast(tags, "int32")
        is_tag = ops.arange(self.num_tags, dtype="int32") == tags[..., None]  # [B, T, K]
        own = ops.sum(ops.where(is_tag, potentials, 0.0), axis=-1)
        # Of each step the last one before it that counts; -1 where there is none.
        places = ops.arange(ops.shape(tags)[1], dtype="int32")
        earlier = ops.logical_and(places < places[:, None], mask[:, None])  # [B, T, T]
        before = ops.max(ops.where(earlier, places, -1), axis=-1)  # [B, T]
        previous = ops.sum(ops.where(places == before[..., None], tags[:, None], 0), axis=-1)
        moves = ops.take(ops.reshape(transitions, (-1,)), previous * self.num_tags + tags)
        moves = ops.where(before >= 0, moves, ops.take(start, tags))
        total = ops.sum(ops.where(mask, own + moves, 0.0), axis=1)
        last = ops.max(ops.where(mask, places, -1), axis=1, keepdims=True)  # [B, 1]
        ends = ops.where(ops.logical_and(places == last, mask), ops.take(end, tags), 0.0)
        return total + ops.sum(ends, axis=1)

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
    """The mean over a batch of -log P(tags), for `compile`; one weight per sequence may be given.

    It uses the weights of its layer. A model comes back from a file without it: load with
    `compile=False`, and compile again.

    Args:
        log_likelihood: that of a `CRF`.

    Call arguments:
        y_true: the tags, `[B, T]`, below zero where there is no step.
        y_pred: the potentials, `[B, T, K]`.
    """

    def __init__(self, log_likelihood: Callable, name: str = "crf_loss"):
        super().__init__(name=name)
        # The layer itself would be found in its own attributes by what saves a model.
        self.log_likelihood = log_likelihood

    def __call__(self, y_true, y_pred, sample_weight=None):
        # Keras would weight the sequences by a mask of steps, where one hangs on the potentials.
        return super().__call__(y_true, y_pred + 0, sample_weight)

    def call(self, y_true, y_pred):
        tags = ops.cast(y_true, "int32")
        return -self.log_likelihood(y_pred, ops.maximum(tags, 0), tags >= 0)


def bio_transitions(labels: Sequence[str]) -> np.ndarray:
    """The moves `[K + 1, K + 1]` that the BIO scheme allows: I-x stands after B-x or I-x alone.

    Args:
        labels: the names of the tags, such as O, B-city, I-city.

    Raises:
        ValueError: if a label is of another form.

    >>> bio_transitions(["O", "B-city", "I-city"]).astype(int).tolist()
    [[1, 1, 0, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 1]]
    """
    for label in labels:
        if label != "O" and label[:2] not in ("B-", "I-"):
            raise ValueError(f"a BIO label is O, B-<name> or I-<name>, got {label!r}.")
    allowed = np.ones((len(labels) + 1, len(labels) + 1), "bool")
    for column, label in enumerate(labels):
        if label.startswith("I-"):
            before = ("B-" + label[2:], label)
            allowed[:-1, column] = [other in before for other in labels]
            allowed[-1, column] = False
    return allowed


def _log_product(scores, kernel):
    """log(exp(scores) exp(kernel)), `[..., K]` by `[K, K]`, as a product of matrices."""
    top = ops.max(scores, axis=-1, keepdims=True)
    most = ops.max(kernel)
    sums = ops.matmul(ops.exp(scores - top), ops.exp(kernel - most))
    return ops.log(ops.maximum(sums, TINY)) + top + most


def _forward(x, steps, transitions, start, end):
    """log Z `[B]`; the log sums of all prefixes, `[T, B, K]`; whether one has begun, `[T, B, 1]`.

    The sums are less a number of each step, so that they stay near zero.
    """

    def body(carry, xs):
        alpha, started = carry
        x, step = xs
        new = x + ops.where(started, _log_product(alpha, transitions), start)
        top = ops.max(new, axis=-1, keepdims=True)
        alpha, started = ops.where(step, new - top, alpha), ops.logical_or(started, step)
        return (alpha, started), (alpha, started, ops.where(step, top, 0.0))

    carry = (ops.zeros_like(x[0]), ops.zeros_like(steps[0]))
    like = (*carry, x[0][:, :1])
    (alpha, started), (alphas, all_started, tops) = backend.scan(
        body, carry, (x, steps), like, False
    )
    log_z = ops.sum(tops[..., 0], axis=0) + ops.logsumexp(alpha + end, axis=-1)
    return ops.where(started[:, 0], log_z, 0.0), alphas, all_started


def _backward(x, steps, transitions, end):
    """The log sums of all that may follow each tag, `[T, B, K]`, less a number of each step."""

    def body(carry, xs):
        (beta,), (x, step) = carry, xs
        before = _log_product(x + beta, ops.transpose(transitions))
        before = before - ops.max(before, axis=-1, keepdims=True)
        return (ops.where(step, before, beta),), (beta,)

    carry = (ops.zeros_like(x[0]) + end,)
    return backend.scan(body, carry, (x, steps), carry, True)[1][0]


def _marginals(alphas, betas, steps):
    return ops.where(steps, ops.softmax(alphas + betas), 0.0)
