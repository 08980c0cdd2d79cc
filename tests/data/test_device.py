"""Which device networks run on. No GPU is needed: only that there is one is pretended."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mgc_ray.data.device import best_device, frozen

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
