"""What families offer for GPUs: counts that agree with the kernels' texts, choices, calls that compute a layer."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pcc.codegen.family import OPENCL, Candidate, cheapest, families
from pcc.codegen.layers import Conv2d, ConvGeometry
from pcc.codegen.opencl.families.conv_direct import all_connections
from pcc.codegen.opencl.families.conv_sparse import FAMILY as SPARSE
from pcc.codegen.opencl.families.conv_sparse import HIGH_TILES, lanes_that_wait
from pcc.codegen.opencl.families.tiles import TileSchedule, group_work
from pcc.codegen.opencl.kernels.conv_direct import direct_call
from pcc.codegen.opencl.kernels.conv_gather import gather_call
from pcc.codegen.opencl.kernels.tile import Tile
from pcc.codegen.opencl.planes import Planes
from pcc.codegen.opencl.profiles import PROFILES, GpuProfile
from pcc.codegen.opencl.text import opencl_text
from pcc.codegen.program import View, contiguous_strides
from pcc.dtype import FLOAT16, FLOAT32, DType
from pcc.ir.activation import PARAMETRIC, Activation
from pcc.sparsity import fkw as packed
from pcc.sparsity.fkw import unpack
from tests.codegen.opencl.kernels.support import Case, check
from tests.codegen.opencl.kernels.test_conv_direct import PATTERNS, SAME, pruned

ADRENO = PROFILES["adreno-6xx"]


def offers(layers: dict[str, Conv2d], profile: GpuProfile) -> tuple[dict[str, tuple[Candidate, float]], dict[str, str]]:
    """Each family's cheapest schedule of a layer, whose weight comes in some formats: the cheapest family first; and
    why others have none."""
    found, refused = {}, {}
    for name, family in families(OPENCL).items():
        if family.layer is Conv2d and family.format in layers:
            offer = cheapest(family, layers[family.format], profile)
            if isinstance(offer, str):
                refused[name] = offer
            else:
                found[name] = offer
    return dict(sorted(found.items(), key=lambda each: each[1][1])), refused


def layers_of(case: Case, share: int, kept: float) -> dict[str, Conv2d]:
    """A layer pruned by patterns and connections, dense and packed."""
    weight = pruned(case, share, PATTERNS, kept)
    x = Planes((1, case.channels, case.height, case.width), dtype=case.dtype).view("x")
    out = case.geometry.output_size(case.height, case.width)
    y = Planes((1, case.filters, *out), dtype=case.dtype).view("y")
    dense = Conv2d(str(case), x, y, weight, None, case.geometry)
    return {"dense": dense, "fkw": replace(dense, weight=packed.pack(weight, 1, PATTERNS, share))}


@pytest.mark.parametrize("tile", [Tile(4, 2, 2), Tile(4, 1, 2), Tile(1, 2, 4)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("gathered", [False, True])
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16], ids=str)
def test_counts_are_those_of_the_text(tile: Tile, stride: int, gathered: bool, dtype: DType) -> None:
    geometry = ConvGeometry((3, 3), (stride, stride), (1, 1, 1, 1))
    layer = layers_of(Case(16, 8, 16, 16, geometry, dtype=dtype), tile.filters, 0.5)["fkw"]
    weight = layer.weight
    assert isinstance(weight, packed.FKW)
    call = (gather_call if gathered else direct_call)(layer, weight, tile, dtype, 0, (1, 1, 1))
    _, *loops = opencl_text(call.kernel).split("__kernel", 1)[1].split("while (")
    bodies = [loop.split("break;")[0] for loop in loops]
    assert len(bodies) == (1 if gathered else len(PATTERNS))
    groups = weight.shape[0] // weight.share
    work = group_work(layer, weight.patterns, len(bodies), groups, tile, gathered=gathered)
    items = np.prod(tile.items(tile.filters, *layer.y.shape[2:]))
    mads = sum(body.count("mad(") for body in bodies) * 4
    assert work.mads == mads * items
    loads = sum(
        len(re.findall(r"LOAD4?_\w+\(|vload4\(", body))
        + (1 if dtype == FLOAT16 else 2) * body.count("LOAD8_")
        + body.count("connections[")
        for body in bodies
    )
    outside = group_work(layer, weight.patterns, 0, groups, tile, gathered=gathered).memory
    assert work.memory - outside == pytest.approx(loads * items, rel=1e-6)


def test_a_layer_without_connectivity_gets_a_dense_kernel() -> None:
    """Four of nine taps are 256 multiply-adds for 64 channels, F(4x4) takes 144."""
    found, _ = offers(layers_of(Case(64, 64, 56, 56, SAME), 4, 1.0), ADRENO)
    assert next(iter(found)) == "opencl-conv-winograd-4"
    found, _ = offers(layers_of(Case(64, 64, 56, 56, SAME), 4, 1 / 3.6), ADRENO)
    assert next(iter(found)) == "opencl-conv-sparse"


def test_free_connectivity_costs_memory() -> None:
    case = Case(64, 64, 56, 56, SAME)
    shared, free = (
        offers(layers_of(case, share, 1 / 3.6), ADRENO)[0]["opencl-conv-sparse"][0].work for share in (4, 1)
    )
    assert ADRENO.slots_of(shared) < ADRENO.slots_of(free)
    assert shared.memory < free.memory / 2


@pytest.mark.parametrize("share", [1, 4])
def test_high_tiles_are_for_strides_of_one_and_numbers_that_are_not_converted(share: int) -> None:
    def tiles(stride: int, dtype: DType, profile: GpuProfile = ADRENO) -> set[Tile]:
        case = Case(16, 16, 56, 56, ConvGeometry((3, 3), (stride, stride), (1, 1, 1, 1)), dtype=dtype)
        offered = SPARSE.candidates(layers_of(case, share, 0.3)["fkw"], profile)
        assert not isinstance(offered, str)
        return {offer.schedule.tile for offer in offered}

    high = HIGH_TILES[share]
    assert high in tiles(1, FLOAT32)
    assert high in tiles(1, FLOAT16, ADRENO.with_sums(FLOAT16))
    assert high not in tiles(2, FLOAT32)
    assert high not in tiles(1, FLOAT32, PROFILES["mali-g5x"])
    assert (high in tiles(1, FLOAT16)) == (share == 1)


def test_groups_of_a_wave_wait_for_each_other() -> None:
    """On a small map a wave has several filter groups, and runs the longest loop of each pattern."""
    weight = layers_of(Case(64, 64, 7, 7, SAME), 4, 0.3)["fkw"].weight
    assert isinstance(weight, packed.FKW)
    counts = np.diff(weight.stride, axis=1)
    assert lanes_that_wait(counts, (8, 8, 1), ADRENO) == 1
    assert lanes_that_wait(counts, (2, 4, 8), ADRENO) > lanes_that_wait(counts, (4, 8, 2), ADRENO) > 1
    assert lanes_that_wait(counts, (4, 8, 2), PROFILES["mali-g5x"]) == 1


def test_mali_gets_tiles_of_few_registers() -> None:
    found, refused = offers(layers_of(Case(64, 64, 56, 56, SAME), 4, 1 / 3.6), PROFILES["mali-g5x"])
    tiled = [offer.schedule.tile for offer, _ in found.values() if isinstance(offer.schedule, TileSchedule)]
    assert tiled
    assert all(tile.outputs <= 16 for tile in tiled)
    assert not refused


def test_refusals_say_why() -> None:
    case = Case(8, 8, 16, 16, ConvGeometry((3, 3), (2, 2), (1, 1, 1, 1)))
    _, refused = offers({"dense": layers_of(case, 4, 0.5)["dense"]}, ADRENO)
    assert refused["opencl-conv-winograd-4"].startswith("only windows of 3x3")
    far = Case(8, 8, 16, 16, ConvGeometry((3, 3), (4, 4), (1, 1, 1, 1)))
    found, refused = offers({"dense": layers_of(far, 4, 0.5)["dense"]}, ADRENO)
    assert list(found) == ["opencl-conv-any"]
    assert refused["opencl-conv-direct"] == "a stride of more than 3"


TILED = [name for name, family in families(OPENCL).items() if getattr(family, "border", None) is not None]


@pytest.mark.parametrize("name", TILED)
@pytest.mark.parametrize(
    ("profile", "activation"),
    [
        *((ADRENO, Activation(kind)) for kind in ("none", *PARAMETRIC)),
        (PROFILES["mali-g5x"], Activation("prelu")),
    ],
    ids=lambda value: value.name if isinstance(value, GpuProfile) else str(value),
)
def test_calls_compute_the_layer(name: str, profile: GpuProfile, activation: Activation) -> None:
    case, buffers = Case(6, 8, 9, 13, SAME, 2, activation), dict[str, np.ndarray]()
    family: Any = families(OPENCL)[name]
    weight = pruned(case, 4, PATTERNS, 0.5)

    def scratch(label: str, elements: int) -> View:
        buffers[label] = np.zeros(elements, np.float32)
        return View(label, (elements,), contiguous_strides((elements,)))

    def calls(layer: Conv2d) -> list[Any]:
        if family.format == "fkw":
            layer = replace(layer, weight=packed.pack(weight, 1, PATTERNS, 4))
        candidates = family.candidates(layer, profile)
        assert not isinstance(candidates, str)
        return family.calls(layer, candidates[0].schedule, scratch)

    check(case, weight, calls, 2e-5, scratch=buffers)


def test_all_connections_hold_zeros_too() -> None:
    weight = pruned(Case(6, 8, 9, 9, SAME, groups=2), 4, PATTERNS, 0.5)
    dense = all_connections(weight, 2, 4)
    packed.validate(dense)
    np.testing.assert_array_equal(unpack(dense), weight)
