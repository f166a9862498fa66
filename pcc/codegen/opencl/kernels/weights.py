"""Weights in the forms that kernels read, made on the device when a library is loaded: what ships are the weights
themselves, in the order of the processor's kernels where these read them, too (`pcc.codegen.packing`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import linear_map
from pcc.codegen.kernels.winograd_forms import FORMS, WINDOW
from pcc.codegen.opencl.kernels.numbers import numbers, of_numbers, symbol_of, tensor, whole_numbers
from pcc.codegen.opencl.work_group import range_over
from pcc.codegen.packing import as_taps, places_of, plain_rows
from pcc.codegen.range import Range
from pcc.dtype import FLOAT32, INT32, DType, dtype_of

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder, Expr


@dataclass(frozen=True)
class _OfWeight:
    """What the kernels have in common: ``weight`` has its numbers where ``rows`` says, int32 (O, 3); what is between
    the results is left as it is, zero."""

    shipped: DType
    dtype: DType
    """Of what is made."""

    arithmetic = FLOAT32

    @property
    def _shipped_params(self) -> tuple[Param, ...]:
        return tensor("weight", self.shipped), tensor("rows", INT32)

    def _row(self, k: "DeviceKernelBuilder", table: str, row: "Expr") -> "tuple[Expr, Expr, Expr]":
        """A filter's first number, and how far channels and taps are apart."""
        first, channel, tap = (k.word(k[table], k.let(row * 3) + column) for column in range(3))
        return first, channel, tap


@dataclass(frozen=True)
class PackWeight(_OfWeight):
    """Numbers to other places: those of ``packed_rows`` in ``packed``. An item is a number: the first dimension counts
    channels and taps, the second filters."""

    @property
    def name(self) -> str:
        return f"pcc_pack_weight_{symbol_of(self.shipped, self.dtype)}"

    @property
    def params(self) -> tuple[Param, ...]:
        made = tensor("packed", self.dtype, writes=True), tensor("packed_rows", INT32)
        return *self._shipped_params, *made, *numbers("channels", "taps", "of_filters")

    def body(self, k: "DeviceKernelBuilder") -> None:
        k = of_numbers(k)
        item, row = k.item(0), k.item(1)
        k.end_unless(k.both(item < k["channels"] * k["taps"], row < k["of_filters"]))
        channel, tap = k.divide(item, k["taps"])
        source, target = (self._row(k, table, row) for table in ("rows", "packed_rows"))
        at, to = (k.let(first + channel * step + tap * tap_step) for first, step, tap_step in (source, target))
        k.store(k["packed"], to, k.load(k["weight"], at))

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n = whole_numbers(args)
        shape = n["of_filters"], n["channels"], n["taps"]
        at, to = (places_of(np.asarray(args[table]).reshape(-1, 3), shape) for table in ("rows", "packed_rows"))
        packed = np.asarray(args["packed"])
        packed[to] = np.asarray(args["weight"]).ravel()[at].astype(packed.dtype)


