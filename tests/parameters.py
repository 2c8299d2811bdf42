"""Parameters of tests."""

from collections.abc import Iterable

import pytest


def first_of(values: Iterable, *others) -> list:
    """All values as parameters, of which `make test` runs the first one and `others`.

    The others are exhaustive: their code is that of the first one, or is tested in parts.
    """
    values = list(values)
    kept = [values[0], *others]
    return [x if x in kept else pytest.param(x, marks=pytest.mark.exhaustive) for x in values]
