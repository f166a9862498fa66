from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pcc.errors import PccError
from pcc.sparsity.filters import Channel, Filter
from pcc.sparsity.unstructured import Unstructured
from pcc.training.evaluate import positions
from pcc.training.layers import array
from pcc.training.methods.hybrid import Hybrid, inverted
from tests.training.methods.loop import Net, data, net, run

TRAIN = """
train: {batch: 60, lr: 0.1, schedule: cosine}
stages:
  - train: {epochs: 3}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    model = net()
    outcome = run(model, TRAIN, tmp_path_factory.mktemp("dense"))
    assert outcome.accuracy > 0.9
    return model.state_dict()


def copy_of(state: dict[str, torch.Tensor]) -> Net:
    model = net()
    model.load_state_dict(state)
    return model


def kept_macs(model: nn.Module) -> int:
    counts = positions(model, (1, 8, 8))
    return sum(count * int(model.get_parameter(f"{name}.weight").count_nonzero()) for name, count in counts.items())


def test_positions_are_outputs_of_a_filter() -> None:
    assert positions(net(), (1, 8, 8)) == {"conv1": 64, "conv2": 16, "fc1": 1, "fc2": 1}


@pytest.mark.parametrize("rate", [1.5, 3.0])
def test_macs_meet_the_target_with_whole_multiples(trained: dict[str, torch.Tensor], rate: float) -> None:
    model = copy_of(trained)
    dense = kept_macs(model)
    method = Hybrid(model, {"@all": Filter(8, multiple=2)}, data=data(), macs_rate=rate, samples=100, points=4)
    assert method.left_out == ("fc2",)
    for _ in method:
        pass
    assert dense / kept_macs(model) >= rate
    for layer, most in (("conv1", 8), ("conv2", 12), ("fc1", 16)):
        weight = array(model.get_submodule(layer).weight)  # type: ignore[arg-type]
        kept = int(method.kept[layer].sum())
        assert kept % 2 == 0
        assert kept >= most // 8
        assert np.array_equal(weight.any(axis=tuple(range(1, weight.ndim))), method.kept[layer].numpy())
        # The filters with the smallest L1 norms are those that went.
        norms = trained[f"{layer}.weight"].flatten(1).abs().sum(1)
        assert norms[method.kept[layer]].min() >= norms[~method.kept[layer]].max() if kept < most else True
    assert method.drop < 1


def test_every_layer_is_allowed_the_same_drop(trained: dict[str, torch.Tensor]) -> None:
    model = copy_of(trained)
    method = Hybrid(model, {"@conv": Filter(8)}, data=data(), macs_rate=2.5, samples=200, points=8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    curves = {layer.name: method.sensitivity(layer) for layer in method.free}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(drops[0] == 0 and (np.diff(drops) >= 0).all() for _, drops in curves.values())
    method.finish()
    for layer in method.free:
        gone = 1 - float(method.kept[layer.name].double().mean())
        assert gone == pytest.approx(
            inverted(*curves[layer.name], method.drop), abs=0.5 / len(method.kept[layer.name]) + 1e-9
        )


def test_filters_that_do_nothing_go_first(trained: dict[str, torch.Tensor]) -> None:
    model = copy_of(trained)
    with torch.no_grad():
        model.conv1.weight[::2] *= 1e-3
        model.conv2.weight[:, ::2] = 0
    method = Hybrid(model, {"conv1": Filter(8)}, data=data(), macs_rate=1.3, samples=200)
    method.finish()
    assert not method.kept["conv1"][::2].any()
    assert method.drop == pytest.approx(0, abs=1e-6)


def test_removed_filters_stay_gone_while_the_rest_is_trained(tmp_path: Path) -> None:
    model = net()
    recipe = """
    train: {batch: 60, lr: 0.1}
    structures: {"@conv": {filter: {rate: 4, multiple: 4}}}
    stages:
      - train: {epochs: 2}
      - hybrid: {macs_rate: 2, samples: 100, points: 4}
      - train: {epochs: 2}
      - gradual: {epochs: 2, end: 1, structures: {"@conv": {unstructured: {rate: 8}}}}
    """
    outcome = run(model, recipe, tmp_path)
    gone = ~model.conv2.weight.flatten(1).any(dim=1)
    assert 0 < int(gone.sum()) < 12
    assert isinstance(Filter.detect(array(model.conv2.weight)), Filter)
    assert isinstance(Channel.detect(array(model.fc1.weight)), Channel)
    assert not model.conv2.bias[gone].any()  # type: ignore[index]
    assert not model.bn2.bias[gone].any()
    assert outcome.accuracy > 0.9
    model.eval()
    maps = model.bn2(model.conv2(model.pool(model.conv1(torch.randn(2, 1, 8, 8)).relu())))
    assert not maps[:, gone].any()


class Residual(nn.Module):
    """One layer inside a block, and two whose maps are added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inside, self.added, self.fc = (
            nn.Conv2d(1, 4, 3),
            nn.Conv2d(4, 6, 1),
            nn.Conv2d(6, 4, 1),
            nn.Linear(4, 4),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = x + self.added(self.inside(x).relu())
        return self.fc(x.mean((2, 3)))


def test_layers_at_shortcuts_keep_their_filters() -> None:
    method = Hybrid(Residual(), {"@conv": Filter(4)}, data=data(), macs_rate=1.1, samples=60)
    assert method.left_out == ("stem", "added")
    assert [layer.name for layer in method.free] == ["inside"]


def test_inverted_curve() -> None:
    removed, drops = np.array([0, 0.25, 0.5, 0.75]), np.array([0, 0, 0.1, 0.3])
    assert [inverted(removed, drops, drop) for drop in (0, 0.05, 0.1, 0.2, 0.3, 1)] == pytest.approx(
        [0.25, 0.375, 0.5, 0.625, 0.75, 0.75]
    )


def test_wrong_use() -> None:
    with pytest.raises(PccError, match="layer fc1 has the structure 'unstructured'"):
        Hybrid(net(), {"fc1": Unstructured(2)}, data=data(), macs_rate=2)
    with pytest.raises(PccError, match="no layer with a structure can lose a filter"):
        Hybrid(net(), {"fc2": Filter(2)}, data=data(), macs_rate=2)
    with pytest.raises(PccError, match="MACs rate of 1 asks for nothing"):
        Hybrid(net(), {"@conv": Filter(2)}, data=data(), macs_rate=1)
    with pytest.raises(PccError, match=r"MACs cannot become 9 times fewer: 2\.\d\d times is the most"):
        Hybrid(net(), {"conv2": Filter(8, multiple=3)}, data=data(), macs_rate=9, samples=60).finish()


def test_a_test_of_no_more_samples_than_there_are() -> None:
    assert Hybrid(net(), {"@conv": Filter(4)}, data=data(), macs_rate=1.1, samples=10**6).samples == data().train_size
    with pytest.raises(PccError, match="a sensitivity test of 0 samples"):
        Hybrid(net(), {"@conv": Filter(4)}, data=data(), macs_rate=1.1, samples=0)
