"""Kills at random moments in a row: the run that is left is that of an unbroken training."""

import pytest

from tests.apps.killing import kill_again_and_again
from tests.apps.resuming import differences
from tests.apps.test_contract import NAMES


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_a_training_that_is_killed_five_times_ends_as_an_unbroken_one(name, tmp_path):
    assert kill_again_and_again(name, tmp_path, kills=5).total() > 0
    assert differences(tmp_path / "unbroken", tmp_path / "killed") == []
    assert not list(tmp_path.rglob(".*"))
