"""Property tests run with `make properties` and `make test-all`, not with `make test`."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.exhaustive)
