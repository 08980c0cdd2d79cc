"""What a process sets before it imports Ray."""

import os

import pytest

from mgc_ray.terminal.process import prepare_process


def test_variables_that_are_set_already_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "0")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    prepare_process()
    assert os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] == "0"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
