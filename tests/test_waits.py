"""The tool that finds waits finds them."""

import pytest
import torch
from torch import Tensor

from tests.waits import on_meta, waits


def _by_numbers(x: Tensor) -> None:
    x[..., [0, 1]]


def _from_list(x: Tensor) -> None:
    x + torch.tensor([1.0, 2.0]).to(x.device)


def _size_by_values(x: Tensor) -> None:
    torch.nonzero(x)


@pytest.mark.parametrize("waiting", [_by_numbers, _from_list, _size_by_values])
def test_what_waits_is_found(waiting: object) -> None:
    x = on_meta(3, 2)
    with waits() as found:
        try:
            waiting(x)  # type: ignore[operator]
        except (NotImplementedError, RuntimeError):  # meta tensors have no values
            found.append("values")
    assert found


def test_what_stays_on_the_device_is_not() -> None:
    x = on_meta(3, 2)
    with waits() as found:
        (x[..., 0] * 2.0 + x.sort(1).values[:, 1]).sum()
        x[torch.arange(3, device=x.device)]
    assert found == []
