"""The journal of a search in a real optuna-dashboard."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from mgc_ray.results import JOURNAL, TrialRecord

pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")


def test_optuna_dashboard_opens_the_journal_and_shows_all_trials(
    finished: tuple[Path, list[TrialRecord]],
) -> None:
    folder, records = finished
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("optuna-dashboard")
    dashboard = subprocess.Popen(
        [program, folder / JOURNAL, "--port", str(port), "--host", "127.0.0.1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def ask(path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return json.load(answer)

    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                studies = ask("/api/studies")["study_summaries"]
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.3)
        assert {study["study_name"] for study in studies} == {"cnn", "gru"}
        shown = []
        for study in studies:
            detail = ask(f"/api/studies/{study['study_id']}?after=0")
            for trial in detail["trials"]:
                attributes = {a["key"]: a["value"] for a in trial["user_attrs"]}
                shown.append((attributes["trial"].strip('"'), trial["state"]))
        states = {"completed": "Complete", "stopped_early": "Pruned", "failed": "Fail"}
        assert sorted(shown) == sorted((r.trial, states[r.status]) for r in records)
    finally:
        dashboard.terminate()
        dashboard.wait(20)
