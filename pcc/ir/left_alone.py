"""What passes left alone, and why: the `Skipped` notes of a graph as a list, and as a few lines for people."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from torch.fx import GraphModule

from pcc.ir.annotations import skips
from pcc.ir.graph import layer_name

_MOST_NAMES = 3

_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?=x?(?![\w.]*\w))")
"""Numbers that stand alone, ``12`` and ``1.3x``; not those of names and sizes, ``conv2`` and ``3x3``."""


@dataclass(frozen=True)
class LeftAlone:
    """A pass did nothing to a layer."""

    pass_name: str
    layer: str
    """The path of its module, ``features.0``."""
    reason: str


def left_alone(graph_module: GraphModule) -> list[LeftAlone]:
    """What passes left alone, in the order of the graph."""
    return [
        LeftAlone(skip.pass_name, layer_name(node), skip.reason)
        for node in graph_module.graph.nodes
        for skip in skips(node)
    ]


def by_reason(layers: Iterable[LeftAlone]) -> list[str]:
    """A line for each reason, with the range of the numbers in it: ``prune-pattern: 9 layers (stem, left, right, ...):
    1 to 4 of 16 filters are dead``."""
    alike: dict[tuple[str, str], list[LeftAlone]] = defaultdict(list)
    for layer in dict.fromkeys(layers):
        alike[layer.pass_name, _NUMBER.sub("#", layer.reason)].append(layer)
    passes: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (pass_name, _), found in alike.items():
        names = tuple(dict.fromkeys(layer.layer for layer in found))
        passes[_common([layer.reason for layer in found]), names].append(pass_name)
    return [f"{', '.join(pass_names)}: {_count(names)}: {reason}" for (reason, names), pass_names in passes.items()]


def _count(names: tuple[str, ...]) -> str:
    shown = ", ".join([*names[:_MOST_NAMES], *(["..."] if len(names) > _MOST_NAMES else [])])
    return f"{len(names)} layer{'s' if len(names) != 1 else ''} ({shown})"


def _common(reasons: list[str]) -> str:
    """What reasons say that differ in their numbers only."""
    columns = iter(list(zip(*(_NUMBER.findall(reason) for reason in reasons), strict=True)))

    def span(_: re.Match[str]) -> str:
        numbers = sorted(set(next(columns)), key=float)
        return numbers[0] if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"

    return _NUMBER.sub(span, reasons[0])
