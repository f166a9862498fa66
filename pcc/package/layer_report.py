"""What a package says about each layer: its structure, its counts, the kernel that was chosen and why, and the calls
that compute it.

It is made once, when the package is written; what is printed about layers is a view of it.
"""

from dataclasses import asdict, is_dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch.fx import GraphModule, Node

    from pcc.codegen.program import Call, Program
    from pcc.ir.annotations import KernelChoice
    from pcc.ir.left_alone import LeftAlone


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class CallRecord(_Record):
    """One kernel call; `weight_bytes` counts the constants that it reads (tables included), as they ship."""

    layer: str
    kernel: str
    macs: int
    dense_macs: int
    weight_bytes: int


class Described(_Record):
    """A structure or a schedule: its type, what dumps call it, and its fields."""

    kind: str
    text: str
    fields: dict[str, Any] = {}


class RejectedRecord(_Record):
    """A kernel family that does not run the layer: what its cheapest schedule would cost, or why it cannot."""

    family: str
    cost: float | None
    reason: str


class TuningUseRecord(_Record):
    """A tuning record of the layer: `speedup` over what costs choose, and that choice; or None, and why it was not
    used."""

    speedup: float | None
    reason: str
    record: dict[str, Any]
    """A `pcc.codegen.tuning_records.TuningRecord`."""


class ChoiceRecord(_Record):
    """The kernel family that runs the layer; costs are cycles by the processor's profile (executed instructions where
    that says so)."""

    family: str
    schedule: Described
    cost: float
    rejected: tuple[RejectedRecord, ...]
    tuning: TuningUseRecord | None = None


class CountsRecord(_Record):
    """`pcc.ir.counts.Counts` of the graph's node."""

    parameters: int
    nonzeros: int
    macs: int
    kept_macs: int
    weight_bytes: int
    output_bytes: int
    input_bytes: int = 0


class OnProcessorRecord(_Record):
    """A `pcc.ir.annotations.OnProcessor`: times are seconds by the costs, of all layers of the stretch."""

    stretch: int
    gpu: float
    processor: float
    crossing: float
    asked: bool


class Reason(_Record):
    """A pass did nothing to the layer, and why."""

    pass_name: str
    reason: str


class LayerReport(_Record):
    """A node of the graph that makes calls, in the order they run. Of a program without a graph only the calls are
    known."""

    layer: str
    """The path of its module, ``features.0``; the node's name where there is none. A module that is used twice is two
    layers."""
    calls: tuple[CallRecord, ...]
    node: str = ""
    operator: str = ""
    shape: tuple[int, ...] = ()
    """Of the output."""
    format: str = ""
    """Of the weight: ``dense``, or what it is packed as; nothing where there is none."""
    counts: CountsRecord | None = None
    structure: Described | None = None
    """Where the weight's non-zeros lie, if that follows a rule."""
    choice: ChoiceRecord | None = None
    """Of convolutions and linear layers."""
    on_processor: OnProcessorRecord | None = None
    """In a GPU's program: the processor computes it, and why."""
    left_alone: tuple[Reason, ...] = ()

    @property
    def kept(self) -> float | None:
        """The share of the weights that is not zero; None where there are none."""
        return self.counts.kept_macs / self.counts.macs if self.counts and self.counts.macs else None

    @property
    def kernels(self) -> list[str]:
        """Those that it calls, each once."""
        return list(dict.fromkeys(call.kernel for call in self.calls))

    @property
    def macs(self) -> int:
        """Multiply-accumulates done, those with stored zeros included."""
        return sum(call.macs for call in self.calls)

    @property
    def dense_macs(self) -> int:
        return sum(call.dense_macs for call in self.calls)

    @property
    def weight_bytes(self) -> int:
        """Of the constants that its calls read, as they ship."""
        return sum(call.weight_bytes for call in self.calls)


