"""GPUs that are there in name only: what each of Ray's processes does is noted in a file."""

import json
import os
import time
from pathlib import Path
from typing import Any

_GPUS = "PRETENDED_GPUS"


def pretend_gpus() -> None:
    """In each of Ray's processes: PyTorch has a GPU, to which nothing is moved."""
    import torch

    from mgc_ray.data.features import FeatureSet, _embedding
    from mgc_ray.pipeline import preprocess

    torch.cuda.is_available = lambda: True
    torch.Tensor.to = torch.nn.Module.to = lambda self, device: self  # type: ignore[method-assign,assignment]
    decode, load = FeatureSet.decode, _embedding._on_device

    def noted_decode(self: FeatureSet, path: str | Path) -> Any:
        _note("decode")
        return decode(self, path)

    def noted_load(feature: Any) -> Any:
        before = load.cache_info().misses
        network, device = load(feature)
        if load.cache_info().misses > before:
            _note("load")
        network.register_forward_pre_hook(_hook) if not network._forward_pre_hooks else None
        return network, device

    FeatureSet.decode = noted_decode  # type: ignore[method-assign]
    _embedding._on_device = noted_load  # type: ignore[assignment]
    preprocess._LARGEST = int(os.environ["PRETENDED_LARGEST"])


def _hook(*_: Any) -> None:
    _note("network")
    gpus = _gpus()
    if gpus:  # until all are in use, so that none does everything
        there = Path(os.environ["PRETENDED_THERE"])
        (there / str(gpus[0])).touch()
        deadline = time.monotonic() + 60
        while len(list(there.iterdir())) < int(os.environ[_GPUS]) and time.monotonic() < deadline:
            time.sleep(0.05)


def _gpus() -> list[int]:
    import ray

    return [int(gpu) for gpu in ray.get_gpu_ids()]


def _note(what: str) -> None:
    import ray

    from mgc_ray.data.device import best_device

    line = {
        "what": what,
        "process": os.getpid(),
        "device": str(best_device()),
        "gpus": _gpus(),
        "share": ray.get_runtime_context().get_assigned_resources().get("GPU", 0),
    }
    with Path(os.environ["PRETENDED_LOG"]).open("a") as file:
        file.write(json.dumps(line) + "\n")
