"""Reconstruction: the moments are those of the convolution, the fit is the least one, and a compressed network stays
near its dense self."""

import copy
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from pcc.errors import PccError
from pcc.sparsity.centroids import Centroids
from pcc.sparsity.columns import Column
from pcc.sparsity.compose import Composition
from pcc.sparsity.filters import Filter
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.levels import UniformLevels
from pcc.sparsity.structure import Structure
from pcc.sparsity.unstructured import Unstructured
from pcc.training.from_file import open_file
from pcc.training.layers import Layer, array, bind
from pcc.training.paused_run import NAME
from pcc.training.reconstruct import reconstruct
from pcc.training.reconstruction_moments import (
    Moments,
    MomentSums,
    columns_at,
    outputs_at,
    padded,
    sample_positions,
)
from pcc.training.reconstruction_solve import Quadratic, admm, refit
from pcc.training.reconstruction_watch import Place, observe, places


class Residual(nn.Module):
    """A stem, a block with a shortcut, depthwise and grouped convolutions, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.first = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.last = nn.Sequential(
            nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.classifier = nn.Linear(96, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.second(self.first(self.depthwise(x)))
        return self.classifier(self.last(x))


def smooth(count: int, seed: int) -> torch.Tensor:
    """Inputs whose neighbours are alike, as in photos: least squares then has something to say."""
    noise = torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, size=13, mode="bilinear")


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Residual()
        model(smooth(64, 5))  # statistics of the batch norms
    return model.eval()


def relative_error(model: nn.Module, dense: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        wanted = dense(x)
        return float((model(x) - wanted).square().sum() / wanted.var(dim=0, correction=0).sum() / len(x))


def one_shot(model: nn.Module, structures: dict[str, Structure | None]) -> nn.Module:
    model = copy.deepcopy(model)
    with torch.no_grad():
        for layer in bind(model, structures):
            layer.weight.copy_(layer.project(layer.weight))
    return model


def column_form(layer: nn.Conv2d | nn.Linear) -> torch.Tensor:
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    return layer.weight.detach().flatten(1).unflatten(0, (groups, -1)).transpose(1, 2)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3),
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        nn.Conv2d(4, 4, 3, padding="same", padding_mode="reflect", groups=4),
        nn.Conv2d(4, 6, 1, stride=3, bias=False),
        nn.Linear(9, 5),
    ],
    ids=lambda layer: f"{type(layer).__name__}{tuple(layer.weight.shape)}",
)
@torch.no_grad()
def test_columns_are_what_the_layer_multiplies(layer: nn.Conv2d | nn.Linear) -> None:
    x = torch.randn(3, 4, 8, 9)
    output = layer(x)
    where = sample_positions(output, layer, 40, seed=0)
    assert len(where) == len(where.unique())
    products = columns_at(padded(x, layer), layer, where) @ column_form(layer)
    flat = products.transpose(0, 1).flatten(1) + (0 if layer.bias is None else layer.bias)
    torch.testing.assert_close(flat, outputs_at(output, layer, where), rtol=1e-4, atol=1e-5)


def moments(
    x: torch.Tensor, layer: nn.Conv2d | nn.Linear, where: torch.Tensor, wanted: torch.Tensor, *, intercept: bool
) -> Moments:
    sums = MomentSums(layer, intercept=intercept)
    sums.add(x, where, wanted)
    return sums.moments()


@torch.no_grad()
def test_moments_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Conv2d(4, 6, 3, groups=2)
    x = torch.randn(4, 4, 9, 9) + 100
    output = layer(x)
    where = sample_positions(output, layer, 150, seed=0)
    wanted = outputs_at(output, layer, where)
    columns = columns_at(x, layer, where).double()
    centred = columns - columns.mean(dim=1, keepdim=True)
    for values in (1 << 24, 500):
        monkeypatch.setattr("pcc.training.reconstruction_moments.BLOCK_VALUES", values)
        found = moments(x, layer, where, wanted, intercept=True)
        torch.testing.assert_close(
            found.xx.double(), centred.transpose(1, 2) @ centred / len(where), rtol=1e-4, atol=1e-4
        )
        assert (found.xx @ column_form(layer) - found.xy).abs().max() < 1e-3
    plain = moments(x, layer, where, wanted, intercept=False)
    torch.testing.assert_close(plain.xx.double(), columns.transpose(1, 2) @ columns / len(where), rtol=1e-5, atol=1e-3)


@torch.no_grad()
def test_refit_is_least_squares_on_what_stays() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    layer = nn.Linear(12, 5)
    where = torch.arange(200)
    found = moments(x, layer, where, torch.randn(200, 5, generator=generator), intercept=False)
    quadratic = Quadratic.of(found, column_form(layer), torch.rand(1, 1, 5, generator=generator) + 0.5)
    kept = torch.rand(1, 12, 5, generator=generator) < 0.5
    fitted = refit(quadratic, torch.where(kept, torch.ones(()), torch.zeros(())))
    for filter_ in range(5):
        stays = kept[0, :, filter_]
        exact = torch.linalg.solve(quadratic.a[0][stays][:, stays].double(), quadratic.b[0, stays, filter_].double())
        torch.testing.assert_close(fitted[0, stays, filter_].double(), exact, rtol=1e-3, atol=1e-4)
        assert not fitted[0, ~stays, filter_].any()


@torch.no_grad()
def test_admm_chooses_better_than_magnitude() -> None:
    """Of two inputs that say the same, one may go whatever its size; magnitude keeps both."""
    generator = torch.Generator().manual_seed(0)
    twin, lone = torch.randn(2, 400, 1, generator=generator)
    x = torch.cat([twin, twin + 0.01 * torch.randn(400, 1, generator=generator), lone], dim=1)
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.copy_(torch.tensor([[1.0, 1.1, 0.8]]))
    found = moments(x, layer, torch.arange(400), layer(x), intercept=False)
    dense = column_form(layer)
    quadratic = Quadratic.of(found, dense, torch.ones(1, 1, 1))
    structure = Layer("x", layer, Unstructured(1.5))
    chosen = refit(
        quadratic, admm(quadratic, dense * quadratic.unit, lambda v: structure.project(v.transpose(1, 2)[0]).T[None])
    )
    assert bool(chosen[0, 2, 0] != 0)
    assert int((chosen != 0).sum()) == 2


STRUCTURES: dict[str, dict[str, Structure | None]] = {
    "patterns": {"stem.0": None, "@conv3x3": Kernels("designed")},
    "patterns-connectivity": {"stem.0": None, "@conv3x3": Kernels("designed", 2.0), "@conv": Kernels(rate=2.0)},
    "shared": {"stem.0": None, "@conv3x3": Kernels("designed", 1.5, share=2), "@conv": Kernels(rate=2.0, share=2)},
    "unstructured": {"stem.0": None, "@all": Unstructured(3)},
    "filters": {"@conv3x3": Filter(1.3)},
    "levels": {"@all": UniformLevels(3)},
}


@pytest.mark.parametrize("structures", STRUCTURES.values(), ids=STRUCTURES)
def test_nearer_to_the_dense_network_than_one_shot(model: nn.Module, structures: dict[str, Structure | None]) -> None:
    dense, held_out = copy.deepcopy(model), smooth(100, 7)
    once = relative_error(one_shot(model, structures), dense, held_out)
    layers = bind(model, structures)
    report = reconstruct(model, structures, smooth(200, 6).split(50))
    assert relative_error(model, dense, held_out) < 0.8 * once
    assert {done.name for done in report} == {layer.name for layer in layers}
    for layer in layers:
        assert torch.equal(layer.project(layer.weight), layer.weight), f"{layer.name} has not its structure"
    assert all(done.fitted <= done.projected + 1e-4 for done in report)


def test_a_layer_that_may_keep_everything_keeps_its_weight(model: nn.Module) -> None:
    dense = copy.deepcopy(model)
    report = reconstruct(model, {"@all": Unstructured(1)}, [smooth(100, 6)])
    assert max(done.fitted for done in report) < 1e-6
    assert relative_error(model, dense, smooth(50, 7)) < 1e-5


@pytest.mark.parametrize(
    "structure",
    [Filter(2), Column(2), Kernels("designed"), Unstructured(4), Centroids(8), UniformLevels(4)],
    ids=lambda structure: structure.name,
)
def test_weights_that_were_pruned_before_stay_zero(model: nn.Module, structure: Structure) -> None:
    pruned = one_shot(model, {"last.1": Unstructured(2)})
    zeros = pruned.get_submodule("last.1").get_parameter("weight") == 0
    reconstruct(pruned, {"last.1": structure}, [smooth(64, 1)])
    assert zeros.sum() == zeros.numel() // 2
    assert not pruned.get_submodule("last.1").get_parameter("weight")[zeros].any()


def test_later_layers_make_up_for_earlier_ones(model: nn.Module) -> None:
    """`second` gets everything it wants, and yet changes: its input is no longer what it was."""
    held_out, dense = smooth(100, 7), copy.deepcopy(model)
    errors = []
    for structures in ({"first.0": Unstructured(6)}, {"first.0": Unstructured(6), "second.0": Unstructured(1)}):
        compressed = copy.deepcopy(model)
        reconstruct(compressed, structures, [smooth(200, 6)])
        errors.append(relative_error(compressed, dense, held_out))
    assert errors[1] < errors[0]


def test_same_samples_same_weights_and_modes_stay(model: nn.Module) -> None:
    again = copy.deepcopy(model)
    for network in (model, again):
        network.train()
        network.get_submodule("stem.1").eval()
        reconstruct(network, {"@conv": Unstructured(2)}, [smooth(60, 6)], columns=2000)
        assert network.training
        assert not network.get_submodule("stem.1").training
    for left, right in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(left, right)


def test_the_end_of_a_branch_aims_at_the_sum(model: nn.Module) -> None:
    """What the shortcut has lost in the stem is taken back by the branch, as far as it can."""
    dense, x = copy.deepcopy(model), smooth(200, 6)
    found = observe(model, bind(model, {"@conv": Unstructured(2)}), [x], 1000)
    relu = model.get_submodule("stem.2")
    assert {wanted.layer.name: wanted.shortcut for wanted in found.values() if wanted.shortcut} == {
        "second.0": Place(relu, "out")
    }
    assert {wanted.layer.name: wanted.norm for wanted in found.values() if wanted.norm} == {
        name: model.get_submodule(name.replace(".0", ".1")) for name in ("stem.0", "first.0", "second.0")
    }
    errors = {}
    for branch in ((), ("second.0",)):
        compressed = copy.deepcopy(model)
        reconstruct(compressed, {"stem.0": Unstructured(3), **dict.fromkeys(branch, Unstructured(1))}, [x])
        sums = [sum_of_block(network, smooth(100, 7)) for network in (compressed, dense)]
        errors[branch] = float((sums[0] - sums[1]).square().mean())
    assert errors["second.0",] < 0.95 * errors[()]


def sum_of_block(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    with torch.no_grad(), places([model.get_submodule("last")], lambda place, tensor: seen.append(tensor)):
        model(x)
    return seen[0]


class Downsampling(nn.Module):
    """A block whose shortcut is a convolution, which runs after the branch."""

    def __init__(self) -> None:
        super().__init__()
        self.branch, self.shortcut = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.branch(x)[:, :3]
        y = self.branch(x)
        y += self.shortcut(x)
        return y + 1


def test_shortcuts_are_there_before_the_layer_runs() -> None:
    """The branch ran before the shortcut, so the convolution in the shortcut aims at the sum."""
    model = Downsampling()
    found = observe(model, bind(model, {"@conv": Unstructured(2)}), [smooth(50, 6)], 1000)
    assert found[model.branch].shortcut is None
    ending = found[model.shortcut].shortcut
    assert ending is not None
    assert ending == Place(model.branch, "out", 2)


class InPlace(nn.Module):
    """What is added is no longer what the batch norm gave."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.relu(self.norm(self.conv(x)))


