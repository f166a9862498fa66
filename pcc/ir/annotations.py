"""What passes know about a node: typed, frozen dataclasses on ``node.meta``, one of each type, and why passes left the
node alone.

Each annotation prints itself (``str``) as it shall appear in dumps. Rewrites keep annotations with `carry`. What is
known of a weight's zeros and values is a `pcc.sparsity.structure.Structure` on the layer that reads it.
"""

from dataclasses import dataclass
from typing import TypeVar

from torch.fx import Node

_KEY = "pcc"

T = TypeVar("T")


@dataclass(frozen=True)
class Dropped:
    """How many filters and input channels drop-filters took from a layer."""

    filters: int
    channels: int

    def __str__(self) -> str:
        return f"dropped(filters={self.filters},channels={self.channels})"


@dataclass(frozen=True)
class FilterOrder:
    """The node's output channel ``i`` was output channel ``order[i]`` of the imported model."""

    order: tuple[int, ...]

    def __str__(self) -> str:
        return f"order({_moved(self.order)})"


@dataclass(frozen=True)
class StoredOrder:
    """A sparse weight is stored with filter ``order[i]`` in place ``i``; its output channels stay where they are, and
    why."""

    order: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        return f"stored-order({_moved(self.order)}: {self.reason})"


def _moved(order: tuple[int, ...]) -> str:
    """How many places an order changes, of how many."""
    return f"moved={sum(new != old for new, old in enumerate(order))}/{len(order)}"


@dataclass(frozen=True)
class Rejected:
    """A kernel family that does not run the node: what its cheapest schedule would cost, or why it cannot."""

    family: str
    cost: float | None
    reason: str = ""


@dataclass(frozen=True)
class TuningUse:
    """What came of a tuning record of the node's layer."""

    speedup: float | None
    """How many times as fast as the costs' choice the kernel was measured to be (1: it is that choice); None where the
    record was not used."""
    reason: str
    """Why it was not used, or what the costs choose."""
    record: object
    """A dataclass."""

    def __str__(self) -> str:
        return (
            f"record not used: {self.reason}"
            if self.speedup is None
            else f"tuned, {self.speedup:.2f}x as fast as {self.reason}"
        )


@dataclass(frozen=True)
class KernelChoice:
    """The kernel family that runs the node, its schedule, the modelled cost of it (cycles), and the families it was
    chosen from."""

    family: str
    schedule: object
    cost: float
    rejected: tuple[Rejected, ...] = ()
    tuning: TuningUse | None = None
    """None where no record is about the layer: the costs chose."""

    def __str__(self) -> str:
        others = [f"{other.family} {other.cost / self.cost:.2f}x" for other in self.rejected if other.cost is not None]
        reasons = list(dict.fromkeys(other.reason for other in self.rejected if other.cost is None))
        tuning = [str(self.tuning)] if self.tuning else []
        return f"kernel({'; '.join((f'{self.family}, {self.schedule}', *tuning, *others, *reasons))})"


@dataclass(frozen=True)
class ComputedWith:
    """The kernel of another node, whose value nobody else reads, computes this node, too."""

    node: str

    def __str__(self) -> str:
        return f"computed-with({self.node})"


@dataclass(frozen=True)
class OnProcessor:
    """The processor computes the node in a GPU's program, and, together with it, those that follow and have the same
    ``stretch``. All times are modelled seconds, and those of the whole stretch."""

    stretch: int
    gpu: float
    processor: float
    crossing: float
    """Of waiting for the GPU, and of copies."""
    asked: bool
    """Somebody asked for it; else costs chose."""

    def __str__(self) -> str:
        gpu, processor, crossing = (f"{seconds * 1e6:.0f} us" for seconds in (self.gpu, self.processor, self.crossing))
        why = "asked for" if self.asked else "by costs"
        return f"on-processor({why}; GPU {gpu}, processor {processor}, wait and copies {crossing})"


@dataclass(frozen=True)
class Skipped:
    """A pass left the node alone, and why."""

    pass_name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.pass_name}: {self.reason}"


@dataclass(frozen=True)
class _Skips:
    entries: tuple[Skipped, ...] = ()


def annotate(node: Node, value: object) -> None:
    """Puts an annotation on a node, in place of an earlier one of the same type. A `Skipped` replaces only its own
    pass's."""
    if isinstance(value, Skipped):
        value = _Skips((*(entry for entry in skips(node) if entry.pass_name != value.pass_name), value))
    # A new dict, never an update: copies of a graph share their nodes' meta values.
    node.meta[_KEY] = {**node.meta.get(_KEY, {}), type(value): value}


def annotation(node: Node, kind: type[T]) -> T | None:
    """The node's annotation of that type, or of a type derived from it; None if it has none."""
    return next((value for value in node.meta.get(_KEY, {}).values() if isinstance(value, kind)), None)


def annotations(node: Node) -> tuple[object, ...]:
    """All annotations but `Skipped`, by the name of their type."""
    return tuple(
        sorted(
            (value for value in node.meta.get(_KEY, {}).values() if not isinstance(value, _Skips)),
            key=lambda value: type(value).__name__,
        )
    )


def skips(node: Node) -> tuple[Skipped, ...]:
    """Why passes left the node alone, in the order they ran."""
    found = annotation(node, _Skips)
    return found.entries if found else ()


def forget_skips(node: Node, pass_name: str) -> None:
    """Removes what a pass said about the node, when it runs again."""
    if any(entry.pass_name == pass_name for entry in skips(node)):
        node.meta[_KEY] = {
            **node.meta[_KEY],
            _Skips: _Skips(tuple(entry for entry in skips(node) if entry.pass_name != pass_name)),
        }


def forget(node: Node, kind: type) -> None:
    """Removes annotations of that type, when a rewrite made them untrue."""
    node.meta[_KEY] = {key: value for key, value in node.meta.get(_KEY, {}).items() if not isinstance(value, kind)}


def carry(old: Node, new: Node) -> None:
    """Copies to a node what is known about the node it replaces: annotations (the new node's own win), skips, and where
    it came from."""
    kept = skips(old)
    known = {**old.meta.get(_KEY, {}), **new.meta.get(_KEY, {})}
    new.meta[_KEY] = known
    for entry in kept:
        if all(skip.pass_name != entry.pass_name for skip in skips(new)):
            annotate(new, entry)
    for key in ("stack_trace", "nn_module_stack"):
        if key in old.meta and key not in new.meta:
            new.meta[key] = old.meta[key]
