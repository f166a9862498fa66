"""As many weights as if all layers were alike, where they are worth most."""

import torch
from torch import nn

from pcc.sparsity.kernels import Kernels
from pcc.training.methods.one_shot import OneShot
from tools.by_layer import by_layer

ALIKE = {"@first": None, "@conv": Kernels(None, 2.0)}


class TwoBranches(nn.Module):
    """Outputs show much of one branch, and next to nothing of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.loud, self.soft = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 1)
        self.last = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        return self.last((self.loud(x).relu() + 1e-3 * self.soft(x).relu()).mean((2, 3)))


def test_weights_go_where_outputs_show_them() -> None:
    torch.manual_seed(0)
    model = TwoBranches().eval()
    OneShot(model, by_layer(model, ALIKE, [torch.randn(32, 3, 8, 8)])).finish()
    kept = {name: int(model.get_parameter(f"{name}.weight").count_nonzero()) for name, _ in model.named_children()}
    assert kept["loud"] + kept["soft"] <= 32 * 32
    assert kept["loud"] >= 2 * kept["soft"]
    assert (kept["first"], kept["last"]) == (32 * 3 * 9, 320)
