"""What stops an export is one line that names the operator and the line of the model."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcc.errors import PccError
from pcc.frontend.torch_module import import_module
from pcc.ir.verify import run_graph


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.mean() > 0 else x


class Truncates(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, : int(x.sum().item())]


class Item(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean().item()


class Mask(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0.5]


class NonZero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nonzero(x > 0)


class Cond(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.mean() > 0, lambda v: v * 2, lambda v: v - 1, (x,))


class CondOfLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.mean() > 0, lambda v: self.first(v), lambda v: self.second(v), (x,))


class Dropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x * 2)


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(10) * torch.randn_like(x)


class Reshapes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(7, -1)


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("no such layer")


LINE = r"at test_export.py:\d+"


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Branches(), f"cannot export Branches .* {LINE}: what it computes next depends on the values of its input"),
        (Truncates(), f"cannot export Truncates .* {LINE}: what it computes next depends on the values"),
        (Item(), rf"aten.item.default \({LINE}: a number or a shape that is known only when the model runs\)$"),
        (Mask(), rf"^pcc cannot compile 1 operator of this model: aten.index.Tensor \({LINE}: "),
        (
            NonZero(),
            rf"^pcc cannot compile 1 operator of this model: aten.nonzero.default \({LINE}: .*set the others to 0",
        ),
        (Cond(), rf"cond \({LINE}: runs a part of the model by itself"),
        (CondOfLayers(), f"cannot export CondOfLayers .* {LINE}: torch.cond and its like"),
        (Dropout(), rf"aten.dropout.default \({LINE}: dropout in training mode: pass training=self.training\)"),
        (
            Random(),
            rf"2 operators of this model: aten.rand.default \({LINE}: random numbers; .* as an input\); "
            rf"aten.randn_like.default \({LINE}: random numbers; .* as an input\)",
        ),
        (Reshapes(), f"cannot export Reshapes .* {LINE}: shape"),
        (Raises(), f"cannot export Raises .* {LINE}: 'no such layer'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_is_not_the_same_each_time(net: nn.Module, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PccError, match=words) as caught:
        import_module(net, (torch.ones(1, 3, 10, 10),))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", ""), "torch.export said more than the error does"


def test_dropout_that_is_off_is_not_random() -> None:
    class Off(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(F.dropout(x, training=self.training), p=0.0)

    import_module(Off(), (torch.ones(1, 3),))


def test_what_a_model_prints_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    class Talks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            print("input", tuple(x.shape))
            return x * 2

    import_module(Talks(), (torch.ones(1, 3),))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("input (1, 3)")


def test_an_empty_input_is_refused() -> None:
    with pytest.raises(PccError, match="input 0 is empty: 0x3x8x8"):
        import_module(nn.ReLU(), (torch.ones(0, 3, 8, 8),))


class Modes(nn.Module):
    """Runs a part of itself under a mode, and a part of that under another."""

    def __init__(self, mode: Callable[[], AbstractContextManager[object]]) -> None:
        super().__init__()
        self.mode = mode
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(x)
        with self.mode():
            inner = self.second(x.relu() * 2)
            with torch.enable_grad():
                deepest = inner + 1
        return x + inner, deepest * 3


@pytest.mark.parametrize(
    "mode",
    [
        torch.no_grad,
        torch.enable_grad,
        lambda: torch.autocast("cpu", enabled=False),
        lambda: torch.autocast("cuda", enabled=False),
    ],
)
def test_modes_that_change_nothing(mode: Callable[[], AbstractContextManager[object]]) -> None:
    model, x = Modes(mode).eval(), torch.randn(1, 3, 5, 4)
    for found, wanted in zip(run_graph(import_module(model, (x,)), [x]), model(x), strict=True):
        torch.testing.assert_close(torch.as_tensor(found), wanted)


def test_autocast_that_is_on() -> None:
    with pytest.raises(PccError, match=r"wrap_with_autocast .*runs a part of the model by itself"):
        import_module(Modes(lambda: torch.autocast("cpu")).eval(), (torch.randn(1, 3, 5, 4),))
