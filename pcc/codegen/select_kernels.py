"""select-kernels: each convolution and linear layer gets the tuned or the cheapest schedule of all kernel families, and
a weight packed for it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.codegen.family import (
    LLVM,
    REGISTRIES,
    Candidate,
    KernelFamily,
    cheapest,
    families,
    family_named,
    offered,
    with_variants,
)
from pcc.codegen.kernels.pool import pool_work
from pcc.codegen.layers import Conv2d, Linear, Pool2d, PooledConv2d
from pcc.codegen.lower import geometry_of, has_planes, sliced, with_pool
from pcc.codegen.machine import Machine
from pcc.codegen.processor import Processor, processor_named
from pcc.codegen.program import View, contiguous_strides, plane_strides
from pcc.codegen.signature import layer_signature, weight_summary
from pcc.codegen.tuning_records import Key, TuningRecord, TuningRecords, family_of, schedule_text
from pcc.dtype import dtype_named, dtype_of
from pcc.errors import PccError
from pcc.ir.activation import Activation
from pcc.ir.annotations import ComputedWith, KernelChoice, Rejected, Skipped, TuningUse, annotate
from pcc.ir.graph import add_constant, arguments, constant, finish, infer, max_batch, shape_of
from pcc.ir.ops import CONV2D, LINEAR, POOL2D, SLICE, UNPACK
from pcc.passes.operands import set_argument
from pcc.passes.packing import packed_weight
from pcc.sparsity.formats import DENSE, PackedWeight, WeightFormat, format_named


@dataclass(frozen=True)
class SelectKernels:
    """Gives each layer its tuned kernel, else the cheapest by cost model; weights of sparse kernels become packed.

    The structure is looked for in the zeros of the weight, so it does not matter which tool pruned it. A sparse kernel
    that would lose to the dense one is not chosen; what each family would cost, or why it cannot run the layer, is kept
    with the choice.
    """

    processor: str = ""
    """The profile that costs are for: a name of `pcc.codegen.machine`, a profile's file, or a GPU's of
    `pcc.codegen.opencl.profiles`; the driver fills in the target's."""
    records: str = ""
    """A file of ``pcc tune`` whose schedules come before those that cost least; nothing: costs choose. The driver fills
    in the saved one."""
    tuned_for: str = ""
    """Whose records: `pcc.config.processor_words` of the target, or `pcc.config.gpu_words` of the GPU that they were
    measured on; the driver fills it in."""
    sums: Literal["float32", "float16"] = "float32"
    """What layers of fp16 add up in on a GPU that has fp16 arithmetic; F(4x4) adds up in fp32 always. CPUs leave no
    choice."""

    name: ClassVar[str] = "select-kernels"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: GraphModule) -> PassResult:
        processor = processor_named(self.processor).with_sums(dtype_named(self.sums))
        images = max_batch(graph_module) or 1
        with TuningRecords(Path(self.records), read_only=True) if self.records else nullcontext() as records:
            for node in choosing_nodes(graph_module):
                _select(OpenLayer.of(node, images), processor, records, self.tuned_for)
        finish(graph_module)
        return PassResult(graph_module, True)


def choosing_nodes(graph_module: GraphModule) -> list[Node]:
    """The convolutions and linear layers of a graph whose kernels are not chosen yet. `PccError` for one whose weight
    is computed."""
    nodes = [
        node for node in graph_module.graph.nodes if node.op == "call_function" and node.target in (CONV2D, LINEAR)
    ]
    nodes = [node for node in nodes if arguments(node)["weight"].target is not UNPACK]
    for node in nodes:
        if arguments(node)["weight"].op != "get_attr":
            raise PccError(
                f"node {node.name}: its weight is computed, not a constant: the pipeline needs fold-constants"
            )
    return nodes


@dataclass(frozen=True)
class Priced:
    """A schedule of a family for a layer, and its cycles, those of a max pool after the layer left out."""

    family: str
    candidate: Candidate
    cost: float

    @property
    def text(self) -> str:
        return schedule_text(self.family, self.candidate.schedule)

    def __str__(self) -> str:
        return f"{self.family}, {self.candidate.schedule}"