def test_shortcuts_of_a_model_from_a_file_are_seen(model: nn.Module, tmp_path: Path) -> None:
    exported = torch.export.export(model, (torch.zeros(2, 3, 13, 13),), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(exported, tmp_path / "net.pt2")
    found: list[dict[str, tuple[bool, bool]]] = []
    for each in (model, open_file(str(tmp_path / "net.pt2"), (3, 13, 13)).module):
        seen = observe(each, bind(each, {"@conv1x1": Unstructured(2)}), [smooth(50, 6)], 1000)
        found.append({one.layer.name: (one.added is not None, one.shortcut is not None) for one in seen.values()})
    assert found == [{"second.0": (True, True)}] * 2


@torch.inference_mode()
def test_changes_in_place_are_seen() -> None:
    model = InPlace().eval()
    with torch.inference_mode(False), torch.no_grad():
        found = observe(model, bind(model, {"conv": Unstructured(2)}), [smooth(50, 6)], 1000)
    assert found[model.conv].norm is model.norm
    assert found[model.conv].shortcut is None


class Twice(nn.Module):
    """A convolution and a batch norm that run twice, a layer that never does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.Conv2d(3, 3, 1, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.idle = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.other(self.norm(self.conv(input=self.norm(self.conv(x)))))


def test_shared_batch_norms_keep_their_mean() -> None:
    model = Twice()
    model.norm.running_mean = torch.ones(3)
    report = reconstruct(model, {"conv": Unstructured(2)}, [smooth(50, 6)])
    assert [done.name for done in report] == ["conv"]
    assert torch.equal(model.norm.running_mean, torch.ones(3))
    assert array(model.conv.weight).any()


@pytest.mark.parametrize("live_bytes", [0, 300_000, 1 << 30])
def test_batches_change_nothing_but_the_memory(
    model: nn.Module, live_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All positions are looked at, so that the same are in one batch and in several, of different sizes; what waits
    does so in a file, partly in a file, or in memory."""
    monkeypatch.setattr("pcc.training.reconstruction_runs.LIVE_BYTES", live_bytes)
    x, structures, everything = smooth(90, 6), STRUCTURES["patterns-connectivity"], 10**6
    whole, parts = copy.deepcopy(model), copy.deepcopy(model)
    once = reconstruct(whole, structures, [x], columns=everything)
    several = reconstruct(parts, structures, [x[:40], x[40:70], x[70:]], columns=everything)
    assert [(done.name, done.columns) for done in once] == [(done.name, done.columns) for done in several]
    for first, second in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in parts.modules())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(NAME)]


