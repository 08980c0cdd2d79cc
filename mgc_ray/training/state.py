"""The whole state of a training after an epoch, so that it continues as if never interrupted.

One safetensors file: tensors by name, all else as JSON in its header; nothing is pickled.
"""

import json
from dataclasses import dataclass

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from mgc_ray.data.untrusted import parse_json
from mgc_ray.settings import Params

_DAMAGED = "the state of a training is damaged or of other settings"


class StateError(ValueError):
    """The bytes are no state of this training."""


@dataclass(frozen=True)
class TrainingState:
    """All that changes from epoch to epoch, by reference."""

    modules: dict[str, nn.Module]  # the classifier, and its moving average where it has one
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    generator: torch.Generator  # of batches and augmentation
    random: np.random.Generator  # of mixup

    def pack(self, progress: Params) -> bytes:
        """The state, with `progress`: plain JSON values of the caller."""
        tensors = {
            f"{name}/{key}": value
            for name, module in self.modules.items()
            for key, value in module.state_dict().items()
        }
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{number}/{key}": value for key, value in values.items()}
        tensors["random/global"] = torch.get_rng_state()
        tensors["random/generator"] = self.generator.get_state()
        if self.generator.device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self.generator.device)
        header = {
            "progress": json.dumps(progress),
            "random": json.dumps(self.random.bit_generator.state),
            "lr": json.dumps([group["lr"] for group in self.optimizer.param_groups]),
            "step": str(self.schedule.last_epoch),
        }
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        return save(whole, metadata=header)

    def unpack(self, packed: bytes) -> Params:
        """Restore what `pack` gave, of the same settings; its `progress`. Else StateError."""
        try:
            tensors, header = load(packed), read_header(packed)
            for name, module in self.modules.items():
                module.load_state_dict(_part(tensors, f"{name}/"))
            optimizer = self.optimizer.state_dict()
            optimizer["state"] = {}
            for key, value in _part(tensors, "optimizer/").items():
                number, name = key.split("/")
                optimizer["state"].setdefault(int(number), {})[name] = value
            self.optimizer.load_state_dict(optimizer)
            rates = parse_json(header["lr"])
            for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = lr
            self.schedule.last_epoch = int(header["step"])
            self.schedule._last_lr = rates
            torch.set_rng_state(tensors["random/global"])
            self.generator.set_state(tensors["random/generator"])
            if self.generator.device.type == "cuda":
                torch.cuda.set_rng_state(tensors["random/cuda"], self.generator.device)
            self.random.bit_generator.state = parse_json(header["random"])
            progress: Params = parse_json(header["progress"])
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise StateError(f"{_DAMAGED}: {error}") from None
        return progress


def read_header(packed: bytes) -> dict[str, str]:
    """The header of what `pack` gave, without its tensors; StateError where there is none."""
    try:
        length = int.from_bytes(packed[:8], "little")
        header: dict[str, str] = parse_json(packed[8 : 8 + length])["__metadata__"]
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"{_DAMAGED}: {error}") from None
    return header


def read_progress(packed: bytes) -> Params:
    """`progress` of what `pack` gave; StateError where there is none."""
    try:
        progress: Params = parse_json(read_header(packed)["progress"])
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"{_DAMAGED}: {error}") from None
    return progress


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