@dataclass(frozen=True)
class OpenLayer:
    """A convolution or linear layer whose kernel is not chosen yet, with the max pool after it where a kernel may
    compute both."""

    node: Node
    images: int
    pool: Node | None
    weights: dict[str, Any]
    """By format (`np.ndarray` or `PackedWeight`), or the reason where it does not fit one; packed for formats that are
    asked for the first time."""

    @classmethod
    def of(cls, node: Node, images: int) -> "OpenLayer":
        return cls(node, images, _max_pool_after(node), {DENSE: constant(arguments(node)["weight"]).numpy()})

    def with_weight(self, weight: np.ndarray) -> "OpenLayer":
        """The layer with another weight of the same shape; of the same type, too."""
        return replace(self, weights={DENSE: weight.astype(self.weights[DENSE].dtype)})

    def takers(self, backend: str = LLVM) -> Iterator[tuple[KernelFamily, Conv2d | Linear | str]]:
        """The families of a backend for such a layer, and the layer as each takes it, or why its weight does not fit;
        those last that compute the pool, too."""
        for pool in (None, self.pool) if self.pool else (None,):
            kind = Linear if self.node.target is LINEAR else Conv2d if pool is None else PooledConv2d
            for family in families(backend).values():
                if family.layer is kind:
                    yield family, self._as(family.format, pool)

    def _as(self, format: str, pool: Node | None) -> Conv2d | Linear | str:
        if format not in self.weights:
            self.weights[format] = packed_weight(self.node, format_named(format), self.weights[DENSE])
        stored = self.weights[format]
        return stored if isinstance(stored, str) else _layer(self.node, arguments(self.node), stored, self.images, pool)

    def separate_pool(self) -> Pool2d | None:
        """The max pool for families that do not compute it: sizes, not places."""
        if self.pool is None:
            return None
        args = arguments(self.pool)
        return Pool2d(self.pool.name, _view(self.node), _view(self.pool), "max", geometry_of(args, args["kernel"]))

    def priced(self, processor: Processor, sparse_only: bool = False) -> tuple[list[Priced], list[Rejected]]:
        """The cheapest schedule of each family, cheapest first, and the families that have none; of all families or of
        those for packed weights."""
        priced, rejected = [], []
        for family, layer in self.takers(processor.backend):
            if sparse_only and family.format == DENSE:
                continue
            found = layer if isinstance(layer, str) else cheapest(family, layer, processor)
            if isinstance(found, str):
                rejected.append(Rejected(family.name, None, found))
            else:
                priced.append(self._price(family, found[0], processor))
        return sorted(priced, key=lambda each: each.cost), rejected

    def schedules(self, processor: Processor, only: str | None = None) -> Iterator[Priced]:
        """All that the layer may be tuned over, of all families or of one."""
        for family, layer in self.takers(processor.backend):
            candidates = (
                "" if isinstance(layer, str) or only not in (None, family.name) else offered(family, layer, processor)
            )
            if not isinstance(candidates, str):
                yield from (self._price(family, candidate, processor) for candidate in with_variants(candidates))

    def _price(self, family: KernelFamily, candidate: Candidate, processor: Processor) -> Priced:
        cost = processor.cycles(candidate.work)
        if self.pool and family.layer is PooledConv2d and isinstance(processor, Machine):
            cost -= processor.cycles(pool_work(_view(self.node), _view(self.pool), processor))
        return Priced(family.name, candidate, cost)

    @property
    def signature(self) -> str:
        """`layer_signature` of the layer and the max pool after it."""
        layer = self._as(DENSE, self.pool)
        assert not isinstance(layer, str)
        return layer_signature(layer)

    def key(self, processor: str) -> Key:
        """Of its tuning records; the processor as `pcc.config.processor_words` or `gpu_words` has it."""
        for backend in REGISTRIES:
            for _ in self.takers(backend):  # each packs the weight
                pass
        return Key(self.signature, weight_summary(self.weights), _view(arguments(self.node)["x"]).dtype.name, processor)


def _select(layer: OpenLayer, processor: Processor, records: TuningRecords | None, tuned_for: str) -> None:
    """Annotates the choice for one layer, and packs its weight where the chosen family wants that."""
    node, (priced, rejected) = layer.node, layer.priced(processor)
    best, tuning = (
        (priced[0], None)
        if records is None
        else by_record(layer, priced[0], processor, records.of(layer.key(tuned_for)))
    )
    others = [other for other in priced if other.family != best.family]
    family = family_named(best.family, processor.backend)
    annotate(
        node,
        KernelChoice(
            best.family,
            best.candidate.schedule,
            best.cost,
            (*(Rejected(other.family, other.cost) for other in others), *rejected),
            tuning,
        ),
    )
    if layer.pool is not None and family.layer is PooledConv2d:
        annotate(layer.pool, ComputedWith(node.name))
    if family.format != DENSE:
        _pack(node, arguments(node), format_named(family.format), layer.weights[family.format])
    else:
        annotate(node, Skipped(SelectKernels.name, _why_dense(best.cost, others, layer.weights, processor.backend)))


