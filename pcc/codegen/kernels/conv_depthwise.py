"""Depthwise convolution (one input channel a filter), any window, stride and dilation.

An item is one output plane. Outputs are vectors of neighbouring columns read from the staged input (see `stage`), where every tap of a row is a
constant away; the taps of 3x3 and 5x5 windows are unrolled with their weights in registers, other windows loop over them. Small planes of short
rows are computed flat, junk columns and all, into an array on the stack, and their rows copied from there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.dense_work import epilogue_strides
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.runs import exact_run
from pcc.codegen.kernels.stage import stage, staged_pitch, staging_work
from pcc.codegen.layers import Conv2d
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import FLOAT32, DType

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder

UNROLLED = ((3, 3), (5, 5))
"""Windows whose taps are unrolled."""
FLAT_POSITIONS = 1024
"""The largest plane that is computed on the stack."""


def _vectors_by_rows(height: int, width: int, lanes: int) -> int:
    return height * (width // lanes + (width % lanes).bit_count())


def _is_flat(positions: int, by_rows: int, lanes: int) -> bool:
    """Whether the plane fits the stack and running over its rows' ends saves half of the vectors."""
    return positions <= FLAT_POSITIONS and 2 * -(-positions // lanes) <= by_rows


@dataclass(frozen=True)
class DepthwiseSchedule:
    """Planes are computed row by row, or flat on the stack."""

    flat: bool

    def __str__(self) -> str:
        return "flat planes" if self.flat else "rows"


@dataclass(frozen=True)
class DepthwiseFamily:
    """Convolutions whose filters read one channel each."""

    name: str = "conv-depthwise"
    layer: type[Conv2d] = Conv2d
    format: WeightFormat = "dense"
    dtypes: tuple[DType, ...] = (FLOAT32,)

    def candidates(self, layer: Conv2d, machine: Machine) -> list[Candidate] | str:
        weight, lanes = layer.weight, machine.isa.lanes(FLOAT32)
        assert isinstance(weight, np.ndarray)
        if layer.groups == 1 or weight.shape[1] != 1:
            return "a filter reads more than one channel"
        rows, columns = layer.geometry.output_size(*layer.x.shape[2:])
        positions = (rows - 1) * staged_pitch(layer.x, layer.geometry) + columns
        by_rows = _vectors_by_rows(rows, columns, lanes)
        flat = _is_flat(positions, by_rows, lanes)
        vectors = layer.x.shape[0] * weight.shape[0] * (-(-positions // lanes) if flat else by_rows)
        taps = weight[0].size
        work = Work(fma=taps, crossing=taps, stores=1 + flat, scalars=1) * vectors
        return [Candidate(DepthwiseSchedule(flat), work + staging_work(layer.x, layer.geometry, machine) + machine.beyond(layer.y, layer.residual))]

    def emit(self, layer: Conv2d, schedule: DepthwiseSchedule, b: ProgramBuilder) -> None:
        """``layer.groups`` is the number of input channels, ``layer.weight`` a dense (O, 1, kh, kw) array."""
        weight = layer.weight
        assert isinstance(weight, np.ndarray)
        staged = stage(b, layer.x, layer.geometry)
        filters = weight.shape[0]
        epilogue = Epilogue(layer.residual is not None, layer.activation)
        geometry = layer.geometry
        window = (*geometry.kernel, geometry.stride[1], geometry.dilation[1]) if geometry.kernel in UNROLLED else None
        b.call(
            ConvDepthwise(window, epilogue, schedule.flat),
            {
                "x": staged.view,
                "x_image": staged.image,
                "x_plane": staged.plane,
                "pitch": staged.pitch,
                "w": b.constant(f"{layer.name}.weight", weight.reshape(filters, -1)),
                "bias": b.constant(f"{layer.name}.bias", np.zeros(filters, np.float32) if layer.bias is None else layer.bias),
                "taps": b.constant(f"{layer.name}.taps", staged.taps),
                "filters": filters,
                "multiplier": filters // layer.groups,
                "height": staged.height,
                "width": staged.width,
                "depth": len(staged.taps),
                **epilogue_strides(layer.y, layer.residual),
            },
            work=layer.x.shape[0] * filters,
            macs=layer.x.shape[0] * weight.size * staged.height * staged.width,
        )


FAMILY = DepthwiseFamily()


@dataclass(frozen=True)
class _Window:
    """What an item knows of its filter: which it is, its bias, its weights where they are unrolled."""

    filter: "Expr"
    bias: "Expr"
    weights: list["Expr"]


@dataclass(frozen=True)
class ConvDepthwise:
    """``window`` is (kh, kw, column stride, column dilation) where the taps are unrolled, None where they are looped over.

    ``flat`` kernels take planes of up to `FLAT_POSITIONS` positions.
    """

    window: tuple[int, int, int, int] | None
    epilogue: Epilogue
    flat: bool = False

    @property
    def name(self) -> str:
        taps = "any" if self.window is None else "{}x{}_s{}_d{}".format(*self.window)
        return f"pcc_conv_depthwise_{taps}_{'flat_' if self.flat else ''}{self.epilogue.symbol}"

    @property
    def params(self) -> tuple[Param, ...]:
        residual = (Param("residual", "f32*"),) if self.epilogue.residual else ()
        numbers = ("x_image", "x_plane", "pitch", "filters", "multiplier", "height", "width", "depth", "y_image", "y_plane", "y_row")
        strides = ("r_image", "r_plane", "r_row") if self.epilogue.residual else ()
        pointers = (Param("x", "f32*"), Param("w", "f32*"), Param("bias", "f32*"), Param("taps", "i32*"), *residual, Param("y", "f32*", writes=True))
        return *pointers, *(Param(name) for name in (*numbers, *strides))

    def body(self, k: "KernelBuilder") -> None:
        with k.work() as item:
            image, filter = k.divide(item, k["filters"])
            channel, _ = k.divide(filter, k["multiplier"])
            plane = k.let(image * k["x_image"] + channel * k["x_plane"])
            target = k.let(image * k["y_image"] + filter * k["y_plane"])
            addend = k.let(image * k["r_image"] + filter * k["r_plane"]) if self.epilogue.residual else 0
            bias = k.let(k.load(k["bias"], filter))
            weights = [k.let(k.load(k["w"], filter * k["depth"] + tap)) for tap in range(self.window[0] * self.window[1])] if self.window else []
            window = _Window(filter, bias, weights)
            if self.flat:
                self._plane_flat(k, window, plane, target, addend)
            else:
                target = k.let(k.wide(target))
                with k.loop(0, k["height"]) as row:
                    source = k.let(plane + row * k["pitch"])
                    starts = self._tap_starts(k, source)
                    self._row(k, row, target, addend, lambda i, lanes: self._sum(k, window, starts, source, i, lanes))

    def _plane_flat(self, k: "KernelBuilder", window: "_Window", plane: "Expr", target: "Expr", addend: "Expr") -> None:
        """All positions of the plane to the stack, then row by row to ``y``."""
        sums = k.local(FLAT_POSITIONS + k.lanes)
        starts = self._tap_starts(k, plane)
        positions = k.let((k["height"] - 1) * k["pitch"] + k["width"] + (k.lanes - 1))
        with k.loop(0, k.divide(positions, k.lanes)[0]) as vector:
            at = k.let(vector * k.lanes)
            k.store(sums, at, self._sum(k, window, starts, plane, at, k.lanes), k.lanes)
        with k.loop(0, k["height"]) as row:
            held = k.let(row * k["pitch"])
            self._row(k, row, target, addend, lambda i, lanes: k.load(sums, held + i, lanes))

    def _row(self, k: "KernelBuilder", row: "Expr", target: "Expr", addend: "Expr", value: Callable[["Expr", int], "Expr"]) -> None:
        """One row of ``y`` from ``value(column, lanes)``, through the epilogue."""
        y = k.let(target + row * k["y_row"])
        r = k.let(addend + row * k["r_row"]) if self.epilogue.residual else 0

        def outputs(i: "Expr", lanes: int) -> None:
            residual = k.load(k["residual"], r + i, lanes) if self.epilogue.residual else None
            k.store(k["y"], y + i, self.epilogue.apply(k, value(i, lanes), residual, lanes), lanes)

        exact_run(k, k["width"], outputs)

    def _sum(self, k: "KernelBuilder", window: "_Window", starts: list["Expr"], source: "Expr", i: "Expr", lanes: int) -> "Expr":
        """Bias plus all taps of ``lanes`` outputs from position ``i`` on."""
        value = k.splat(window.bias, lanes)
        if self.window is None:
            return self._sum_looped(k, value, window.filter, source + i, lanes)
        for weight, start in zip(window.weights, starts, strict=True):
            value = value + k.splat(weight, lanes) * k.load(k["x"], start + i, lanes)
        return value

    def _tap_starts(self, k: "KernelBuilder", source: "Expr") -> list["Expr"]:
        """Where each tap reads for column 0: taps of one window row and phase are constants apart, so only their first is looked up."""
        if self.window is None:
            return []
        kh, kw, stride, dilation = self.window
        starts = []
        for u in range(kh):
            phases: dict[int, tuple[int, Expr]] = {}
            for v in range(kw):
                phase, column = v * dilation % stride, v * dilation // stride
                if phase not in phases:
                    phases[phase] = column, k.let(source + k.load(k["taps"], u * kw + v))
                first, start = phases[phase]
                starts.append(start + (column - first))
        return starts

    def _sum_looped(self, k: "KernelBuilder", start: "Expr", filter: "Expr", source: "Expr", lanes: int) -> "Expr":
        acc = k.local(lanes)
        k.store(acc, 0, start, lanes)
        with k.loop(0, k["depth"]) as tap:
            weight = k.load(k["w"], filter * k["depth"] + tap)
            inputs = k.load(k["x"], source + k.load(k["taps"], tap), lanes)
            k.store(acc, 0, k.load(acc, 0, lanes) + k.splat(weight, lanes) * inputs, lanes)
        return k.load(acc, 0, lanes)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        x, w, bias, taps, y = (np.asarray(args[name]) for name in ("x", "w", "bias", "taps", "y"))
        depth, height, width, filters = (int(args[name]) for name in ("depth", "height", "width", "filters"))
        row, column, tap = np.arange(height)[:, None, None], np.arange(width)[:, None], taps[:depth]
        reads = row * int(args["pitch"]) + column + tap
        for item in range(begin, end):
            image, filter = divmod(item, filters)
            start = image * int(args["x_image"]) + filter // int(args["multiplier"]) * int(args["x_plane"])
            value = x[start + reads] @ w[filter * depth : (filter + 1) * depth] + bias[filter]

            def at(name: str, image: int = image, filter: int = filter) -> np.ndarray:
                plane = image * int(args[f"{name}_image"]) + filter * int(args[f"{name}_plane"])
                return plane + row[:, :, 0] * int(args[f"{name}_row"]) + column[:, 0]

            y[at("y")] = self.epilogue.reference(value, np.asarray(args["residual"])[at("r")] if self.epilogue.residual else None)
