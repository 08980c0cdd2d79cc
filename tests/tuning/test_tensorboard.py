"""The event files of a search, and what a real TensorBoard shows of them."""

import contextlib
import io
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.util.tensor_util import make_ndarray

from mgc_ray.models import full_params
from mgc_ray.results import TrialRecord
from mgc_ray.tuning.tensorboard import TensorBoardWriter, run_name
from tests.conftest import GENRES


def test_each_trial_is_a_tensorboard_run_with_scalars_and_hparams(
    finished: tuple[Path, list[TrialRecord]],
) -> None:
    folder, records = finished
    for record in records:
        (run,) = (folder / "tensorboard").glob(f"{record.trial}*")
        events = EventAccumulator(str(run)).Reload()
        losses = events.Scalars("loss/train")
        assert [event.step for event in losses] == list(range(1, record.epochs + 1))
        figures = [event.value for event in events.Scalars("accuracy/validation_tracks")]
        assert figures == pytest.approx([m["val_track_accuracy"] for m in record.curve])
        content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        chosen = hparams_metadata.parse_session_start_info_plugin_data(content).hparams
        assert chosen["family"].string_value == record.family
        assert chosen["lr"].number_value == pytest.approx(record.params["lr"])
        best = events.Scalars("best/val_track_accuracy")[0]
        assert (best.step, best.value) == (
            record.best_epoch,
            pytest.approx(record.best["val_track_accuracy"]),
        )
        trained = set(events.Tags()["scalars"])
        assert {"training/gradient_norm", "speed/memory_mib", "training/lr"} <= trained
        assert events.Scalars("training/gradient_norm")[0].value > 0


def test_tensorboard_has_pictures_curves_and_the_configuration_of_each_trial(
    finished: tuple[Path, list[TrialRecord]],
) -> None:
    folder, records = finished
    for record in records:
        (run,) = (folder / "tensorboard").glob(f"{record.trial}*")
        events = EventAccumulator(str(run)).Reload()
        (confusion,) = events.Images("confusion")
        assert confusion.step == record.best_epoch
        picture = np.asarray(Image.open(io.BytesIO(confusion.encoded_image_string)))
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10  # names and counts are drawn
        (seen,) = events.Images("augmented")
        assert (seen.width, seen.height) > (100, 30)
        for genre in GENRES:
            tensor = events.Tensors(f"precision_recall/{genre}")[0]
            assert tensor.step == record.best_epoch
            counts = make_ndarray(tensor.tensor_proto)  # true, false positives first
            assert counts[:2, 0].tolist() == [6, 12]  # below the lowest threshold all are positive
        text = events.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0].decode()
        assert f"| family | {record.family} |" in text
        assert f"| lr | **{record.params['lr']}** |" in text
    assert not list(folder.rglob("examples.npy"))


def test_a_runs_name_has_family_number_and_changed_settings() -> None:
    record = TrialRecord("gru-0003", "gru", {"lr": 0.00215, "hidden": 64, "pool": "a/b c"})
    assert run_name(record, {"lr": 0.001, "hidden": 64}) == "gru-0003_lr=0.0022_pool=a-b-c"
    many = TrialRecord("gru-0003", "gru", {f"setting{i}": i for i in range(99)})
    assert len(run_name(many, {})) <= 60


def test_event_files_are_written_again_for_trials_of_another_machine(
    finished: tuple[Path, list[TrialRecord]], tmp_path: Path
) -> None:
    folder, records = finished
    shutil.copytree(folder / "trials", tmp_path / "trials")
    defaults = {family: full_params(family, {}) for family in ("cnn", "gru")}
    TensorBoardWriter(tmp_path, {"lr": float}, defaults, GENRES, records)
    for record in records:
        (old,), (new,) = (f.glob(f"tensorboard/{record.trial}*") for f in (folder, tmp_path))
        assert old.name == new.name
        first, again = (EventAccumulator(str(run)).Reload() for run in (old, new))
        assert {*again.Tags()["scalars"]} == {*first.Tags()["scalars"]}
        assert [e.value for e in again.Scalars("loss/train")] == [
            e.value for e in first.Scalars("loss/train")
        ]
        assert again.Images("confusion")[0].step == record.best_epoch


def test_tensorboards_hparams_tab_shows_every_trial_and_parameter(
    finished: tuple[Path, list[TrialRecord]],
) -> None:
    """Asked of a real TensorBoard, as its page asks."""
    folder, records = finished
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
    address = f"http://127.0.0.1:{port}/data/plugin/hparams/"

    def ask(what: str, **question: Any) -> dict[str, Any]:
        body = json.dumps({"experimentName": "", **question}).encode()
        request = urllib.request.Request(address + what, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            content: dict[str, Any] = json.load(answer)
            return content

    try:
        deadline = time.monotonic() + 60
        experiment: dict[str, Any] = {}
        while not experiment.get("hparamInfos") and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                experiment = ask("experiment")
            time.sleep(0.5)
        shown = {info["name"] for info in experiment["hparamInfos"]}
        parameters = {name for record in records for name in record.params}
        assert shown == parameters | {"family", "status"}
        metrics = {info["name"]["tag"] for info in experiment["metricInfos"]}
        assert "best/val_track_accuracy" in metrics
        groups = ask(
            "session_groups",
            startIndex=0,
            sliceSize=100,
            allowedStatuses=["STATUS_SUCCESS", "STATUS_UNKNOWN", "STATUS_RUNNING"],
            colParams=[{"hparam": name} for name in sorted(shown)],
        )
        names = {session["name"] for g in groups["sessionGroups"] for session in g["sessions"]}
        runs = {path.name for path in (folder / "tensorboard").iterdir() if path.is_dir()}
        assert names == runs
        assert len(runs) == len(records)
    finally:
        server.terminate()
        server.wait(20)
