"""The kernel that transforms the weights of Winograd convolution into 16/9, 4 or 64/9 times the bytes, which a package
would be too large with.

It runs once, when a library's first context is made. What ships is the layer's weight with filters innermost, the same
for every form, schedule and instruction set. Vectors are of filters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.linear_map import apply
from pcc.codegen.kernels.winograd_forms import WINDOW, Form

if TYPE_CHECKING:
    from pcc.codegen.builder import KernelBuilder


def pack_weight(weight: np.ndarray, groups: int) -> np.ndarray:
    """(O, I/groups, 3, 3) to what ships: (groups, I/groups, 9, O/groups)."""
    return weight.reshape(groups, -1, weight.shape[1], WINDOW * WINDOW).transpose(0, 2, 3, 1)


@dataclass(frozen=True)
class WinogradWeights:
    """``G g G'`` of each window: ``shipped`` (groups, channels, 9, filters of a group) to ``w`` (groups, chunks,
    places, panels of a chunk, channels, ``filters``). An item is a panel. In the last panel of a group, what stands for
    filters that do not exist is arbitrary."""

    form: Form
    filters: int
    """Of a panel."""
    lanes: int

    @property
    def name(self) -> str:
        return f"pcc_winograd_weights_f{self.form.outputs}_{self.filters}x{self.lanes}"

    @property
    def params(self) -> tuple[Param, ...]:
        numbers = ("channels", "filters", "panels", "panels_per_chunk", "chunks")
        return (Param("shipped", "f32*"), Param("w", "f32*", writes=True), *map(Param, numbers))

    def body(self, k: "KernelBuilder") -> None:
        size, lanes = self.form.inputs, gcd(self.filters, self.lanes)
        between = k.local(size * WINDOW * lanes)
        with k.work() as item:
            group, panel = k.divide(item, k["panels"])
            chunk, in_chunk = k.divide(panel, k["panels_per_chunk"])
            first = k.let((group * k["chunks"] + chunk) * (size * size) * k["panels_per_chunk"] + in_chunk)
            place_step = k.let(k["panels_per_chunk"] * k["channels"] * self.filters)
            source = k.pointer(
                k["shipped"], k.let(group * k["channels"] * (WINDOW * WINDOW) * k["filters"] + panel * self.filters)
            )
            target = k.pointer(k["w"], k.let(first * (k["channels"] * self.filters)))
            with k.loop(0, k["channels"]) as channel:
                for part in range(0, self.filters, lanes):
                    for column in range(WINDOW):
                        taps = [
                            (channel * (WINDOW * WINDOW) + row * WINDOW + column) * k["filters"] + part
                            for row in range(WINDOW)
                        ]
                        values = [k.let(k.load(source, tap, lanes)) for tap in taps]
                        for row, value in enumerate(apply(k, self.form.weight_matrix, values, lanes)):
                            k.store(between, (row * WINDOW + column) * lanes, value, lanes)
                    for row in range(size):
                        values = [
                            k.let(k.load(between, (row * WINDOW + column) * lanes, lanes)) for column in range(WINDOW)
                        ]
                        for column, value in enumerate(apply(k, self.form.weight_matrix, values, lanes)):
                            k.store(
                                target,
                                (row * size + column) * place_step + (channel * self.filters + part),
                                value,
                                lanes,
                            )

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        n = {key: int(value) for key, value in args.items() if not isinstance(value, np.ndarray)}
        shipped, w = np.asarray(args["shipped"]), np.asarray(args["w"])
        matrix = np.array(self.form.weight_matrix, np.float32)
        for item in range(begin, end):
            group, panel = divmod(item, n["panels"])
            chunk, in_chunk = divmod(panel, n["panels_per_chunk"])
            windows = shipped[group * n["channels"] * WINDOW**2 * n["filters"] :][
                : n["channels"] * WINDOW**2 * n["filters"]
            ]
            windows = windows.reshape(n["channels"], WINDOW, WINDOW, -1)[
                ..., panel * self.filters : (panel + 1) * self.filters
            ]
            values = np.einsum("ia,cabf,jb->ijcf", matrix, windows, matrix).reshape(
                -1, n["channels"], windows.shape[-1]
            )
            first, size = (group * n["chunks"] + chunk) * len(values), n["channels"] * self.filters
            for place, channel in product(range(len(values)), range(n["channels"])):
                at = ((first + place) * n["panels_per_chunk"] + in_chunk) * size + channel * self.filters
                w[at : at + windows.shape[-1]] = values[place, channel]
