"""A real TensorBoard of two hundred trials, as someone sees it who opens it in a browser."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mgc_ray.training.config import full_params
from mgc_ray.tuning.records import read_records
from mgc_ray.tuning.tensorboard import TensorBoardWriter
from tests.conftest import GENRES
from tests.many_trials import with_many_trials

MANY = 200
# TensorBoard is made of elements with shadow roots, into which the browser's own search never looks
ALL_TEXT = """
const skipped = new Set(["STYLE", "SCRIPT", "NOSCRIPT"]);
const read = node => {
  if (node.nodeType === Node.TEXT_NODE) return node.data + " ";
  if (skipped.has(node.tagName)) return "";
  const inside = [...(node.shadowRoot ? [node.shadowRoot] : []), ...node.childNodes];
  return inside.map(read).join("");
};
return read(document.body);
"""


@pytest.fixture(scope="module")
def tensorboard(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a TensorBoard that shows a search of two hundred trials."""
    folder = tmp_path_factory.mktemp("many") / "many"
    with_many_trials(home / "results/first", folder, MANY, ("tensorboard", "*.html"))
    defaults = {family: full_params(family, {}) for family in ("gru", "cnn")}
    types = {
        "lr": float,
        "dropout": float,
        "batch_size": int,
        "schedule": str,
        "warmup_epochs": int,
    }
    TensorBoardWriter(folder, types, defaults, GENRES, read_records(folder / "trials"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "tensorboard.main", "--logdir", str(folder / "tensorboard")),
            *("--host", "127.0.0.1", "--port", str(port), "--load_fast=false"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(20)


def shown(chromium: Any, address: str, tab: str, *wanted: str) -> str:
    """All text of a tab once it has what is wanted."""
    chromium.get("about:blank")
    deadline = time.monotonic() + 120
    chromium.get(f"{address}#{tab}")
    text = ""
    while time.monotonic() < deadline:
        text = " ".join(chromium.execute_script(ALL_TEXT).split())
        if all(word in text for word in wanted):
            return text
        time.sleep(0.5)
    missing = [word for word in wanted if word not in text]
    raise AssertionError(f"{missing} are not shown in {tab}: {text[:3000]}")


def test_scalars_are_shown_with_runs_that_say_what_is_special(
    chromium: Any, tensorboard: str
) -> None:
    text = shown(chromium, tensorboard, "timeseries", "gru-0000_", "cards", "accuracy")
    assert "gru-0000_lr=" in text
    assert "batch_size=" in text


def test_hparams_shows_every_trial_with_its_settings_and_figures(
    chromium: Any, tensorboard: str
) -> None:
    all_of_them = f"Number of matching session groups: {MANY}"
    text = shown(chromium, tensorboard, "hparams", all_of_them, "Trial ID", "_lr=")
    for name in ("lr", "dropout", "batch_size", "warmup_epochs", "family", "status"):
        assert f" {name} " in text
    assert "val_track_accuracy" in text
    rows = sum(f"-{number:04d}_" in text for number in range(MANY))
    assert rows >= 20  # those in sight; which trials there are in all, tests/tuning asks the server
    assert "constant" in text
    assert "cosine" in text
