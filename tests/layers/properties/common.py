"""What the property tests share: the settings of Hypothesis, and random arrays.

The cases are the same in each run, without a limit of time for one of them. Hypothesis chooses the
sizes, the options and a seed; NumPy fills arrays of these sizes, so that a case stays small to
print and to shrink.
"""

from pathlib import Path

import hypothesis
import numpy as np

assume, given, st = hypothesis.assume, hypothesis.given, hypothesis.strategies
hypothesis.configuration.set_hypothesis_home_dir(
    Path(__file__).parents[3] / ".pytest_cache" / "hypothesis"
)
FIFTY = hypothesis.settings(max_examples=50, derandomize=True, deadline=None, database=None)

SEEDS = st.integers(0, 2**32 - 1)


def lengths(batch: int, time: int, minimum: int = 1):
    """The lengths of the sequences of a batch."""
    return st.lists(st.integers(minimum, time), min_size=batch, max_size=batch).map(np.array)


def masks(batch: int, time: int):
    """Masks `[B, T]` with gaps anywhere, and at least one step that is not masked."""
    row = st.lists(st.booleans(), min_size=time, max_size=time).filter(any)
    return st.lists(row, min_size=batch, max_size=batch).map(np.array)
