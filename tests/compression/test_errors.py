"""A layer's error from its moments is the error that it has, and sensitivities those of the network's outputs."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from pcc.compression.candidates import candidates, mined_patterns
from pcc.compression.database import best
from pcc.compression.errors import layer_fits, shown
from pcc.compression.options import Option
from pcc.compression.recipe import structure_of, written
from pcc.sparsity.kernels import Kernels
from pcc.training.layers import array, prunable
from pcc.training.recipe import parse_recipe, parse_structures
from tests.nets import Residual, settle


@pytest.fixture(scope="module")
def batches() -> list[torch.Tensor]:
    noise = torch.randn(40, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    return list(nn.functional.interpolate(noise, size=13, mode="bilinear").split(20))


def test_errors_are_those_of_the_layers_output(batches: list[torch.Tensor]) -> None:
    model = settle(Residual())
    modules = prunable(model)
    fits = layer_fits(model, modules, batches, 10**6)
    assert list(fits) == [name for name in ("stem.0", "first.0", "second.0.0", "second.1", "shortcut", "fc")]
    structure = Kernels("designed", 2.0)
    weight, error = fits["first.0"].fully_fitted(structure)
    module = modules["first.0"]
    x = model.get_submodule("stem")(torch.cat([batch[10:] for batch in batches]))  # what nothing was fitted on
    pruned = copy.deepcopy(module)
    with torch.no_grad():
        pruned.weight.copy_(weight.transpose(1, 2).reshape(module.weight.shape))
        wanted, found, everything = (
            layer(some).transpose(0, 1).flatten(1)
            for layer, some in ((module, x), (pruned, x), (module, model.get_submodule("stem")(torch.cat(batches))))
        )
    scale = fits["first.0"].scale.flatten().square()
    left = ((found - wanted).var(dim=1, correction=0) * scale).sum()  # the mean is fitted, too
    assert error == pytest.approx(float(left / (everything.var(dim=1, correction=0) * scale).sum()), rel=1e-3)
    kept = array(pruned.weight)
    np.testing.assert_array_equal(structure.project(kept) != 0, kept != 0)


@torch.no_grad()
def test_what_a_branch_loses_counts_by_the_sum_that_it_goes_into(batches: list[torch.Tensor]) -> None:
    model = settle(Residual())
    fits = layer_fits(model, prunable(model), batches, 10**6)
    stem = model.get_submodule("stem")(torch.cat(batches))
    x = nn.functional.relu(stem + model.get_submodule("first")(stem))
    sums = model.get_submodule("second")(x) + model.get_submodule("shortcut")(x)
    variance = sums.transpose(0, 1).flatten(1).var(dim=1, correction=0)
    for branch in ("second.1", "shortcut"):
        torch.testing.assert_close(fits[branch].variance, variance)


def test_more_freedom_costs_less(batches: list[torch.Tensor]) -> None:
    model = settle(Residual())
    fit = layer_fits(model, prunable(model), batches, 10**6)["second.0.0"]
    rates = [fit.fitted(Kernels(None, rate))[1] for rate in (1.5, 2, 3, 4)]
    assert rates == sorted(rates)
    assert fit.fitted(Kernels(None, 2, share=4))[1] > rates[1]
    assert fit.fitted(Kernels(None, 1))[1] == pytest.approx(0, abs=1e-5)


@torch.no_grad()
def test_what_outputs_show_is_measured_and_leaves_the_network_alone(batches: list[torch.Tensor]) -> None:
    model = Residual()
    settle(model)
    before = copy.deepcopy(model.state_dict())
    fits = layer_fits(model, prunable(model), batches, 10**6)
    x = torch.cat(batches)
    dense = model(x)
    found = {name: shown(lambda: model(x), dense, fit, Kernels(None, 2)) for name, fit in fits.items()}
    assert all(value > 0 for value in found.values())
    fit, changed = fits["fc"], copy.deepcopy(model)
    weight, _ = fit.fully_fitted(Kernels(None, 2))
    assert isinstance(changed, Residual)
    changed.fc.weight.copy_(weight[0].T)
    changed.fc.bias.copy_(fit.moments.y_mean - fit.moments.x_mean[0] @ weight[0])
    expected = (changed(x) - dense).square().sum() / dense.square().sum()
    assert found["fc"] == pytest.approx(float(expected), rel=1e-4)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_of_two_equal_options_one_stays() -> None:
    def option(name: str, error: float, cost: float) -> Option:
        return Option(structure=name, error=error, cost=cost, family="", macs=1, bytes=1)

    options = [option(*each) for each in (("a", 0.1, 2), ("b", 0.1, 2), ("c", 0.2, 1), ("d", 0.2, 3), ("e", 0.2, 1))]
    assert [each.structure for each in best(options)] == ["a", "c"]


def test_what_feeders_save_is_not_in_an_options_own_cost() -> None:
    own = Option(structure="a", error=0.1, cost=1, family="", macs=1, bytes=1)
    with_feeders = own.model_copy(update={"structure": "b", "error": 0.2, "cost": 2, "feeders": ("c",)})
    assert best([own, with_feeders]) == [own, with_feeders]
    worse = with_feeders.model_copy(update={"error": 0.3})
    assert best([own, with_feeders, worse]) == [own, with_feeders]


def test_candidates_can_be_written_and_have_the_layers_shape() -> None:
    model = settle(Residual())
    weights = {name: array(module.weight) for name, module in prunable(model).items()}
    patterns = mined_patterns(weights.values())
    assert patterns is not None
    assert len(patterns) == 8
    for name, weight in weights.items():
        found = candidates(weight, 1, patterns)
        assert any(each.patterns for each in found) == (weight.shape[2:] == (3, 3)), name
        for each in found:
            assert structure_of(written(each)) == each
            each.project(weight)
    assert mined_patterns([np.ones((4, 4), np.float32)]) is None


def test_the_recipe_is_one(batches: list[torch.Tensor]) -> None:
    from pcc.compression.recipe import recipe_text

    structure = Kernels(((0, 1, 3, 4), (1, 2, 4, 5)), 2.0, share=2)
    text = recipe_text({"first.0": written(structure)}, "a test")
    recipe = parse_recipe(text)
    assert text.startswith("# a test\n")
    assert parse_structures(recipe.stages[0].structures) == {"first.0": structure}
    assert recipe.stages[0].method == "train"
