"""Finds what would wait for a GPU, on tensors of the meta device, which takes its place."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_READING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "item")


@contextmanager
def waits() -> Iterator[list[str]]:
    """Inside, each operation that a GPU's driver would wait for is added to the list.

    Those are reading a value, operations whose size depends on values, copies to or from the CPU,
    and an index of Python's numbers, which is copied.
    """
    found: list[str] = []
    with _Operations(found), _Indices(found):
        yield found


class _Operations(TorchDispatchMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(
        self,
        operation: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        name = str(operation).split(".")[1]
        tensors = [one for one in tree_leaves((args, kwargs, result)) if isinstance(one, Tensor)]
        on_device = any(one.device.type == "meta" for one in tensors)
        on_cpu = any(one.device.type == "cpu" and one.ndim for one in tensors)
        if on_device and (on_cpu or name in _READING):
            self._found.append(name)
        return result


class _Indices(TorchFunctionMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(function, "__name__", "") in ("__getitem__", "__setitem__"):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            self._found += ["index of numbers" for one in index if isinstance(one, list)]
        return function(*args, **(kwargs or {}))


def on_meta(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")
