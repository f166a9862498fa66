"""Two dumps side by side, layer by layer: what `pcc.ir.printer` and `pcc.codegen.print_program` write, whatever
networks and passes it came from."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, unified_diff

TOTALS = "(whole)"
"""What lines belong to that are about no layer: sums, inputs, memory."""

_BEGIN = re.compile(r"# \d+ calls, |program \S+\n# \d+ calls, ")
_CONSTANT = re.compile(r"%(\w+): \S+ = (?:constant |pcc\.unpack\()")
_NODE = re.compile(r"%(\w+): .* = ")
_CALL = re.compile(r"\d{3} (.*?)  # (.*?)(, \d+ of \d+ MACs)?$")
_OF_LAYER = re.compile(r"  # of ([^;]*)")
_OPERAND = re.compile(r"%(\w+)")


@dataclass(frozen=True)
class LayerDiff:
    """A layer that is not the same in both."""

    layer: str
    removed: Sequence[str]
    added: Sequence[str]
    where: str
    """``both``, or ``first`` or ``second`` for a layer that only one has."""


@dataclass(frozen=True)
class IrDiff:
    """The layers that differ, in order, and how many do not."""

    layers: Sequence[LayerDiff]
    equal: int

    @property
    def summary(self) -> str:
        count = {where: sum(layer.where == where for layer in self.layers) for where in ("both", "first", "second")}
        return (
            f"{count['both']} layers differ, {self.equal} are equal, {count['first']} are only in the first, "
            f"{count['second']} only in the second"
        )


def is_dump(text: str) -> bool:
    """Whether a text begins as a dump does: with the sums of a graph, or with a kernel program's name and its sums."""
    return _BEGIN.match(text) is not None


def diff_ir(first: str, second: str) -> IrDiff:
    """The differences of two dumps, by layer. Layers are aligned by their names; each note of a node is a line of its
    own."""
    a, b = _by_layer(first), _by_layer(second)
    found, equal = [], 0
    for layer in _merged(list(a), list(b)):
        old, new = a.get(layer, []), b.get(layer, [])
        if old == new:
            equal += 1
            continue
        changes = [
            line for line in unified_diff(old, new, n=0, lineterm="") if not line.startswith(("---", "+++", "@@"))
        ]
        removed, added = ([line[1:] for line in changes if line[0] == sign] for sign in "-+")
        found.append(
            LayerDiff(
                layer, removed, added, "both" if layer in a and layer in b else "first" if layer in a else "second"
            )
        )
    return IrDiff(found, equal)


def _merged(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """The names of both, each once, in an order that keeps those of both where it can."""
    order: dict[str, None] = {}
    for _, begin, end, other_begin, other_end in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        order.update(dict.fromkeys((*first[begin:end], *second[other_begin:other_end])))
    return list(order)


def _by_layer(text: str) -> dict[str, list[str]]:
    """The lines of a dump by layer, in order; constants are the layer's that reads them first."""
    lines = text.splitlines()
    readers: dict[str, str] = {}
    for line in reversed(lines):  # readers come after what they read
        layer = _layer(line, readers)
        for operand in _OPERAND.findall(line.partition(" = ")[2].partition("  # ")[0]):
            readers[operand] = layer
    calls = (_layer(line, readers) for line in lines if not _CONSTANT.match(line))
    layers: dict[str, list[str]] = {layer: [] for layer in (TOTALS, *calls)}
    for line in lines:
        layers.setdefault(_layer(line, readers), []).extend(_parts(line))
    return layers


def _layer(line: str, readers: dict[str, str]) -> str:
    if call := _CALL.match(line):
        return call[2]
    if constant := _CONSTANT.match(line):
        return readers.get(constant[1], TOTALS)
    node = _NODE.match(line)
    if node is None or line.endswith(" = input"):
        return TOTALS
    named = _OF_LAYER.search(line)
    return named[1].replace(".", "_") if named else node[1]


def _parts(line: str) -> Iterator[str]:
    """What computes a node, then what is known about it, note by note. The number of a call says nothing."""
    if call := _CALL.match(line):
        yield call[1] + (call[3] or "")
        return
    head, _, notes = line.partition("  # ")
    yield head
    depth = start = 0
    for place, letter in enumerate(notes):
        depth += (letter == "(") - (letter == ")")
        if letter == ";" and depth == 0:
            yield f"    # {notes[start:place].strip()}"
            start = place + 1
    if notes:
        yield f"    # {notes[start:].strip()}"
