"""reduce-precision and store-weights: what becomes fp16, what stays fp32, and what is refused."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

import pcc
from pcc.codegen.interpret import interpret
from pcc.codegen.plan_memory import PlanMemory
from pcc.errors import PccError
from pcc.ir.graph import arguments, constant
from pcc.ir.printer import print_graph
from pcc.ir.verify import as_taken, relative_error, run_graph, verify_structure
from pcc.passes.fold_batchnorm import FoldBatchnorm
from pcc.passes.fold_constants import FoldConstants
from pcc.passes.fuse_epilogues import FuseEpilogues
from pcc.passes.instruments import NotePruning, VerifyEach
from pcc.passes.manager import GraphPass, PassManager
from pcc.passes.pipeline import chosen_pipeline
from pcc.passes.reduce_precision import ReducePrecision
from pcc.passes.store_weights import StoreWeights
from pcc.target import Gpu, target_named
from tests.nets import Residual, settle
from tests.passes.exact import canonical, nodes
from tests.random_graphs.check import passed, program

IMAGE = torch.randn(2, 3, 13, 11, generator=torch.Generator().manual_seed(0))
HALF, FLOAT = torch.float16, torch.float32


def reduced(module: nn.Module, inputs: Sequence[Tensor], step: GraphPass) -> tuple[GraphModule, float]:
    """The graph after the pass, and the relative error that it caused."""
    graph = canonical(module, *inputs)
    for exact in (FoldConstants(), FoldBatchnorm(), FuseEpilogues()):
        graph = exact(graph).graph_module
    before = run_graph(graph, inputs)
    result = step(graph)
    assert result.modified
    verify_structure(result.graph_module)
    return result.graph_module, relative_error(run_graph(result.graph_module, inputs), before)


def types(graph: GraphModule, operator: str) -> set[torch.dtype]:
    return {node.meta["val"].dtype for node in nodes(graph, operator)}


@pytest.mark.parametrize("step", [ReducePrecision(), StoreWeights()], ids=lambda step: step.name)
def test_text(step: GraphPass, golden: Callable[[str, str], None]) -> None:
    golden(print_graph(reduced(settle(Residual()), [IMAGE], step)[0]), step.name.replace("-", "_"))


def test_activations_and_weights_become_fp16_between_fp32_ports() -> None:
    graph, error = reduced(settle(Residual()), [IMAGE], ReducePrecision())
    assert 0 < error < 4 * 2.0**-11
    assert types(graph, "conv2d") == types(graph, "pool2d") == types(graph, "linear") == {HALF}
    for node in (*nodes(graph, "conv2d"), *nodes(graph, "linear")):
        assert constant(arguments(node)["weight"]).dtype == HALF
        assert constant(arguments(node)["bias"]).dtype == FLOAT
    assert [str(node.args[1]) for node in nodes(graph, "convert")] == ["float16", "float32"], (
        "the image once, the result once"
    )
    assert not ReducePrecision()(graph).graph_module.graph.find_nodes(
        op="call_function", target=torch.ops.aten._to_copy.default
    )


def test_ports_in_fp16() -> None:
    graph, error = reduced(settle(Residual()), [IMAGE], ReducePrecision(ports=True))
    assert 0 < error < 4 * 2.0**-11
    assert not nodes(graph, "convert")
    (image,) = graph.graph.find_nodes(op="placeholder")
    assert image.meta["val"].dtype == run_graph(graph, [IMAGE])[0].dtype == HALF


class Pointer(nn.Module):
    """Looks up rows of a table by places that are computed; returns whole numbers, too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table = nn.Linear(8, 1), nn.Parameter(torch.randn(4000, 6))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        place = (self.layer(x).sigmoid() * 3999).floor().long().reshape(-1)
        return self.table[place] * 2, place + 1


def test_places_and_whole_numbers_stay_fp32() -> None:
    """3999 is no number of fp16."""
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    graph, _ = reduced(settle(Pointer()), [x], ReducePrecision())
    (gather,) = nodes(graph, "gather")
    assert gather.meta["val"].dtype == HALF
    assert arguments(gather)["index"].meta["val"].dtype == FLOAT
    assert run_graph(graph, [x])[1].dtype == torch.int64
    indices = [node for node in nodes(graph, "elementwise") if node.meta["val"].dtype == FLOAT]
    assert any("floor" in str(node.args[1]) for node in indices)


