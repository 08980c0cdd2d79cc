"""Parts that several families share."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mgc_ray.models._layers import Recurrent
from mgc_ray.models._statistics import statistics
from tests.waits import on_meta, waits

SHAPE = (12, 8, 3)  # inputs, hidden, layers


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_recurrent_layers_are_those_of_one_module_and_are_saved_as_such(
    kind: type[nn.GRU] | type[nn.LSTM], bidirectional: bool
) -> None:
    inputs, hidden, layers = SHAPE
    torch.manual_seed(1)
    whole = kind(inputs, hidden, layers, batch_first=True, bidirectional=bidirectional, dropout=0.3)
    torch.manual_seed(1)
    split = Recurrent(kind, inputs, hidden, layers, bidirectional, 0.3)
    state = whole.state_dict()
    assert set(split.state_dict()) == set(state)
    assert all(split.state_dict()[name].equal(value) for name, value in state.items())
    x = torch.randn(4, 7, inputs)
    torch.manual_seed(2)  # also the dropout between them, from PyTorch's own generator
    expected = whole(x)[0]
    torch.manual_seed(2)
    assert split(x).equal(expected)
    assert not split(x).equal(expected)
    again = nn.ModuleDict({"recurrent": Recurrent(kind, *SHAPE, bidirectional, 0.3)}).eval()
    again.load_state_dict({f"recurrent.{name}": value for name, value in state.items()})
    assert again["recurrent"](x).equal(whole.eval()(x)[0])


class _Seen(nn.Module):
    """In place of a layer: in which precision it is called."""

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        self.dtype, self.autocast = x.dtype, torch.is_autocast_enabled(x.device.type)
        return x, None


@pytest.mark.parametrize(
    ("device", "dtype", "autocast"),
    [("cuda", torch.float32, False), ("cpu", torch.bfloat16, True)],
)
def test_recurrent_layers_on_a_gpu_are_in_float32_outside_of_autocast(
    device: str, dtype: torch.dtype, autocast: bool
) -> None:
    layers = Recurrent(nn.GRU, *SHAPE, bidirectional=False, dropout=0.0)
    layers.layers[0] = layers.layers[1] = layers.layers[2] = seen = _Seen()
    torch.set_autocast_enabled(device, True)  # torch.autocast("cuda") refuses without a GPU
    try:
        with FakeTensorMode():
            layers(torch.empty(2, 7, 12, device=device, dtype=torch.bfloat16))
        assert torch.is_autocast_enabled(device)
    finally:
        torch.set_autocast_enabled(device, False)
    assert (seen.dtype, seen.autocast) == (dtype, autocast)


def test_statistics_wait_for_no_device() -> None:
    with waits() as found:
        statistics(on_meta(4, 64, 128))
    assert found == []
