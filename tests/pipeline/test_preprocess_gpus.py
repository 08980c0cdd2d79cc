"""Networks of features run on the cluster's GPUs, by processes that hold a share of one.

No GPU is needed: Ray is given some in name only, and of PyTorch only the device is pretended. In a
process of its own, as this needs a cluster of its own.
"""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mgc_ray import RequestError
from mgc_ray.config import DatasetConfig
from mgc_ray.data.audio import Waveform
from mgc_ray.data.dataset import DatasetInfo
from mgc_ray.data.decoded import DecodedTrack
from mgc_ray.data.features import FeatureSet, TrackFeatures, _embedding
from mgc_ray.pipeline.preprocess import _complete
from tests.data.features.made_own import write_encoder
from tests.pipeline.making import contents, music, shards, wav

MAKE = """
import sys

from mgc_ray.terminal.process import prepare_process

prepare_process()
import ray

from tests.pipeline.making import make
from tests.pipeline.pretended import pretend_gpus

gpus, music, dataset, *features = sys.argv[1:]
ray.init(
    "local",
    num_cpus=2,
    num_gpus=int(gpus),
    include_dashboard=False,
    log_to_driver=False,
    logging_level="ERROR",
    runtime_env={"worker_process_setup_hook": pretend_gpus},
)
from pathlib import Path

make(Path(music), Path(dataset), features=tuple(features))
ray.shutdown()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 tracks, five shards, and an encoder."""
    folder = tmp_path_factory.mktemp("gpus")
    music(folder / "music", 40)
    write_encoder(folder)
    return folder


def made(folder: Path, gpus: int, *features: str, largest: int = 64 << 20) -> list[dict[str, Any]]:
    """Make a dataset on a cluster with so many GPUs; what was computed where."""
    log = folder / f"log-{gpus}-{largest}"
    (folder / f"there-{gpus}").mkdir(exist_ok=True)
    pretended = {
        "PRETENDED_LOG": str(log),
        "PRETENDED_GPUS": str(gpus),
        "PRETENDED_THERE": str(folder / f"there-{gpus}"),
        "PRETENDED_LARGEST": str(largest),
    }
    # not beside one another, where the second would take what the first has computed
    args = [str(gpus), "music", f"data-{gpus}-{largest}/dataset", *features]
    done = subprocess.run(
        [sys.executable, "-c", MAKE, *args],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | pretended | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    assert ("computing my_encoder on 2 GPUs" in done.stderr) == (gpus == 2)
    assert "core_worker" not in done.stderr
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_processes_with_shares_of_all_gpus_compute_what_cpus_have_decoded(folder: Path) -> None:
    features = ("log_mel", "./my_encoder.py")
    on_gpus, on_cpus = made(folder, 2, *features), made(folder, 0, *features)

    assert len(shards(folder / "data-2-67108864/dataset")) == 5
    for one, other in zip(
        contents(folder / "data-2-67108864/dataset"),
        contents(folder / "data-0-67108864/dataset"),
        strict=True,
    ):
        assert one.column_names == ["track_id", "chunk", "log_mel", "my_encoder"]
        assert one.equals(other)  # as was asked for, whatever has computed it

    where = defaultdict(list)
    for one in on_gpus:
        where[one["what"]].append(one)
    assert len(where["decode"]) == len(where["network"]) == 80
    assert {one["device"] for one in where["network"]} == {"cuda"}
    assert {one["share"] for one in where["network"]} == {0.25}
    assert {gpu for one in where["network"] for gpu in one["gpus"]} == {0, 1}
    assert all(len(one["gpus"]) == 1 for one in where["network"])
    loaded = {one["process"] for one in where["load"]}
    assert len(where["load"]) == len(loaded) <= 5  # once per process
    # no process that decodes has a GPU, and both CPUs decode
    assert {(one["device"], one["share"]) for one in where["decode"]} == {("cpu", 0)}
    decoding = {one["process"] for one in where["decode"]}
    assert len(decoding) >= 2
    assert not decoding & {one["process"] for one in where["network"]}

    assert {one["device"] for one in on_cpus} == {"cpu"}
    assert {one["share"] for one in on_cpus} == {0}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_spectrograms_use_no_gpu(folder: Path) -> None:
    log = made(folder, 1, "log_mel")
    assert {(one["what"], one["device"], one["share"]) for one in log} == {("decode", "cpu", 0)}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_track_that_is_too_long_to_be_sent_is_computed_where_it_is_decoded(folder: Path) -> None:
    wav(folder / "music/rock/long.wav", 5, seconds=30)
    try:
        log = made(folder, 2, "./my_encoder.py", largest=1_000_000)  # bytes, 15 s
    finally:
        (folder / "music/rock/long.wav").unlink()
    devices = [one["device"] for one in log if one["what"] == "network"]
    assert (devices.count("cuda"), devices.count("cpu")) == (80, 2)  # two batches of ten chunks
    assert sum(table.num_rows for table in contents(folder / "data-2-1000000/dataset")) == 90


class TooLarge(_embedding.Embedding):
    """A network that does not fit into a GPU's memory."""

    sample_rate = 16_000
    groups = {"mean": 2}  # noqa: RUF012
    provenance = ("large", "nothing")

    def network(self) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")


def test_a_network_that_is_too_large_for_a_gpu_is_refused_with_the_remedy() -> None:
    features = FeatureSet({"large": TooLarge()})
    assert features.from_chunks == {"large": 16_000}
    info = DatasetInfo(DatasetConfig(), features, listing="")
    rest = DecodedTrack(Waveform(np.ones(16_000, np.float32), 16_000)).only_chunks([16_000])
    found = TrackFeatures({}, 1.0, "hash")
    with pytest.raises(RequestError, match=r"several times, .* memory.\): make .* without GPUs"):
        _complete(info, found, rest)
