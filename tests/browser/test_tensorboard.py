"""A real TensorBoard of two hundred trials in a real browser."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from mgc_ray.models import full_params
from mgc_ray.results import read_records
from mgc_ray.settings import Params
from mgc_ray.tuning.space import parameter_types
from mgc_ray.tuning.tensorboard import TensorBoardWriter
from tests.conftest import GENRES
from tests.many_trials import with_many_trials

pytestmark = pytest.mark.slow
MANY = 200
FAMILIES = ("gru", "cnn")
# TensorBoard's elements have shadow roots, which the browser's own search does not enter
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


def suggest(trial: optuna.Trial) -> Params:
    """A space so small that its settings have room in the names of runs and in the table."""
    params: Params = {
        "lr": trial.suggest_float("lr", 1e-5, 1e-2, log=True),
        "dropout": trial.suggest_float("dropout", 0, 0.6),
        "batch_size": trial.suggest_categorical("batch_size", [16, 32, 64]),
        "schedule": trial.suggest_categorical("schedule", ["constant", "cosine"]),
    }
    if params["schedule"] == "cosine":
        params["warmup_epochs"] = trial.suggest_int("warmup_epochs", 0, 3)
    return params


@pytest.fixture(scope="module")
def tensorboard(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a TensorBoard that shows a search of two hundred trials."""
    folder = tmp_path_factory.mktemp("many") / "many"
    first = home / "results/first"
    with_many_trials(first, folder, MANY, FAMILIES, suggest, without=("tensorboard", "*.html"))
    defaults = {family: full_params(family, {}) for family in FAMILIES}
    types = parameter_types(suggest)
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


def text_of(chromium: Any, address: str, tab: str, *wanted: str) -> str:
    """All text of a tab, once all that is wanted is in it."""
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


def test_scalars_are_shown_by_runs_that_are_named_by_their_settings(
    chromium: Any, tensorboard: str
) -> None:
    text = text_of(chromium, tensorboard, "timeseries", "gru-0000_", "cards", "accuracy")
    assert "gru-0000_lr=" in text
    assert "batch_size=" in text


def test_hparams_shows_every_trial_with_its_settings_and_figures(
    chromium: Any, tensorboard: str
) -> None:
    all_of_them = f"Number of matching session groups: {MANY}"
    text = text_of(chromium, tensorboard, "hparams", all_of_them, "Trial ID", "_lr=")
    for name in ("lr", "dropout", "batch_size", "warmup_epochs", "family", "status"):
        assert f" {name} " in text
    assert "val_track_accuracy" in text
    visible = sum(f"-{number:04d}_" in text for number in range(MANY))
    assert visible >= 20  # tests/tuning asks the server for all of them
    assert "constant" in text
    assert "cosine" in text