class Keeps(nn.Module):
    """Keeps a grid from one run to the next, and looks at a view and at a tensor that changes in place behind
    layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.relu = nn.ReLU(inplace=True)
        self.grid: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.grid:
            self.grid["rows"] = self.relu(torch.linspace(-1, 1, 13)[:, None].repeat(1, 13))
        whole = self.relu(self.first(x + self.grid["rows"]))
        head = self.second(whole)[:, :2]
        whole[:, 1:] *= 2
        return self.third(whole) + head.sum(1, keepdim=True) + self.relu(whole[:, :1]) + self.grid["rows"]


def test_what_waits_in_a_file_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    states, x = [], smooth(90, 6)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        dense = Keeps()
    for live_bytes in (1 << 30, 0):
        monkeypatch.setattr("pcc.training.reconstruction_runs.LIVE_BYTES", live_bytes)
        network = copy.deepcopy(dense)
        reconstruct(network, {"@conv": Unstructured(2)}, x.split(30))
        states.append(network.state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name])


class Chooses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = (self.left, self.right) if x.mean() > 0 else (self.right, self.left)
        return second(first(x))


def test_samples_that_go_another_way_are_refused() -> None:
    x = smooth(30, 6)
    with pytest.raises(PccError, match="right does not run in the same place for all samples"):
        reconstruct(Chooses(), {"@conv": Unstructured(2)}, [x + 5, x - 5])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(NAME)]


def spoil(model: nn.Module) -> None:
    with torch.no_grad():
        model.get_parameter("other.weight").fill_(float("inf"))


@pytest.mark.parametrize(
    ("structures", "samples", "damage", "message"),
    [
        ({"idle": Unstructured(2)}, [smooth(50, 6)], None, "layer idle never runs"),
        ({"conv": Unstructured(2)}, [], None, "there are none"),
        ({"conv": Unstructured(2)}, [smooth(1, 6)[:, :, :5, :5]], None, "layer conv: 25 outputs are too few"),
        ({"other": Unstructured(2)}, [smooth(50, 6)], spoil, "layer other gives numbers that are not finite"),
        ({"nowhere": Unstructured(2)}, [smooth(50, 6)], None, "no convolution or linear layer is called 'nowhere'"),
    ],
)
def test_wrong_use(
    structures: dict[str, Structure | None],
    samples: list[torch.Tensor],
    damage: Callable[[nn.Module], None] | None,
    message: str,
) -> None:
    model = Twice()
    if damage is not None:
        damage(model)
    with pytest.raises(PccError, match=message):
        reconstruct(model, structures, samples)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class PreActivation(nn.Module):
    """A convolution without a bias, which a batch norm and a shortcut read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return x + self.last(self.norm(x).relu())


def test_the_mean_of_a_batch_norm_that_is_not_the_only_reader_stays() -> None:
    torch.manual_seed(0)
    model, x = PreActivation().eval(), torch.rand(16, 4, 8, 8)
    reconstruct(model, {"conv": Unstructured(3)}, [x])
    assert torch.equal(model.norm.get_buffer("running_mean"), torch.zeros(8))


def test_compositions_of_zeros_are_fitted_as_their_parts_are() -> None:
    torch.manual_seed(0)
    x = torch.einsum("oc,nchw->nohw", torch.randn(8, 8), torch.randn(32, 8, 6, 6))
    fitted = []
    for structure in (Unstructured(3), Composition((Filter(1), Unstructured(3)))):
        torch.manual_seed(1)
        (report,) = reconstruct(nn.Sequential(nn.Conv2d(8, 8, 3)), {"0": structure}, [x])
        fitted.append(report.fitted)
    assert fitted[1] == pytest.approx(fitted[0], rel=1e-4)
