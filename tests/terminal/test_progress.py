"""Progress where standard error is no terminal: a line now and then."""

import pytest

from mgc_ray.terminal import progress as module
from mgc_ray.terminal.progress import progress


def test_a_log_has_a_line_every_few_seconds_and_the_last(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress("reading", 30, "tracks") as advance:
        for done in range(1, 31):
            now[0] += 1.0
            advance(done, "half" if done == 20 else "")
    assert capsys.readouterr().err.splitlines() == [
        "reading 10/30 tracks",
        "reading 20/30 tracks  half",
        "reading 30/30 tracks",
    ]
