"""select-kernels: each convolution and linear layer gets the cheapest schedule of any kernel family that can run it, and a weight packed for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.codegen.family import cheapest, families, family_named
from pcc.codegen.layers import Conv2d, Linear
from pcc.codegen.lower import geometry_of, has_planes
from pcc.codegen.machine import Machine
from pcc.codegen.machine_profile import machine_named
from pcc.codegen.program import View, contiguous_strides, plane_strides
from pcc.dtype import dtype_of
from pcc.errors import PccError
from pcc.ir.activation import Activation
from pcc.ir.annotations import KernelChoice, Rejected, Skipped, annotate
from pcc.ir.graph import add_constant, arguments, constant, finish, rewrite, shape_of
from pcc.ir.ops import CONV2D, LINEAR, PACKED_CONV2D
from pcc.passes.packing import packed_weight
from pcc.sparsity.formats import DENSE, PackedWeight, WeightFormat, format_named


@dataclass(frozen=True)
class SelectKernels:
    """Gives each layer its cheapest kernel by cost model; weights of sparse kernels become packed.

    The structure is looked for in the zeros of the weight, so it does not matter which tool pruned it. A sparse kernel that would lose to the
    dense one is not chosen; what each family would cost, or why it cannot run the layer, is kept with the choice.
    """

    processor: str = ""
    """The profile that costs are for: a name of `pcc.codegen.machine` or a profile's file; the driver fills in the target's."""

    name: ClassVar[str] = "select-kernels"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: GraphModule) -> PassResult:
        machine = machine_named(self.processor)
        for node in list(graph_module.graph.nodes):
            if node.op == "call_function" and node.target in (CONV2D, LINEAR):
                _select(node, machine)
        finish(graph_module)
        return PassResult(graph_module, True)


def _select(node: Node, machine: Machine) -> None:
    """Annotates the choice for one layer, and packs its weight where the chosen family wants that."""
    given = arguments(node)
    if given["weight"].op != "get_attr":
        raise PccError(f"node {node.name}: its weight is computed, not a constant: the pipeline needs fold-constants")
    weight = constant(given["weight"]).numpy()
    weights: dict[str, Any] = {DENSE: weight}
    """By format; the reason where the weight does not fit one."""
    priced, rejected = [], []
    for family in families().values():
        if family.layer is not (Conv2d if node.target is CONV2D else Linear):
            continue
        if family.format not in weights:
            weights[family.format] = packed_weight(node, format_named(family.format)) if node.target is CONV2D else "linear layers are not packed"
        stored = weights[family.format]
        found = stored if isinstance(stored, str) else cheapest(family, _layer(node, given, stored), machine)
        if isinstance(found, str):
            rejected.append(Rejected(family.name, None, found))
        else:
            priced.append((family.name, *found))
    best, candidate, cost = min(priced, key=lambda entry: entry[2])
    others = [Rejected(name, price) for name, _, price in sorted(priced, key=lambda entry: entry[2]) if name != best]
    annotate(node, KernelChoice(best, candidate.schedule, cost, (*others, *rejected)))
    format = family_named(best).format
    if format != DENSE:
        _pack(node, given, format_named(format), weights[format])
    elif node.target is CONV2D:
        annotate(node, Skipped(SelectKernels.name, _why_dense(cost, others, weights)))


def _why_dense(cost: float, others: Sequence[Rejected], weights: Mapping[str, Any]) -> str:
    """What the cheapest kernel for a packed weight would cost, or why the weight cannot be packed."""
    sparse = [other.cost for other in others if other.cost is not None and family_named(other.family).format != DENSE]
    if sparse:
        return f"a sparse kernel would take {min(sparse) / cost:.2f}x the time"
    return next((stored for stored in weights.values() if isinstance(stored, str)), "no sparse kernel computes it")


def _layer(node: Node, given: dict[str, Any], weight: np.ndarray | PackedWeight) -> Conv2d | Linear:
    """The layer as cost models see it: sizes, not places."""

    def view(value: Node | None) -> View | None:
        if value is None:
            return None
        shape, dtype = shape_of(value), dtype_of(value.meta["val"].dtype)
        strides = plane_strides(shape, dtype) if value.op == "call_function" and has_planes(value) else contiguous_strides(shape)
        return View(value.name, shape, strides, dtype=dtype)

    x, y = view(given["x"]), view(node)
    assert x is not None
    assert y is not None
    residual, activation = view(given["residual"]), Activation.parse(given["activation"])
    if node.target is LINEAR:
        assert isinstance(weight, np.ndarray)
        return Linear(node.name, x, y, weight, None, residual, activation)
    geometry = geometry_of(given, (weight.shape[2], weight.shape[3]))
    return Conv2d(node.name, x, y, weight, None, geometry, given["groups"], residual, activation)


def _pack(node: Node, given: dict[str, Any], format: WeightFormat, packed: PackedWeight) -> None:
    """Turns ``pcc::conv2d`` into ``pcc::packed_conv2d``, with the packed arrays as constants."""
    stem = f"{given['weight'].target}_{format.name}"
    arrays = [add_constant(node, f"{stem}.{name}", torch.from_numpy(getattr(packed, name))) for name in format.arrays]
    numbers = [getattr(packed, name) for name in format.numbers]
    settings = [given[name] for name in ("stride", "padding", "dilation", "groups", "activation")]
    rewrite(node, PACKED_CONV2D, (given["x"], arrays, given["bias"], given["residual"], format.name, numbers, list(packed.shape), *settings))
