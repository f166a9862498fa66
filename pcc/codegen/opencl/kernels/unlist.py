"""The tables of sparse 1x1 convolutions made of a processor's lists when a library is loaded
(`pcc.codegen.listed_weight`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.opencl.kernels.numbers import numbers, of_numbers, place, tensor, whole_numbers
from pcc.codegen.range import Range
from pcc.dtype import FLOAT32, INT32, DType

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import Accumulator, DeviceKernelBuilder, Expr


@dataclass(frozen=True)
class UnlistWeight:
    """``weight`` (K, ``share``) and ``places`` (K,), the channel of each connection times ``channel_step``, of all
    filter groups. An item is a filter group; ``begins`` has where its connections begin, every ``begin_step`` numbers.

    ``entries`` and ``lists`` are those of `pcc.codegen.kernels.shared_tables.SharedTables`: for ``blocks`` blocks of
    channels and ``list_groups`` groups of ``size`` filters, whatever ``share`` is, ``columns`` numbers in a list;
    entries speak of planes that are ``plane`` elements apart. The first filter's connections come in the order of its
    lists, and behind them those that only others have. Zeros in a list are no connections: they make lists even. A
    connection whose weights are all zero is in no list: what it would take stays zero.
    """

    share: int
    dtype: DType
    """Of ``weight``."""

    arithmetic = FLOAT32

    @property
    def name(self) -> str:
        return f"pcc_unlist_weight_f{self.share}_{self.dtype.short}"

    @property
    def params(self) -> tuple[Param, ...]:
        read = (tensor(name, INT32) for name in ("entries", "lists", "begins"))
        made = tensor("weight", self.dtype, writes=True), tensor("places", INT32, writes=True)
        of_lists = numbers("size", "list_groups", "columns", "blocks", "plane")
        return *read, *made, *of_lists, *numbers("groups", "begin_step", "channel_step")

    def body(self, k: "DeviceKernelBuilder") -> None:
        k = of_numbers(k)
        group, _, _ = place(k, k["groups"], 1)
        every, begin = k.let(k.power_of_two(k["size"]) - 1), k.word(k["begins"], group * k["begin_step"])
        end = k.variable(begin)
        with k.loop(self.share) as filter:
            listed, lane = k.divide(group * self.share + filter, k["size"])
            bit = k.let(k.power_of_two(lane))
            with k.loop(k["blocks"]) as block:
                row = k.let((block * k["list_groups"] + listed) * k["columns"])
                entry = k.variable(k.word(k["lists"], row))
                with k.loop(k["columns"] - 1) as before:
                    members = k.let(k.select(k["columns"] > 2, before + 1, every))
                    count, kept = k.word(k["lists"], row + before + 1), k.let(k.bits_set(members))
                    with k.when_all((members & bit) > 0), k.loop(count) as turn:
                        entry_at = k.let(entry.value + turn * (kept + 1))
                        number = k.let(entry_at + 1 + k.bits_set(members & (bit - 1)))
                        with k.when_all(k.word(k["entries"], number) != 0):
                            channel, _ = k.divide(k.word(k["entries"], entry_at), k["plane"])
                            at = _place_of(k, k.let(channel * k["channel_step"]), begin, end, filter)
                            k.store(k["weight"], at * self.share + filter, k.float_of_word(k["entries"], number))
                    entry.value = entry.value + count * (kept + 1)

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n = whole_numbers(args)
        entries, weight, places = (np.asarray(args[name]).ravel() for name in ("entries", "weight", "places"))
        begins = np.asarray(args["begins"]).ravel()[:: n["begin_step"]]
        lists = np.asarray(args["lists"]).reshape(n["blocks"], n["list_groups"], -1)
        every = 2 ** n["size"] - 1
        sets = np.arange(1, every + 1).tolist() if n["columns"] > 2 else [every]
        for group in np.arange(n["groups"]).tolist():
            at_place: dict[int, int] = {}
            for filter in np.arange(self.share).tolist():
                listed, lane = divmod(group * self.share + filter, n["size"])
                for row in lists[:, listed].tolist():
                    entry = row[0]
                    for members, count in zip(sets, row[1:], strict=True):
                        for _ in np.arange(count) if members >> lane & 1 else ():
                            number = entry + 1 + (members & ((1 << lane) - 1)).bit_count()
                            if entries[number]:
                                place = int(entries[entry]) // n["plane"] * n["channel_step"]
                                at = at_place.setdefault(place, int(begins[group]) + len(at_place))
                                places[at] = place
                                weight[at * self.share + filter] = entries[number : number + 1].view(np.float32)[0]
                            entry += 1 + members.bit_count()
                        entry += 0 if members >> lane & 1 else count * (1 + members.bit_count())


def _place_of(k: "DeviceKernelBuilder", place: "Expr", begin: "Expr", end: "Accumulator", filter: "Expr") -> "Expr":
    """The connection of a group that reads at a place: one of those so far, or a new one at their end. A group's first
    filter has new ones only."""
    at = k.variable(end.value)
    with k.loop(k.select(filter > 0, end.value - begin, 0)) as turn:
        other = k.let(begin + turn)
        with k.when_all(k.equal(k.word(k["places"], other), place)):
            at.value = other
    found = k.let(at.value)
    with k.when_all(k.equal(found, end.value)):
        k.store_word(k["places"], found, place)
        end.value = end.value + 1
    return found