@dataclass(frozen=True)
class TransformWeight(_OfWeight):
    """``u = G g G'`` of windows of 3x3, as `WinogradProduct` reads it: (places, O / ``filters``, channels,
    ``filters``), the filters filled up. An item is a window: the first dimension counts channels, the second
    filters."""

    outputs: int
    """m of F(m x m)."""
    filters: int
    """Of a work-item of the product."""

    @property
    def name(self) -> str:
        types = symbol_of(self.shipped, self.dtype)
        return f"pcc_winograd_weight_f{self.outputs}x{self.outputs}_{types}_f{self.filters}"

    @property
    def params(self) -> tuple[Param, ...]:
        made = tensor("u", self.dtype, writes=True), *numbers("channels", "of_filters", "groups")
        return *self._shipped_params, *made

    def body(self, k: "DeviceKernelBuilder") -> None:
        k, matrix = of_numbers(k), FORMS[self.outputs].weight_matrix
        channel, row = k.item(0), k.item(1)
        k.end_unless(k.both(channel < k["channels"], row < k["of_filters"]))
        first, channel_step, tap_step = self._row(k, "rows", row)
        at = k.let(first + channel * channel_step)
        window = [[k.load(k["weight"], at + (y * WINDOW + x) * tap_step) for y in range(WINDOW)] for x in range(WINDOW)]
        down = [linear_map.apply(k, matrix, column, 1) for column in window]
        group, lane = k.divide(row, self.filters)
        to = k.let((group * k["channels"] + channel) * self.filters + lane)
        step = k.let(k["groups"] * k["channels"] * self.filters)
        for y in range(len(matrix)):
            for x, value in enumerate(linear_map.apply(k, matrix, [column[y] for column in down], 1)):
                k.store(k["u"], to + (y * len(matrix) + x) * step, value)

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n, form = whole_numbers(args), FORMS[self.outputs]
        shape = n["of_filters"], n["channels"], WINDOW * WINDOW
        rows = np.asarray(args["rows"]).reshape(-1, 3)
        weight = np.asarray(args["weight"]).ravel()[places_of(rows, shape)].astype(np.float32)
        u = form.transformed(weight.reshape(*shape[:2], WINDOW, WINDOW))
        filled = np.pad(u, ((0, n["groups"] * self.filters - len(u)), (0, 0), (0, 0), (0, 0)))
        filled = filled.reshape(n["groups"], self.filters, n["channels"], -1).transpose(3, 0, 2, 1)
        held = np.asarray(args["u"])
        held[:] = filled.ravel().astype(held.dtype)


@dataclass(frozen=True, eq=False)
class PreparedWeight:
    """A weight and what makes of it, once, the ``elements`` numbers that a call reads."""

    kernel: PackWeight | TransformWeight
    weight: np.ndarray
    """(O, I, taps)."""
    elements: int
    tables: Mapping[str, np.ndarray]
    """That the kernel reads besides ``rows``."""
    numbers: Mapping[str, int]
    range: Range

    @property
    def result(self) -> str:
        """The kernel's parameter that is written."""
        return next(param.name for param in self.kernel.params if param.writes)

    @cached_property
    def values(self) -> np.ndarray:
        """The numbers, on NumPy."""
        prepared = np.zeros(self.elements, self.kernel.dtype.numpy)
        shipped = {"weight": self.weight, "rows": plain_rows(self.weight.shape)}
        self.kernel.reference({**shipped, **self.tables, **self.numbers, self.result: prepared}, self.range)
        return prepared


def packed_weight(weight: np.ndarray, dtype: DType, packed_rows: np.ndarray, elements: int) -> PreparedWeight:
    """A weight (O, I, ...) with its numbers where rows (O, 3) say, of so many ``elements``."""
    weight = as_taps(weight)
    filters, channels, taps = weight.shape
    return PreparedWeight(
        PackWeight(dtype_of(weight.dtype), dtype),
        weight,
        elements,
        {"packed_rows": packed_rows.astype(np.int32)},
        {"channels": channels, "taps": taps, "of_filters": filters},
        range_over((channels * taps, filters, 1)),
    )


def transformed_weight(weight: np.ndarray, outputs: int, filters: int, dtype: DType) -> PreparedWeight:
    """A weight (O, C, 3, 3) as `WinogradProduct` reads it, for work-items of so many filters."""
    (of_filters, channels), places = weight.shape[:2], FORMS[outputs].inputs ** 2
    groups = -(-of_filters // filters)
    return PreparedWeight(
        TransformWeight(dtype_of(weight.dtype), dtype, outputs, filters),
        as_taps(weight),
        places * groups * channels * filters,
        {},
        {"channels": channels, "of_filters": of_filters, "groups": groups},
        range_over((channels, of_filters, 1)),
    )