def by_record(
    layer: OpenLayer, chosen: Priced, processor: Processor, records: Sequence[TuningRecord]
) -> tuple[Priced, TuningUse | None]:
    """The schedule that was measured to be the best, where that was beside the one that costs choose now; what came of
    the layer's records."""
    use = None
    for record in records:
        objection = record.objection(chosen.text)
        best = (
            None
            if objection
            else next(
                (each for each in layer.schedules(processor, family_of(record.best)) if each.text == record.best), None
            )
        )
        if best is not None:
            return best, TuningUse(record.speedup, str(chosen), record)
        use = TuningUse(None, objection or "no family has its schedule: tune again", record)
    return chosen, use


def _max_pool_after(node: Node) -> Node | None:
    """The only user of a convolution, where it is a max pool whose windows lie side by side and cover the whole
    plane."""
    if node.target is not CONV2D or len(node.users) != 1:
        return None
    pool = next(iter(node.users))
    if pool.target is not POOL2D:
        return None
    args = arguments(pool)
    window, size = list(args["kernel"]), shape_of(node)[2:]
    is_plain = (
        list(args["stride"]) == window and not any(args["padding"]) and all(step == 1 for step in args["dilation"])
    )
    covers = all(extent % step == 0 for extent, step in zip(size, window, strict=True))
    return pool if args["mode"] == "max" and is_plain and covers else None


def _why_dense(cost: float, others: Sequence[Priced], weights: Mapping[str, Any], backend: str) -> str:
    """What the cheapest kernel for a packed weight would cost, or why the weight cannot be packed."""
    sparse = [other.cost for other in others if family_named(other.family, backend).format != DENSE]
    if sparse:
        return f"a sparse kernel would take {min(sparse) / cost:.2f}x the time"
    return next((stored for stored in weights.values() if isinstance(stored, str)), "no sparse kernel computes it")


def _view(value: Node) -> View:
    """A value as cost models see it: its size, and how its rows and planes follow each other, but not its buffer."""
    shape, dtype = shape_of(value), dtype_of(value.meta["val"].dtype)
    if value.target is SLICE and len(shape) == 4:
        part = sliced(_view(value.args[0]), value)  # type: ignore[arg-type]
        if part.strides[-1] == 1:
            return replace(part, buffer=value.name)
    strides = (
        plane_strides(shape, dtype) if value.op == "call_function" and has_planes(value) else contiguous_strides(shape)
    )
    return View(value.name, shape, strides, dtype=dtype)


def _layer(
    node: Node, args: dict[str, Any], weight: np.ndarray | PackedWeight, images: int, pool: Node | None
) -> Conv2d | Linear:
    """The layer as cost models see it: sizes, not places."""
    x, y = _view(args["x"]), _view(pool or node)
    residual, activation = args["residual"] and _view(args["residual"]), Activation.parse(args["activation"])
    parameter = args["parameter"] and constant(args["parameter"]).numpy()
    if node.target is LINEAR:
        return Linear(node.name, x, y, weight, None, residual, activation, images, parameter)
    geometry = geometry_of(args, (weight.shape[2], weight.shape[3]))
    layer = Conv2d(node.name, x, y, weight, None, geometry, args["groups"], residual, activation, parameter)
    return layer if pool is None else with_pool(layer, pool)


def _pack(node: Node, args: dict[str, Any], format: WeightFormat, packed: PackedWeight) -> None:
    """The layer reads ``pcc::unpack`` of the packed arrays, which are constants."""
    stem = f"{args['weight'].target}_{format.name}"
    arrays = [add_constant(node, f"{stem}.{name}", torch.from_numpy(getattr(packed, name))) for name in format.arrays]
    numbers = [getattr(packed, name) for name in format.numbers]
    with node.graph.inserting_before(node):
        weight = node.graph.create_node(
            "call_function",
            UNPACK,
            (arrays, format.name, numbers, list(packed.shape), packed.groups),
            name=stem.replace(".", "_"),
        )
    infer(weight)
    set_argument(node, "weight", weight)
