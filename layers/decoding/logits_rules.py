"""Which tokens a search may generate at each step."""

from typing import Any, NamedTuple

from keras import ops

from unroll.layers.operations import LOG_ZERO, require_size


class LogitsRules(NamedTuple):
    """The constraints of a search; `make_rules` checks them.

    Attributes:
        end: the symbol that ends a sequence.
        min_length: the number of tokens before which `end` is not allowed.
        prefix: `[N, P]`, the tokens that each sequence starts with, -1 where any token is allowed;
            or None.
        no_repeat_ngram_size: n, if no n-gram may occur twice in a sequence; 0 for no limit.
    """

    end: int
    min_length: int
    prefix: Any
    no_repeat_ngram_size: int

    def apply(self, log_probs, step, tokens):
        """Sets the log probability of tokens that are not allowed to `LOG_ZERO`.

        Args:
            log_probs: `[N, V]`.
            step: the number of tokens so far, a scalar tensor.
            tokens: `[N, L]`, the tokens so far.

        Returns:
            `[N, V]`.
        """
        vocabulary = ops.arange(log_probs.shape[-1])[None]  # [1, V]
        banned = ops.logical_and(vocabulary == self.end, step < self.min_length)  # [1, V]
        if self.no_repeat_ngram_size:
            repeats = self._repeats(log_probs.shape[-1], step, tokens)
            banned = ops.logical_or(banned, repeats)  # [N, V]
        if self.prefix is not None:
            positions = ops.arange(self.prefix.shape[1])
            forced = ops.sum(ops.where(positions == step, self.prefix, 0), axis=1)  # [N]
            is_free = ops.logical_or(forced < 0, step >= self.prefix.shape[1])[:, None]  # [N, 1]
            banned = ops.where(is_free, banned, vocabulary != forced[:, None])
        return ops.where(banned, LOG_ZERO, log_probs)

    def repeat_rows(self, n: int) -> "LogitsRules":
        """The rules for n consecutive rows per example."""
        if self.prefix is None:
            return self
        return self._replace(prefix=ops.repeat(self.prefix, n, axis=0))

    def _repeats(self, vocabulary_size: int, step, tokens):
        """The tokens `[N, V]` that would repeat an n-gram of `tokens` `[N, L]`."""
        n, length = self.no_repeat_ngram_size, tokens.shape[1]
        positions = ops.arange(length)
        # Compare the last n - 1 tokens with those at each earlier position.
        match = ops.broadcast_to((positions <= step - n)[None], ops.shape(tokens))  # [N, L]
        padded = ops.pad(tokens, ((0, 0), (0, n)), constant_values=-1)
        for i in range(n - 1):
            is_current = positions == step - n + 1 + i
            current = ops.sum(ops.where(is_current, tokens, 0), axis=1, keepdims=True)  # [N, 1]
            match = ops.logical_and(match, padded[:, i : i + length] == current)
        following = ops.where(match, padded[:, n - 1 : n - 1 + length], 0)  # [N, L]
        rows = ops.broadcast_to(ops.arange(ops.shape(tokens)[0])[:, None], ops.shape(tokens))
        indices = ops.stack([ops.reshape(x, (-1,)) for x in (rows, following)], axis=1)
        shape = (ops.shape(tokens)[0], vocabulary_size)
        return ops.scatter(indices, ops.reshape(ops.cast(match, "int32"), (-1,)), shape) > 0


def make_rules(
    end: int, max_length: int, min_length: int, prefix, no_repeat_ngram_size: int
) -> LogitsRules:
    """The rules for these arguments of a search.

    Raises:
        ValueError: if a number is out of its range, or `prefix` has the wrong shape.
    """
    require_size("max_length", max_length)
    numbers = (("min_length", min_length), ("no_repeat_ngram_size", no_repeat_ngram_size))
    for name, value in numbers:
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} must be an integer of at least 0, got {value!r}.")
    if min_length > max_length:
        raise ValueError(
            f"min_length must be at most max_length, got {min_length} and {max_length}."
        )
    if prefix is not None:
        prefix = ops.cast(ops.convert_to_tensor(prefix), "int32")
        if len(prefix.shape) != 2 or (prefix.shape[1] or 0) > max_length:
            raise ValueError(
                f"prefix must be [B, P] with P at most max_length, {max_length}, got the shape "
                f"{tuple(prefix.shape)}."
            )
    return LogitsRules(end, min_length, prefix, no_repeat_ngram_size)
