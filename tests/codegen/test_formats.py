"""Another weight format is a file and a line: one that is registered here goes from the weights to what a program
computes."""

import sys
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from pcc.codegen import family as registry
from pcc.codegen.family import Candidate, family_named
from pcc.codegen.interpret import interpret
from pcc.codegen.isa import isa_named
from pcc.codegen.layers import Conv2d
from pcc.codegen.lower import lower
from pcc.codegen.machine import Work
from pcc.codegen.program import ProgramBuilder
from pcc.codegen.select_kernels import SelectKernels
from pcc.dtype import FLOAT32, DType
from pcc.errors import PccError
from pcc.frontend.torch_module import import_module
from pcc.ir.annotations import KernelChoice, annotation, skips
from pcc.ir.counts import count
from pcc.ir.ops import CONV2D, UNPACK
from pcc.ir.verify import relative_error, run_graph, verify_structure
from pcc.sparsity import formats
from pcc.sparsity.formats import WeightFormat, format_named
from tests.passes.prunable import run


@dataclass(frozen=True)
class Coordinates:
    """The non-zeros and where they are."""

    shape: tuple[int, int, int, int]
    groups: int
    count: int
    places: np.ndarray
    values: np.ndarray


def pack(weight: np.ndarray, groups: int, order: np.ndarray | None) -> Coordinates | str:
    o, i, kh, kw = weight.shape
    places = np.flatnonzero(weight).astype(np.int32)
    return (
        Coordinates((o, i, kh, kw), groups, len(places), places, weight.ravel()[places])
        if len(places) < weight.size // 2
        else "it is not sparse"
    )


def unpack(packed: Coordinates) -> np.ndarray:
    weight = np.zeros(int(np.prod(packed.shape)), np.float32)
    weight[packed.places] = packed.values
    return weight.reshape(packed.shape)


FORMAT = WeightFormat("coordinates", Coordinates, pack, unpack, nonzeros=lambda packed: packed.count)


@dataclass(frozen=True)
class ByCoordinates:
    """Takes coordinates, and computes as the dense family does."""

    name: str = "conv-coordinates"
    layer: type[Conv2d] = Conv2d
    format: str = "coordinates"
    dtypes: tuple[DType, ...] = (FLOAT32,)

    def candidates(self, layer: Conv2d, machine: object) -> list[Candidate]:
        assert isinstance(layer.weight, Coordinates)
        return [Candidate("one by one", Work(fma=layer.weight.count / 1e6))]

    def emit(self, layer: Conv2d, schedule: object, b: ProgramBuilder) -> None:
        assert isinstance(layer.weight, Coordinates)
        dense = family_named("conv-dense")
        from pcc.codegen.machine import MACHINES

        unpacked = replace(layer, weight=unpack(layer.weight))
        dense.emit(unpacked, dense.candidates(unpacked, MACHINES["avx2"])[0].schedule, b)  # type: ignore[union-attr]


@pytest.fixture
def coordinates(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("pcc.sparsity.coordinates")
    module.FORMAT = FORMAT  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(formats.OWN, "coordinates", "coordinates")
    every = {**registry.families(), "conv-coordinates": ByCoordinates()}
    monkeypatch.setattr(registry, "families", lambda backend=registry.LLVM: every)
    for user in ("select_kernels", "lower"):
        monkeypatch.setattr(f"pcc.codegen.{user}.families", lambda backend: every)


BEFORE = "decompose,canonicalize,fold-constants,fold-batchnorm,fuse-epilogues"


@pytest.mark.usefixtures("coordinates")
def test_a_new_format_from_the_weight_to_the_program() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1).eval()
    conv.weight.data[torch.rand(conv.weight.shape) < 0.8] = 0
    x = torch.randn(2, 4, 9, 7)
    graph_module = run(import_module(conv, (x,)), BEFORE)
    expected = run_graph(graph_module, (x,))
    (node,) = graph_module.graph.find_nodes(op="call_function", target=CONV2D)
    before = count(node)
    SelectKernels("avx2")(graph_module)
    verify_structure(graph_module)
    (node,) = graph_module.graph.find_nodes(op="call_function", target=CONV2D)
    (weight,) = graph_module.graph.find_nodes(op="call_function", target=UNPACK)
    choice = annotation(node, KernelChoice)
    assert choice is not None
    assert choice.family == "conv-coordinates"
    assert [str(array.target) for array in weight.args[0]] == ["weight_coordinates.places", "weight_coordinates.values"]  # type: ignore[union-attr]
    assert relative_error(run_graph(graph_module, (x,)), expected) == 0
    after = count(node)
    assert (after.parameters, after.nonzeros, after.macs, after.kept_macs) == (
        before.parameters,
        before.nonzeros,
        before.macs,
        before.kept_macs,
    )
    (found,) = interpret(lower(graph_module, "net", isa_named("avx2")), [x.numpy()])
    np.testing.assert_allclose(found, expected[0].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("coordinates")
def test_a_weight_that_does_not_fit_stays_dense() -> None:
    x = torch.randn(1, 4, 9, 7)
    graph_module = run(import_module(nn.Conv2d(4, 6, 3).eval(), (x,)), BEFORE)
    SelectKernels("avx2")(graph_module)
    (node,) = graph_module.graph.find_nodes(op="call_function", target=CONV2D)
    choice = annotation(node, KernelChoice)
    assert choice is not None
    assert {(other.family, other.reason) for other in choice.rejected} >= {("conv-coordinates", "it is not sparse")}
    assert [skip.reason for skip in skips(node) if skip.pass_name == "select-kernels"]


@pytest.mark.parametrize("name", formats.OWN)
def test_formats_are_named_as_they_are_registered(name: str) -> None:
    found = format_named(name)
    assert found.name == name
    weight = np.zeros((4, 3, 3, 3), np.float32)
    weight[:, 1:, 1:, :2] = np.random.default_rng(0).standard_normal((4, 2, 2, 2))
    packed = found.pack(weight, 1, None)
    rebuilt = found.packed(
        weight.shape,
        1,
        [getattr(packed, name) for name in found.numbers],
        [getattr(packed, name) for name in found.arrays],
    )
    np.testing.assert_array_equal(found.unpack(rebuilt), weight)
    assert found.nonzeros(rebuilt) == np.count_nonzero(weight)


def test_a_name_that_is_none() -> None:
    with pytest.raises(PccError, match="unknown weight format 'coo': choose one of fkw, csr"):
        format_named("coo")