def test_values_that_do_not_fit() -> None:
    module = nn.Conv2d(3, 4, 1)
    module.weight.data[1] = 7e4
    with pytest.raises(PccError, match=r"weight has values up to 7e\+04, and float16 ends at 65504"):
        reduced(module, [IMAGE], ReducePrecision())


class Masked(nn.Module):
    """A constant of infinities, as attention has."""

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(x + torch.full((13, 11), -torch.inf).triu(1), -1)


def test_biases_that_do_not_fit() -> None:
    """A convolution's sums in fp16 start from them; a linear layer's are added in fp32."""
    convolution, linear = nn.Conv2d(3, 4, 1), nn.Linear(11, 4)
    for layer in (convolution, linear):
        layer.get_parameter("bias").data[1] = 7e4
    with pytest.raises(PccError, match=r"bias has values up to 7e\+04, and float16 ends at 65504"):
        reduced(convolution, [IMAGE], ReducePrecision())
    reduced(nn.Sequential(linear, nn.Sigmoid()), [IMAGE[0, 0]], ReducePrecision())


@pytest.mark.parametrize("step", [ReducePrecision(), StoreWeights()], ids=lambda step: step.name)
def test_weights_that_are_too_small(step: GraphPass) -> None:
    module = nn.Linear(11, 4)
    module.weight.data *= 1e-5
    with pytest.raises(PccError, match=r"too small for float16: rounding would change them by 0\.0\d+ of their norm"):
        reduced(module, [IMAGE[0, 0]], step)


def test_a_filter_that_is_little_beside_the_others_is_rounded() -> None:
    """As batch norms of filters that died leave some in ResNet-50."""
    module = nn.Conv2d(3, 4, 3)
    module.weight.data[1] *= 1e-6
    _, error = reduced(module, [IMAGE], ReducePrecision())
    assert error < 4 * 2.0**-11


def test_masks_keep_their_infinities() -> None:
    graph, error = reduced(Masked(), [IMAGE], ReducePrecision())
    assert error < 4 * 2.0**-11
    assert types(graph, "softmax") == {HALF}


def test_only_weights_of_linear_layers() -> None:
    graph, error = reduced(settle(Residual()), [IMAGE], StoreWeights())
    assert 0 < error < 2.0**-11
    assert types(graph, "conv2d") == types(graph, "linear") == {FLOAT}
    (linear,) = nodes(graph, "linear")
    assert constant(arguments(linear)["weight"]).dtype == HALF
    assert {constant(arguments(node)["weight"]).dtype for node in nodes(graph, "conv2d")} == {FLOAT}
    noted = NotePruning()
    assert not PassManager([StoreWeights()], [noted])(graph).modified
    assert noted.warnings == ["store-weights changed nothing: 1 layer (fc): its weights are float16 already"]


