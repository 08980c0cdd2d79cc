"""The device that networks run on, and what its errors mean."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgc_ray import RequestError

if TYPE_CHECKING:
    import torch

# what PyTorch and the libraries of CUDA report where a GPU's memory is full
_FULL = re.compile(
    r"(CUDA|HIP|MPS)\b.*out of memory|OUT_OF_MEMORY|MemoryAllocation"
    # NOT_INITIALIZED: there was no memory for the library's own
    r"|(CU|HIP|ROC)(BLAS|DNN|FFT|SOLVER|SPARSE)_\w*(ALLOC|NOT_INITIALIZED)",
    re.IGNORECASE,
)
_BROKEN = re.compile(r"(CUDA|HIP) error|(CU|HIP|ROC)(BLAS|DNN|FFT|SOLVER|SPARSE)_STATUS_")
_DEVICE = "MGC_RAY_DEVICE"
_DRIVER = Path("/proc/driver/nvidia/version")


def best_device() -> "torch.device":
    """CUDA where there is a GPU that this process may use, else an Apple GPU, else the CPU.

    MGC_RAY_DEVICE gives another, e.g. cpu. Ray knows no Apple GPUs, so trials run on CPUs there.
    A task or actor of Ray may use only the GPUs that it holds, but where it holds none, Ray hides
    none from it. So Ray is asked first: a process in which CUDA has started keeps memory of a GPU.
    Raises OSError (ENODEV) where one holds a GPU that PyTorch cannot use.
    """
    import torch

    if given := os.environ.get(_DEVICE):
        return _given_device(given)
    held = _held_gpus(sys.modules.get("ray"))  # what needs no cluster does not load it
    if held == 0:
        return torch.device("cpu")
    if held:
        check_gpu()
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _given_device(given: str) -> "torch.device":
    """The device that the environment gives, which must be one that computes here."""
    import torch

    try:
        torch.zeros(1, device=given).cpu()
        return torch.device(given)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a PyTorch without CUDA
        reason = str(error).strip().splitlines()[0]
        raise RequestError(
            f"{_DEVICE} must be a device that PyTorch can use here (cpu, cuda, mps), but it is "
            f"{given!r}: {reason}"
        ) from None


def _held_gpus(ray: Any) -> int | None:
    """How many GPUs the task or actor holds that runs here; None in a driver, or without Ray."""
    if ray is None or not ray.is_initialized():
        return None
    is_worker = ray.get_runtime_context().worker.mode == ray.WORKER_MODE
    return len(ray.get_gpu_ids()) if is_worker else None


def check_gpu() -> None:
    """Raise OSError (ENODEV) where PyTorch sees no GPU: a CPU would take many times as long."""
    import torch

    if torch.cuda.is_available():
        return
    cuda, driver = torch.version.cuda, _driver_version()
    if cuda is None and torch.version.hip is None:
        why = f"PyTorch {torch.__version__} there is built for CPUs: install its build for GPUs"
    else:
        built_for = f"CUDA {cuda}" if cuda else f"ROCm {torch.version.hip}"
        why = (
            f"PyTorch {torch.__version__} there is built for {built_for} and the driver is {driver}"
            ": install a driver that is new enough for it, or a build of PyTorch for this driver, "
            "and see that containers get the GPU (NVIDIA_VISIBLE_DEVICES)"
        )
    raise OSError(
        errno.ENODEV,
        f"a process that holds a GPU of Ray must be able to use it, but PyTorch sees none: {why}; "
        "or use no GPUs (--gpus-per-trial 0)",
    )


def _driver_version() -> str:
    """Of the GPU's driver, as the kernel reports it."""
    try:
        found = re.search(r"\s(\d+\.[\d.]+)\s", _DRIVER.read_text())
    except OSError:
        return "not loaded"
    return found[1] if found else "of an unknown version"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's memory was full, whichever library reports it."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or bool(_FULL.search(str(error)))


def breaks_the_process(error: BaseException) -> bool:
    """Whether nothing can be computed on a GPU by this process any more.

    After most errors of CUDA each later call in the process gives the same error.
    """
    import torch

    if isinstance(error, torch.OutOfMemoryError):  # PyTorch's own, before anything was computed
        return False
    return isinstance(error, torch.AcceleratorError) or bool(_BROKEN.search(str(error)))


@contextmanager
def frozen() -> Iterator[None]:
    """For a network that only predicts: without gradients, and on a GPU as exact as on a CPU.

    Else convolutions and recurrent layers on a GPU would have the ten bits of TF32.
    """
    import torch

    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
