"""The device that networks run on: those that are trained, and the frozen ones of features."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def best_device() -> "torch.device":
    """CUDA where there is a GPU that this process may use, else the CPU.

    A task or actor of Ray may use only the GPUs that it holds, but where it holds none, Ray hides
    none from it. So Ray is asked first: a process in which CUDA has started keeps memory of a GPU.
    """
    import torch

    if _is_without_gpu(sys.modules.get("ray")):  # what needs no cluster does not load it
        return torch.device("cpu")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _is_without_gpu(ray: Any) -> bool:
    """Whether a task or actor runs here that holds no GPU; those of a driver are its own."""
    if ray is None or not ray.is_initialized():
        return False
    is_worker = ray.get_runtime_context().worker.mode == ray.WORKER_MODE
    return is_worker and not ray.get_gpu_ids()


@contextmanager
def frozen() -> Iterator[None]:
    """For a network that only predicts: without gradients, and on a GPU as exact as on a CPU.

    Else convolutions on a GPU would have the ten bits of TF32.
    """
    import torch

    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
