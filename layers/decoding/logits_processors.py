"""Functions that change which tokens a search chooses.

The searches take a list of them, `logits_processors`, and call them in turn at each step:

    processor(logits [N, V], tokens [N, L], step []) -> logits [N, V]

`logits` are float32. The first processor gets the log probabilities of the model. `tokens` are the
tokens of each sequence so far: those at positions from `step` on, and after the end of a sequence,
are `pad`. The search chooses by the result without normalizing it. A token with minus infinity, or
-5e8 or less, is never chosen. The classes of this file are such functions; you can also write your
own:

    def only_even_tokens(logits, tokens, step):
        is_even = ops.arange(logits.shape[-1]) % 2 == 0
        return ops.where(is_even, logits, -np.inf)
"""

import math
import numbers

import numpy as np
from keras import ops

from unroll.layers.operations import require_size


class RepetitionPenalty:
    """Makes the tokens that a sequence already contains less probable.

    Keskar et al. 2019, "CTRL: A conditional transformer language model for controllable
    generation", section 4.1. For the tokens g so far and the log probability x_i of token i:

        x_i * penalty if i is in g, else x_i

    Args:
        penalty: a number above 0. The paper uses 1.2; 1 has no effect.

    Raises:
        ValueError: if the penalty is not above 0.

    >>> import numpy as np
    >>> log_probs = np.log(np.array([[0.5, 0.25, 0.25]], "float32"))
    >>> processor = RepetitionPenalty(2.0)
    >>> penalized = processor(log_probs, tokens=np.array([[0, 2]]), step=1)
    >>> np.exp(np.array(penalized)).round(3).tolist()
    [[0.25, 0.25, 0.25]]

    Differs from the paper: the paper divides logits, which depends on a constant that a model may
    add to all of them, and makes tokens with negative logits more probable. The log probabilities
    are negative and multiplied. A positive value, which another processor may return, is divided.
    """

    def __init__(self, penalty: float):
        self.penalty = _require_positive("penalty", penalty)

    def __call__(self, logits, tokens, step):
        is_so_far = ops.arange(ops.shape(tokens)[1])[None] < step  # [1, L]
        occurs = _marks(tokens, is_so_far, logits.shape[-1])  # [N, V]
        penalized = ops.where(logits > 0, logits / self.penalty, logits * self.penalty)
        return ops.where(occurs, penalized, logits)


class NoRepeatNgrams:
    """Forbids the tokens that would repeat an n-gram of the sequence.

    Paulus, Xiong and Socher 2018, "A deep reinforced model for abstractive summarization", section
    2.5, with n = 3. The argument `no_repeat_ngram_size` of the searches is this processor.

    Args:
        size: n. With 1, no token occurs twice.

    Raises:
        ValueError: if the size is not an integer of at least 1.

    >>> import numpy as np
    >>> logits = np.zeros((1, 4), "float32")
    >>> np.array(NoRepeatNgrams(2)(logits, tokens=np.array([[3, 1, 3, 0]]), step=3)).tolist()
    [[0.0, -inf, 0.0, 0.0]]

    Differs from the paper: nothing.
    """

    def __init__(self, size: int):
        self.size = require_size("size", size)

    def __call__(self, logits, tokens, step):
        n, length = self.size, ops.shape(tokens)[1]
        positions = ops.arange(length)
        # Compare the last n - 1 tokens with those at each earlier position.
        match = ops.broadcast_to((positions <= step - n)[None], ops.shape(tokens))  # [N, L]
        padded = ops.pad(tokens, ((0, 0), (0, n)), constant_values=-1)  # [N, L + n]
        for i in range(n - 1):
            is_current = positions == step - n + 1 + i
            current = ops.sum(ops.where(is_current, tokens, 0), axis=1, keepdims=True)  # [N, 1]
            match = ops.logical_and(match, padded[:, i : i + length] == current)
        following = padded[:, n - 1 : n - 1 + length]  # [N, L]
        return _forbid(_marks(following, match, logits.shape[-1]), logits)


class ForbiddenTokens:
    """Forbids tokens in all sequences.

    Args:
        tokens: an integer or a list of integers.

    Raises:
        ValueError: if `tokens` are not integers, or one of them is not in the vocabulary of the
            logits.

    >>> import numpy as np
    >>> logits = np.zeros((1, 4), "float32")
    >>> processor = ForbiddenTokens([0, 3])
    >>> np.array(processor(logits, tokens=np.array([[1, 0]]), step=1)).tolist()
    [[-inf, 0.0, 0.0, -inf]]
    """

    def __init__(self, tokens):
        self.tokens = require_tokens("tokens", tokens)

    def __call__(self, logits, tokens, step):
        del tokens, step
        return _forbid(_is_one_of("tokens", self.tokens, logits.shape[-1]), logits)