def test_no_linear_layer() -> None:
    noted = NotePruning()
    PassManager([StoreWeights()], [noted])(canonical(nn.Conv2d(3, 4, 1), IMAGE))
    assert noted.warnings == ["store-weights changed nothing: the network has no linear layer"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_are_refused_with_their_place(dtype: torch.dtype, tmp_path: Path) -> None:
    with pytest.raises(PccError, match=r"pcc cannot compile 3 operators .*at test_reduce_precision\.py:\d+"):
        pcc.compile(Applied(lambda x: (x.to(dtype) * 3).float()), IMAGE, tmp_path / "package", verify_each=True)


class Overflows(nn.Module):
    """In fp16; what hides values by an infinity is none of its errors."""

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(x.masked_fill(x < 0, -torch.inf), -1) + (x * 3e4 * x.exp()).flip(3) * 1e-9


def test_numbers_beyond_fp16_are_an_error(tmp_path: Path) -> None:
    graph = canonical(Overflows(), IMAGE)
    with pytest.raises(
        PccError,
        match=r"^pass reduce-precision makes infinities or NaN of finite numbers, first in layer mul "
        r"\(--no-verify compiles it all the same\)$",
    ):
        PassManager([ReducePrecision()], [VerifyEach(graph, [IMAGE])])(graph)
    a76 = target_named("aarch64-linux", "cortex-a76")
    with pytest.raises(PccError, match="makes infinities or NaN"):
        pcc.compile(Overflows(), IMAGE, tmp_path / "package", target=a76, dtype="fp16")


def test_what_is_narrower_for_the_gpu_alone_is_verified(tmp_path: Path) -> None:
    target = replace(target_named("aarch64-linux", "cortex-a53"), gpu=Gpu("opencl", ("adreno-6xx",), None))
    with pytest.raises(PccError, match="makes infinities or NaN"):
        pcc.compile(Overflows(), IMAGE, tmp_path / "package", target=target, dtype="fp16")


def test_pipelines() -> None:
    assert "reorder-kernels,reduce-precision,select-kernels" in chosen_pipeline(None, dtype="fp16")
    assert "reduce-precision{ports=true},select-kernels" in chosen_pipeline(None, dtype="fp16", port_dtype="fp16")
    assert "store-weights,select-kernels" in chosen_pipeline(None, weight_dtype="fp16")
    assert chosen_pipeline(None) == chosen_pipeline(None, dtype="fp32", weight_dtype="fp32")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"dtype": "fp8"}, "dtype 'fp8': choose one of fp32, fp16"),
        ({"port_dtype": "fp16"}, "port_dtype fp16 needs dtype fp16"),
        (
            {"dtype": "fp16", "pipeline": "canonicalize,plan-memory"},
            "reduce-precision goes before select-kernels, which the pipeline does not have",
        ),
        (
            {"dtype": "fp16", "target": "aarch64-linux"},
            r"aarch64-linux, cortex-a53 does not compute in float16: give one of cortex-a55, .*--weight-dtype fp16",
        ),
        ({"dtype": "fp16", "target": "x86_64-linux"}, "x86_64-linux, x86-64-v3 does not compute in float16"),
    ],
)
def test_what_is_refused(options: dict[str, str], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(PccError, match=complaint):
        pcc.compile(nn.Conv2d(3, 4, 1), IMAGE, tmp_path / "package", **options)
    assert not list(tmp_path.iterdir())


def test_weights_in_fp16_on_this_machine(tmp_path: Path) -> None:
    """Dense and sparse linear layers from the command to the numbers: half the bytes, the error of rounding weights
    once."""
    torch.manual_seed(0)
    wide, narrow = nn.Linear(700, 300), nn.Linear(300, 41)
    narrow.weight.data *= torch.rand_like(narrow.weight) < 0.1
    x = torch.randn(1, 700)
    module = nn.Sequential(wide, nn.ReLU(), narrow).eval()
    whole, half = (pcc.compile(module, x, tmp_path / name, weight_dtype=name) for name in ("fp32", "fp16"))
    assert half.targets[0].weight_bytes < 0.6 * whole.targets[0].weight_bytes
    assert set(half.targets[0].families) == set(whole.targets[0].families)
    with torch.no_grad():
        want = F.linear(
            F.linear(x, wide.weight.half().float(), wide.bias).relu(), narrow.weight.half().float(), narrow.bias
        ).numpy()
    with pcc.load(half.package) as model:
        np.testing.assert_allclose(model(x.numpy()), want, atol=1e-5 * np.abs(want).max(), rtol=0)


class Masking(nn.Module):
    """Attention that hides what comes later by a number of a constant."""

    def __init__(self, constant: Callable[[], Tensor], function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.constant, self.function = constant, function

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(self.function(x, self.constant()), -1)


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


ROWS = torch.randn(1, 16, 32, generator=torch.Generator().manual_seed(1))
CONSTANT_ROW = torch.cat([ROWS[:, :15], torch.full((1, 1, 32), 0.5)], dim=1)
ROUNDED_ROW = torch.full((1, 16, 32), 0.3)
"""A number that fp16 does not have."""
FLAT = torch.full((1, 3, 8, 8), 0.5)
LEAST = torch.finfo(torch.float32).min


def by_moments(x: Tensor) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) / torch.sqrt((x * x).mean((2, 3), keepdim=True) - mean * mean + 1e-5)


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (nn.LayerNorm(32), [400 * ROWS]),
        (nn.LayerNorm(32, 1e-12), [CONSTANT_ROW]),
        (nn.GroupNorm(4, 16), [400 * ROWS]),
        (nn.RMSNorm(32, 1e-6), [2e-3 * ROWS]),
        (nn.LocalResponseNorm(3), [400 * ROWS[..., None]]),
        (nn.LayerNorm(32, 1e-8), [torch.cat([ROWS, ROUNDED_ROW], 1)]),
        (Applied(lambda x: F.normalize(x, dim=1)), [1e-3 * ROWS]),
        (Applied(lambda x: F.normalize(x, dim=1)), [ROWS * (torch.arange(32) > 0)]),
        (Applied(lambda x: x / (x.abs().sum(1, keepdim=True) + 1e-8)), [ROWS * (torch.arange(32) > 0)]),
        (Applied(lambda x: x * (x.abs().sum(1, keepdim=True) + torch.tensor([1e-8])).reciprocal()), [0 * ROWS]),
        (Applied(lambda x: (x - x.mean()) / (x.std() + 1e-8)), [FLAT]),
        (Applied(lambda x: (x - x.amin(1, True)) / (x.amax(1, True) - x.amin(1, True) + 1e-8)), [ROUNDED_ROW]),
        (Applied(lambda x, m: (x * m).sum(1) / m.sum(1).clamp(min=1e-9)), [ROWS, torch.zeros(1, 16, 1)]),
        (Applied(by_moments), [5 + ROWS[..., None]]),
        (Applied(lambda x: F.avg_pool2d(x.clamp(min=1e-6).pow(3), 4).pow(1 / 3)), [60 * ROWS.abs()]),
        (Applied(lambda x: x / torch.einsum("bcn,bcn->bn", x, x).sqrt()[:, None]), [100 * ROWS]),
        (Applied(lambda x: x.sum(2) / 32), [4000 + ROWS]),
        (Applied(lambda x: x / x.sum(2, keepdim=True)), [4000 + ROWS]),
        (Masking(lambda: torch.full((32, 32), -1e9).triu(1), torch.add), [torch.cat([ROWS, ROWS], 1)]),
        (Masking(lambda: torch.full([], LEAST), lambda x, least: torch.where(x < 9, least, x)), [ROWS]),
        (Masking(lambda: torch.full((1, 16, 2), -1e9), lambda x, mask: torch.cat([x, mask], 2)), [ROWS]),
        (Applied(lambda x: x * torch.full((32,), 1e-7) * 1e7), [ROWS]),
        (Applied(lambda x, ids: x.masked_fill(ids == 50256, 0)), [ROWS, torch.arange(50241, 50273).reshape(1, 1, 32)]),
        (Applied(lambda x, n: x.masked_fill(torch.arange(2040, 2072) >= n, 0)), [ROWS, torch.tensor([2049])]),
        (Applied(lambda x: F.softmax(x.masked_fill(x < 9, -1e9), dim=-1)), [ROWS]),
        (Applied(lambda x: F.softmax(F.pad(x, (0, 2), value=-1e9), dim=-1)), [ROWS]),
    ],
)
def test_fp16_loses_what_it_rounds_and_no_more(module: nn.Module, inputs: Sequence[Tensor]) -> None:
    graph = passed(module.eval(), inputs)
    (wanted,) = run_graph(graph, inputs)
    graph = ReducePrecision()(graph).graph_module
    verify_structure(graph)
    taken = [x.numpy() for x in as_taken(graph, inputs)]
    computed = interpret(PlanMemory()(program(graph, target_named("aarch64-linux", "cortex-a76"))), taken)
    for found in (run_graph(graph, inputs)[0].numpy(), computed[0]):
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, wanted, atol=2e-3 * float(wanted.abs().max()))


def test_statistics_are_read_as_they_are() -> None:
    """No copy of an image is made of them, and none is converted."""
    graph, _ = reduced(Applied(lambda x: F.normalize(x, dim=1)), [IMAGE], ReducePrecision())
    assert not nodes(graph, "expand")
    (divided,) = [node for node in nodes(graph, "elementwise") if "div" in str(node.args[1])]
    assert [operand.meta["val"].dtype for operand in divided.all_input_nodes] == [HALF, FLOAT]
