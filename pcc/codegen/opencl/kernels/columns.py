"""Walks down the columns of a contiguous (outer, size, inner) tensor: running sums and the like, and the k largest
elements. An item is a column. The meaning is that of `pcc.codegen.kernels.columns`."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.opencl.kernels.numbers import numbers, of_numbers, place, tensor, whole_numbers
from pcc.codegen.opencl.work_group import range_over
from pcc.codegen.program import View
from pcc.codegen.range import Range
from pcc.dtype import FLOAT32

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder, Expr
    from pcc.codegen.opencl.program import DeviceProgramBuilder

_COMBINED = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


def combine(k: "DeviceKernelBuilder", mode: str, a: "Expr", b: "Expr") -> "Expr":
    """Two numbers as one: ``sum``, ``prod``, ``max``, ``min``."""
    match mode:
        case "sum":
            return a + b
        case "prod":
            return a * b
        case "max":
            return k.larger(a, b)
        case _:
            return k.smaller(a, b)


def emit_scan(b: "DeviceProgramBuilder", y: View, x: View, mode: str) -> None:
    """``y = scan(x)``, see ``pcc::scan``."""
    _emit(Scan(mode), b, y, x, {})


def emit_top_k(b: "DeviceProgramBuilder", y: View, x: View, k: int, largest: bool, indices: bool) -> None:
    """``y = top_k(x)``, see ``pcc::top_k``."""
    _emit(TopK(largest, indices), b, y, x, {"count": k})


def _emit(kernel: "Scan | TopK", b: "DeviceProgramBuilder", y: View, x: View, more: Mapping[str, int]) -> None:
    outer, size, inner = x.shape
    places = {"x_offset": x.offset, "y_offset": y.offset, "outer": outer, "size": size, "inner": inner}
    b.call(kernel, {"x": x, "y": y, **places, **more}, range_over((inner, outer, 1)))


_PARAMS = (
    tensor("x", FLOAT32),
    tensor("y", FLOAT32, writes=True),
    *numbers("x_offset", "y_offset", "outer", "size", "inner"),
)


def _columns(args: Mapping[str, Argument], name: str, size: int) -> np.ndarray:
    """A tensor of the call as (outer, size, inner)."""
    n = whole_numbers(args)
    shape = n["outer"], size, n["inner"]
    return np.asarray(args[name])[n[f"{name}_offset"] :][: prod(shape)].reshape(shape)


@dataclass(frozen=True)
class Scan:
    """Each element is combined with what came before it."""

    mode: str

    arithmetic = FLOAT32

    @property
    def name(self) -> str:
        return f"pcc_scan_{self.mode}"

    @property
    def params(self) -> tuple[Param, ...]:
        return _PARAMS

    def body(self, k: "DeviceKernelBuilder") -> None:
        column, row, _ = place(k, k["inner"], k["outer"])
        first = k.let(row * (k["size"] * k["inner"]) + column)
        x, y = k.let(k["x_offset"] + first), k.let(k["y_offset"] + first)
        total = k.variable(k.load(k["x"], x))
        k.store(k["y"], y, total.value)
        with k.loop(k["size"] - 1) as before:
            at = k.let((before + 1) * k["inner"])
            total.value = combine(k, self.mode, total.value, k.load(k["x"], x + at))
            k.store(k["y"], y + at, total.value)

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        size = whole_numbers(args)["size"]
        _columns(args, "y", size)[:] = _COMBINED[self.mode].accumulate(_columns(args, "x", size), 1)


@dataclass(frozen=True)
class TopK:
    """Again and again the best element that comes after the last one chosen, by value, a NaN as an infinity, and equal
    ones by position."""

    largest: bool
    indices: bool

    arithmetic = FLOAT32

    @property
    def name(self) -> str:
        return "_".join(["pcc_top", "largest" if self.largest else "smallest", "indices" if self.indices else "values"])

    @property
    def params(self) -> tuple[Param, ...]:
        return *_PARAMS, *numbers("count")

    def body(self, k: "DeviceKernelBuilder") -> None:
        k = of_numbers(k)
        infinity, sign = float("inf"), 1.0 if self.largest else -1.0
        column, row, _ = place(k, k["inner"], k["outer"])
        x = k.let(k["x_offset"] + row * (k["size"] * k["inner"]) + column)
        y = k.let(k["y_offset"] + row * (k["count"] * k["inner"]) + column)
        last_key, last_place = k.variable(k.splat(infinity)), k.variable(k.splat(-1.0))
        best_key, best_place, best = (k.variable(k.splat(0.0)) for _ in range(3))
        with k.loop(k["count"]) as rank:
            best_key.value, best_place.value = k.splat(-infinity), k.splat(infinity)
            with k.loop(k["size"]) as i:
                value, at = k.load(k["x"], x + i * k["inner"]), k.let(k.number(i))
                is_number = k.either(value <= k.splat(0.0), value > k.splat(0.0))
                key = k.let(k.select(is_number, value * k.splat(sign), k.splat(sign * infinity)))
                after = k.either(key < last_key.value, k.both(k.equal(key, last_key.value), at > last_place.value))
                better = k.either(key > best_key.value, k.both(k.equal(key, best_key.value), at < best_place.value))
                with k.when_all(after, better):
                    best_key.value, best_place.value, best.value = key, at, value
            last_key.value, last_place.value = best_key.value, best_place.value
            k.store(k["y"], y + rank * k["inner"], best_place.value if self.indices else best.value)

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n = whole_numbers(args)
        x, y = _columns(args, "x", n["size"]), _columns(args, "y", n["count"])
        key = np.where(np.isnan(x), -np.inf if self.largest else np.inf, -x if self.largest else x)
        places = np.argsort(key, axis=1, kind="stable")[:, : n["count"]]
        y[:] = places if self.indices else np.take_along_axis(x, places, 1)
