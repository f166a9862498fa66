"""What pruning would bring, before it is done, beside what the passes and select-kernels make of it."""

from typing import Any

import pytest

from pcc.codegen.machine import MACHINES
from pcc.codegen.select_kernels import OpenLayer, SelectKernels
from pcc.ir.annotations import KernelChoice, annotation
from pcc.passes.pipeline import parse_pipeline
from pcc.report.pruning_prices import RATES, LayerPrices, RatePrice, pruning_prices
from pcc.sparsity.formats import DENSE
from tests.passes.prunable import graph_of, mixed, run


def of(rate: float, kept: float, cost: float) -> RatePrice:
    return RatePrice(rate, kept, "conv-sparse-scatter", cost)


@pytest.mark.parametrize("processor", ["intel-avx512", "cortex-a76"])
def test_prices_are_those_of_the_network_that_is_pruned(processor: str) -> None:
    prices = pruning_prices(mixed()[0], parse_pipeline("prune-pattern,prune-connectivity"), MACHINES[processor])
    pruned = run(
        mixed()[0], "prune-pattern{spare_first=false},prune-connectivity{rate=4,spare_first=false},reorder-kernels"
    )
    selected = SelectKernels(processor)(pruned).graph_module
    compared = 0
    for node in selected.graph.nodes:
        if choice := annotation(node, KernelChoice):
            from pcc.codegen.family import family_named

            costs = [
                (choice.family, choice.cost),
                *((other.family, other.cost) for other in choice.rejected if other.cost is not None),
            ]
            dense = min(cost for family, cost in costs if family_named(family).format == DENSE)
            sparse = [cost for family, cost in costs if family_named(family).format != DENSE]
            price = next((price for price in prices[node.name].prices if price.rate == 4), None)
            assert prices[node.name].dense == pytest.approx(dense)
            assert bool(sparse) == (price is not None)
            if price:
                assert price.cost == pytest.approx(min(sparse), rel=0.05), "up to the order of filters"
                compared += 1
    assert compared >= 6


def test_rates_and_kept_weights() -> None:
    graph, _ = mixed()
    prices = pruning_prices(graph, parse_pipeline("prune-connectivity"), MACHINES["avx2"])
    expand = prices["expand"]
    assert [price.rate for price in expand.prices] == list(RATES[1:]), "at rate 1 nothing is pruned"
    assert [price.kept for price in expand.prices] == pytest.approx([1 / rate for rate in RATES[1:]], rel=0.01)
    assert "depthwise" in prices["depthwise"].reason
    assert prices["classifier"].reason == "the passes that prune cut convolutions"


def test_a_structure_without_a_rate_has_one_price() -> None:
    prices = pruning_prices(mixed()[0], parse_pipeline("prune-pattern"), MACHINES["avx2"])
    assert [(price.rate, round(price.kept, 2)) for price in prices["right"].prices] == [(1.0, 0.44)]
    assert "3x3" in prices["expand"].reason


def test_equal_layers_are_priced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import nn

    graph, _ = graph_of(nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))), 1, 8, 12, 12)
    priced, price = list[str](), OpenLayer.priced

    def counted(layer: OpenLayer, *args: Any, **options: Any) -> Any:
        priced.append(layer.node.name)
        return price(layer, *args, **options)

    monkeypatch.setattr(OpenLayer, "priced", counted)
    prices = pruning_prices(graph, parse_pipeline("prune-connectivity"), MACHINES["avx2"])
    assert set(priced) == {"_0"}
    assert prices["_0"].prices
    assert prices["_0"] == prices["_1"] == prices["_2"]


def test_break_even() -> None:
    assert LayerPrices(100).break_even is None
    assert LayerPrices(100, (of(2, 0.5, 130), of(4, 0.25, 110))).break_even is None
    assert LayerPrices(100, (of(2, 0.5, 80), of(4, 0.25, 50))).break_even == of(2, 0.5, 80)
    between = LayerPrices(100, (of(2, 0.5, 120), of(4, 0.25, 80))).break_even
    assert between is not None
    assert (between.cost, between.kept, between.rate) == (100, pytest.approx(0.375), pytest.approx(4 * 0.25 / 0.375))