def layer_reports(
    program: "Program[Any]", graph_module: "GraphModule | None" = None, host: "Program | None" = None
) -> tuple[LayerReport, ...]:
    """The layers of a program, with what the graph that it was lowered from knows of them; ``host`` is the processor's,
    where a GPU's program calls its steps."""
    nodes = (
        {} if graph_module is None else {node.name: node for node in graph_module.graph.nodes if node.op != "output"}
    )  # which copies, at most
    reports = []
    for (layer, name), calls in groupby(program.calls, key=lambda call: (call.layer, call.node)):
        known = _of_node(nodes[name]) if name in nodes else {}
        reports.append(LayerReport(layer=layer, calls=tuple(_call(program, call, host) for call in calls), **known))
    return tuple(reports)


def graph_reports(graph_module: "GraphModule") -> tuple[LayerReport, ...]:
    """The layers of a graph that has no program yet: what is known of each call but the kernels."""
    from pcc.ir.graph import layer_name
    from pcc.ir.ops import UNPACK

    nodes = [node for node in graph_module.graph.nodes if node.op == "call_function" and node.target is not UNPACK]
    return tuple(LayerReport(layer=layer_name(node), calls=(), **_of_node(node)) for node in nodes)


def total_counts(layers: "Iterable[LayerReport]") -> CountsRecord:
    """Sums over layers; a constant that several read counts for each of them."""
    known = [layer.counts for layer in layers if layer.counts]
    return CountsRecord(**{name: sum(getattr(counts, name) for counts in known) for name in CountsRecord.model_fields})


def all_left_alone(layers: "Iterable[LayerReport]") -> "list[LeftAlone]":
    """What passes left alone, as `pcc.ir.left_alone.by_reason` takes it."""
    from pcc.ir.left_alone import LeftAlone

    return [LeftAlone(reason.pass_name, layer.layer, reason.reason) for layer in layers for reason in layer.left_alone]


def _call(program: "Program[Any]", call: "Call[Any]", host: "Program | None") -> CallRecord:
    owner, reads = program, call
    if call.is_on_host and call.kernel.step is not None and host:
        owner, reads = host, host.calls[call.kernel.step]
    weight_bytes = sum(owner.constants[name].nbytes for name in owner.constants_of(reads))
    return CallRecord(
        layer=call.layer, kernel=call.kernel.name, macs=call.macs, dense_macs=call.dense_macs, weight_bytes=weight_bytes
    )


def _of_node(node: "Node") -> dict[str, Any]:
    from pcc.ir.annotations import KernelChoice, OnProcessor, annotation, skips
    from pcc.ir.counts import count
    from pcc.ir.graph import arguments, shape_of
    from pcc.ir.ops import UNPACK
    from pcc.sparsity.formats import DENSE
    from pcc.sparsity.structure import Structure

    structure, choice = annotation(node, Structure), annotation(node, KernelChoice)
    on_processor = annotation(node, OnProcessor)
    weight = None if choice is None else arguments(node)["weight"]
    return {
        "node": node.name,
        "operator": str(node.target).removesuffix(".default")
        if hasattr(node.target, "_schema")
        else getattr(node.target, "__name__", str(node.target)),
        "shape": () if isinstance(node.meta["val"], list | tuple) else shape_of(node),
        "format": "" if weight is None else arguments(weight)["format"] if weight.target is UNPACK else DENSE,
        "counts": CountsRecord(**asdict(count(node))),
        "structure": None if structure is None else _described(structure),
        "choice": None if choice is None else _choice(choice),
        "on_processor": None if on_processor is None else OnProcessorRecord(**asdict(on_processor)),
        "left_alone": tuple(Reason(pass_name=skip.pass_name, reason=skip.reason) for skip in skips(node)),
    }


def _choice(choice: "KernelChoice") -> ChoiceRecord:
    rejected = tuple(
        RejectedRecord(family=other.family, cost=other.cost, reason=other.reason) for other in choice.rejected
    )
    tuning = None if choice.tuning is None else TuningUseRecord(**asdict(choice.tuning))
    return ChoiceRecord(
        family=choice.family, schedule=_described(choice.schedule), cost=choice.cost, rejected=rejected, tuning=tuning
    )


def _described(value: object) -> Described:
    fields = asdict(value) if is_dataclass(value) and not isinstance(value, type) else {}
    return Described(kind=type(value).__name__, text=str(value), fields=fields)