class MinLength:
    """Forbids the end of a sequence that has too few tokens.

    The argument `min_length` of the searches is this processor.

    Args:
        length: the minimum number of tokens before the end.
        end: the end token, an integer, or a list of them.

    Raises:
        ValueError: if the length or an end token is not an integer of at least 0, or an end token
            is not in the vocabulary of the logits.

    >>> import numpy as np
    >>> logits = np.zeros((1, 3), "float32")
    >>> processor = MinLength(2, end=1)
    >>> np.array(processor(logits, tokens=np.array([[2, 0, 0]]), step=1)).tolist()
    [[0.0, -inf, 0.0]]
    """

    def __init__(self, length: int, end):
        self.length = require_size("length", length, minimum=0)
        self.end = require_tokens("end", end)

    def __call__(self, logits, tokens, step):
        del tokens
        is_end = _is_one_of("end", self.end, logits.shape[-1])
        return _forbid(ops.logical_and(is_end, step < self.length), logits)


class Temperature:
    """Divides the logits by a number.

    In `sample`, values below 1 favor the most probable tokens, and `temperature` is this processor
    after all others. In `greedy` and `beam_search` without other processors it has no effect.

    Args:
        temperature: a number above 0.

    Raises:
        ValueError: if the temperature is not above 0.

    >>> import numpy as np
    >>> logits = np.array([[1.0, 2.0]], "float32")
    >>> np.array(Temperature(0.5)(logits, tokens=np.array([[0]]), step=0)).tolist()
    [[2.0, 4.0]]
    """

    def __init__(self, temperature: float):
        self.temperature = _require_positive("temperature", temperature)

    def __call__(self, logits, tokens, step):
        del tokens, step
        return logits / self.temperature


# None of them makes a log probability positive, so a hypothesis that they process never gains.
STANDARD = (ForbiddenTokens, MinLength, NoRepeatNgrams, RepetitionPenalty, Temperature)


def require_tokens(name: str, tokens) -> tuple[int, ...]:
    """The tokens in ascending order, from an integer or a list of integers.

    Raises:
        ValueError: if they are not integers of at least 0, or there are none.

    >>> require_tokens("end", [4, 3])
    (3, 4)
    """
    if isinstance(tokens, numbers.Number):
        return (require_size(name, tokens, minimum=0),)
    is_list = isinstance(tokens, (list, tuple, np.ndarray)) and np.ndim(tokens) == 1
    if not is_list or not len(tokens):
        raise ValueError(f"{name} must be an integer or a list of integers, got {tokens!r}.")
    return tuple(sorted({require_size(name, token, minimum=0) for token in tokens}))


def _is_one_of(name: str, tokens: tuple, vocabulary_size: int) -> np.ndarray:
    """Whether each token of the vocabulary is one of these, `[V]`."""
    require_in_vocabulary(name, tokens, vocabulary_size)
    return np.isin(np.arange(vocabulary_size), tokens)


def require_in_vocabulary(name: str, tokens, vocabulary_size: int):
    """A `ValueError` if a token is not below V."""
    if max(tokens, default=0) >= vocabulary_size:
        raise ValueError(
            f"{name} must be below the number of logits, {vocabulary_size}, got {max(tokens)}."
        )


def _require_positive(name: str, number: float) -> float:
    if not number > 0 or math.isinf(number):
        raise ValueError(f"{name} must be a number above 0, got {number!r}.")
    return float(number)


def _forbid(is_forbidden, logits):
    return ops.where(is_forbidden, -np.inf, logits)


def _marks(tokens, is_counted, vocabulary_size: int):
    """Which tokens of the vocabulary occur among the counted of `tokens` `[N, L]`, `[N, V]`.

    Tokens outside of the vocabulary, such as `pad` may be, are left out.
    """
    is_valid = ops.logical_and(tokens >= 0, tokens < vocabulary_size)
    is_counted = ops.logical_and(is_counted, is_valid)  # [N, L]
    shape = ops.shape(tokens)
    rows = ops.broadcast_to(ops.arange(shape[0], dtype="int32")[:, None], shape)
    columns = ops.where(is_counted, ops.cast(tokens, "int32"), 0)
    indices = ops.stack([ops.reshape(x, (-1,)) for x in (rows, columns)], axis=1)
    counts = ops.reshape(ops.cast(is_counted, "int32"), (-1,))
    return ops.scatter(indices, counts, (shape[0], vocabulary_size)) > 0
