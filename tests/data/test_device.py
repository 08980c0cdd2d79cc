"""Which device networks run on. No GPU is needed: only that there is one is pretended."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mgc_ray.data import device as module
from mgc_ray.data.device import (
    best_device,
    breaks_the_process,
    check_gpu,
    frozen,
    is_out_of_memory,
)

# In a process of its own, as this needs a cluster with GPUs, which are there in name only.
TASKS = """
from mgc_ray.terminal.process import prepare_process

prepare_process()
import ray


def pretend():
    import torch

    torch.cuda.is_available = lambda: True


@ray.remote
def device():
    from mgc_ray.data.device import best_device

    return str(best_device())


@ray.remote
class Actor:
    def device(self):
        from mgc_ray.data.device import best_device

        return str(best_device())


pretend()
ray.init(
    "local",
    num_cpus=2,
    num_gpus=2,
    include_dashboard=False,
    log_to_driver=False,
    logging_level="ERROR",
    runtime_env={"worker_process_setup_hook": pretend},
)
tasks = [device.options(num_gpus=gpus).remote() for gpus in (0, 0.5, 1, 0)]
actors = [Actor.options(num_gpus=gpus, num_cpus=0).remote() for gpus in (0, 0.25)]
print(*ray.get(tasks), *ray.get([actor.device.remote() for actor in actors]))
from mgc_ray.data.device import best_device

print(best_device())
ray.shutdown()
print(best_device())
"""


@pytest.mark.parametrize(("there", "device"), [(True, "cuda"), (False, "cpu")])
def test_without_ray_the_gpu_is_used_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, there: bool, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert best_device() == torch.device(device)


@pytest.mark.slow
def test_a_task_or_actor_uses_a_gpu_only_where_it_holds_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TASKS],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    tasks_and_actors, driver, without = done.stdout.splitlines()
    assert tasks_and_actors.split() == ["cpu", "cuda", "cuda", "cpu", "cpu", "cuda"]
    assert (driver, without) == ("cuda", "cuda")


def test_a_frozen_network_is_exact_on_a_gpu_and_keeps_no_gradients() -> None:
    weight = torch.ones(1, requires_grad=True)
    before = torch.backends.cudnn.allow_tf32
    with frozen():
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.enabled
        assert not (2 * weight).requires_grad
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize(
    ("cuda", "driver", "expected"),
    [
        (None, "", "is built for CPUs: install its build for GPUs"),
        (
            "13.0",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.133.20  Sun\n",
            "is built for CUDA 13.0 and the driver is 570.133.20: install a driver",
        ),
        (
            "13.0",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n",
            "the driver is 580.65.06:",
        ),
        ("13.0", "", "the driver is not loaded:"),
    ],
)
def test_a_gpu_that_pytorch_cannot_use_is_an_error_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cuda: str | None, driver: str, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(module, "_DRIVER", tmp_path / "version")
    if driver:
        (tmp_path / "version").write_text(driver)
    monkeypatch.setattr(module, "_held_gpus", lambda ray: 1)
    with pytest.raises(OSError, match="PyTorch sees none") as raised:
        best_device()
    assert raised.value.errno == errno.ENODEV
    assert expected in raised.value.strerror
    assert "--gpus-per-trial 0" in raised.value.strerror
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_gpu()


@pytest.mark.parametrize(
    ("error", "full", "broken"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True, False),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might"), True, True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), 1, 1),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasC"), 1, 1),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), 1, 1),
        (RuntimeError("cuda runtime error (2) : out of memory at /pytorch/aten"), True, False),
        (RuntimeError("CUDA driver error: out of memory"), True, False),
        (RuntimeError("HIP out of memory. Tried to allocate"), True, False),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), 0, 1),
        (RuntimeError("CUDA error: device-side assert triggered"), False, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False, True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough"), 0, 0),
        (MemoryError("out of memory"), False, False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), False, False),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, Exception) else "",
)
def test_what_an_error_of_a_gpu_means(error: Exception, full: bool, broken: bool) -> None:
    assert is_out_of_memory(error) == full
    assert breaks_the_process(error) == broken
