"""select-kernels: each convolution and linear layer gets the cheapest schedule of any kernel family that can run it, and a weight packed for it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.codegen.family import cheapest, families, family_named
from pcc.codegen.kernels.pool import pool_work
from pcc.codegen.layers import Conv2d, Linear, PooledConv2d
from pcc.codegen.lower import geometry_of, has_planes, with_pool
from pcc.codegen.machine import Machine
from pcc.codegen.machine_profile import machine_named
from pcc.codegen.program import View, contiguous_strides, plane_strides
from pcc.dtype import dtype_of
from pcc.errors import PccError
from pcc.ir.activation import Activation
from pcc.ir.annotations import ComputedWith, KernelChoice, Rejected, Skipped, annotate
from pcc.ir.graph import add_constant, arguments, constant, finish, infer, max_batch, shape_of
from pcc.ir.ops import CONV2D, LINEAR, POOL2D, UNPACK
from pcc.passes.operands import set_argument
from pcc.passes.packing import packed_weight
from pcc.sparsity.formats import DENSE, PackedWeight, WeightFormat, format_named

Weights = dict[str, Any]
"""A layer's weight by format (`np.ndarray` or `PackedWeight`); the reason where it does not fit one."""


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
            if node.op == "call_function" and node.target in (CONV2D, LINEAR) and arguments(node)["weight"].target is not UNPACK:
                _select(node, machine, max_batch(graph_module) or 1)
        finish(graph_module)
        return PassResult(graph_module, True)


def _select(node: Node, machine: Machine, images: int) -> None:
    """Annotates the choice for one layer, and packs its weight where the chosen family wants that."""
    given = arguments(node)
    if given["weight"].op != "get_attr":
        raise PccError(f"node {node.name}: its weight is computed, not a constant: the pipeline needs fold-constants")
    weights: Weights = {DENSE: constant(given["weight"]).numpy()}
    priced, rejected = _candidates(node, weights, machine, images)
    pool, pooling = _max_pool_after(node), 0.0
    if pool is not None:
        pooling = machine.cycles(pool_work(_view(node), _view(pool), machine))
        pooled, not_pooled = _candidates(node, weights, machine, images, pool)
        # Without the pool, as the others are.
        priced += [replace(choice, cost=choice.cost - pooling) for choice in pooled]
        rejected += not_pooled
    best, *others = sorted(priced, key=lambda choice: choice.cost)
    family = family_named(best.family)
    annotate(node, replace(best, rejected=(*(Rejected(other.family, other.cost) for other in others), *rejected)))
    if pool is not None and family.layer is PooledConv2d:
        annotate(pool, ComputedWith(node.name))
    if family.format != DENSE:
        _pack(node, given, format_named(family.format), weights[family.format])
    else:
        annotate(node, Skipped(SelectKernels.name, _why_dense(best.cost, others, weights)))


def _candidates(node: Node, weights: Weights, machine: Machine, images: int, pool: Node | None = None) -> tuple[list[KernelChoice], list[Rejected]]:
    """The cheapest schedule of each family for a layer, or for a convolution with the max pool after it; and the families that have none.

    Packs the weight for formats that are asked for the first time.
    """
    given, priced, rejected = arguments(node), [], []
    kind = Linear if node.target is LINEAR else Conv2d if pool is None else PooledConv2d
    for family in families().values():
        if family.layer is not kind:
            continue
        if family.format not in weights:
            weights[family.format] = packed_weight(node, format_named(family.format))
        stored = weights[family.format]
        found = stored if isinstance(stored, str) else cheapest(family, _layer(node, given, stored, images, pool), machine)
        if isinstance(found, str):
            rejected.append(Rejected(family.name, None, found))
        else:
            candidate, cost = found
            priced.append(KernelChoice(family.name, candidate.schedule, cost))
    return priced, rejected


def _max_pool_after(node: Node) -> Node | None:
    """The only user of a convolution, where it is a max pool whose windows lie side by side and cover the whole plane."""
    if node.target is not CONV2D or len(node.users) != 1:
        return None
    pool = next(iter(node.users))
    if pool.target is not POOL2D:
        return None
    given = arguments(pool)
    window, size = list(given["kernel"]), shape_of(node)[2:]
    is_plain = list(given["stride"]) == window and not any(given["padding"]) and all(step == 1 for step in given["dilation"])
    covers = all(extent % step == 0 for extent, step in zip(size, window, strict=True))
    return pool if given["mode"] == "max" and is_plain and covers else None


def _why_dense(cost: float, others: Sequence[KernelChoice], weights: Weights) -> str:
    """What the cheapest kernel for a packed weight would cost, or why the weight cannot be packed."""
    sparse = [other.cost for other in others if family_named(other.family).format != DENSE]
    if sparse:
        return f"a sparse kernel would take {min(sparse) / cost:.2f}x the time"
    return next((stored for stored in weights.values() if isinstance(stored, str)), "no sparse kernel computes it")


def _view(value: Node) -> View:
    """A value as cost models see it: its size, not its place."""
    shape, dtype = shape_of(value), dtype_of(value.meta["val"].dtype)
    strides = plane_strides(shape, dtype) if value.op == "call_function" and has_planes(value) else contiguous_strides(shape)
    return View(value.name, shape, strides, dtype=dtype)


def _layer(node: Node, given: dict[str, Any], weight: np.ndarray | PackedWeight, images: int, pool: Node | None) -> Conv2d | Linear:
    """The layer as cost models see it: sizes, not places."""
    x, y = _view(given["x"]), _view(pool or node)
    residual, activation = given["residual"] and _view(given["residual"]), Activation.parse(given["activation"])
    if node.target is LINEAR:
        return Linear(node.name, x, y, weight, None, residual, activation, images)
    geometry = geometry_of(given, (weight.shape[2], weight.shape[3]))
    layer = Conv2d(node.name, x, y, weight, None, geometry, given["groups"], residual, activation)
    return layer if pool is None else with_pool(layer, pool)


def _pack(node: Node, given: dict[str, Any], format: WeightFormat, packed: PackedWeight) -> None:
    """The layer reads ``pcc::unpack`` of the packed arrays, which are constants."""
    stem = f"{given['weight'].target}_{format.name}"
    arrays = [add_constant(node, f"{stem}.{name}", torch.from_numpy(getattr(packed, name))) for name in format.arrays]
    numbers = [getattr(packed, name) for name in format.numbers]
    with node.graph.inserting_before(node):
        weight = node.graph.create_node("call_function", UNPACK, (arrays, format.name, numbers, list(packed.shape), packed.groups), name=stem.replace(".", "_"))
    infer(weight)
    set_argument(node, "weight", weight)
