"""Depthwise convolution (one input channel a filter), any window, stride and dilation.

An item is one output plane. Its input is copied, padded and split into phases (see `stage`), to memory of the thread,
where every tap of a row is a constant away; an input that needs neither is read where it is. The taps of 3x3 and 5x5
windows are unrolled with their weights in registers, for several rows at once, so that a line of the input is loaded
once for all of them; other windows loop over them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.dense_work import epilogue_strides
from pcc.codegen.kernels.epilogue import Epilogue, channel_arrays
from pcc.codegen.kernels.runs import exact_run
from pcc.codegen.kernels.stage import (
    COPY_PARAMS,
    Layout,
    copy_args,
    copy_plane,
    is_staged,
    known_stride,
    reference_plane,
    stage,
    staged_pitch,
    staging_work,
)
from pcc.codegen.layers import Conv2d
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder, View, has_whole_lines, whole_lines
from pcc.dtype import REALS, DType

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder

UNROLLED = ((3, 3), (5, 5))
"""Windows whose taps are unrolled."""
ROWS = 4
"""Rows of outputs that are computed at once where taps are unrolled."""
FLAT_POSITIONS = 1024
"""The largest plane that is computed on the stack."""

Form = Literal["wide", "narrow", "flat", "rows"]
"""How planes are gone through.

``wide``: rows of whole vectors, the last of which begins early; ``narrow``: rows of less than a vector, stored with the
junk behind them, which the next row replaces and for which the plane has room after the last; ``flat``: all positions,
junk columns and all, into an array on the stack, and rows copied from there; ``rows``: vectors of halving widths.
"""


def _vectors_by_rows(height: int, width: int, lanes: int) -> int:
    return height * (width // lanes + (width % lanes).bit_count())


@dataclass(frozen=True)
class DepthwiseSchedule:
    """The form, and the rows computed at once."""

    form: Form
    rows: int = 1

    def __str__(self) -> str:
        return f"{self.form}, {self.rows} rows at once"

    def variants(self) -> Iterator["DepthwiseSchedule"]:
        """A row at a time."""
        if self.rows > 1:
            yield replace(self, rows=1)


@dataclass(frozen=True)
class DepthwiseFamily:
    """Convolutions whose filters read one channel each."""

    name: str = "conv-depthwise"
    layer: type[Conv2d] = Conv2d
    format: WeightFormat = "dense"
    dtypes: tuple[DType, ...] = REALS

    def candidates(self, layer: Conv2d, machine: Machine) -> list[Candidate] | str:
        weight, lanes = layer.weight, machine.isa.lanes(layer.x.dtype)
        assert isinstance(weight, np.ndarray)
        if layer.groups == 1 or weight.shape[1] != 1:
            return "a filter reads more than one channel"
        height, width = layer.geometry.output_size(*layer.x.shape[2:])
        positions = (height - 1) * staged_pitch(layer.x, layer.geometry) + width
        rows = ROWS if layer.geometry.window in UNROLLED and height >= ROWS and machine.isa.registers >= 32 else 1
        vectors = {DepthwiseSchedule("rows"): _vectors_by_rows(height, width, lanes)}
        if width >= lanes:
            vectors[DepthwiseSchedule("wide", rows)] = -(-height // rows) * rows * -(-width // lanes)
        elif has_whole_lines(layer.y) and (height - 1) * width + lanes <= whole_lines(height * width, layer.y.dtype):
            vectors[DepthwiseSchedule("narrow", rows)] = -(-height // rows) * rows
        elif positions <= FLAT_POSITIONS:
            vectors[DepthwiseSchedule("flat")] = -(-positions // lanes)
        around, found = machine.beyond(layer.y, layer.residual), []
        for schedule, count in vectors.items():
            staging = staging_work(layer.x, layer.geometry, machine, spills=schedule.form == "narrow")
            found.append(
                Candidate(
                    schedule,
                    _vector_work(layer, schedule) * (layer.x.shape[0] * len(weight) * count) + staging + around,
                )
            )
        return found

    def emit(self, layer: Conv2d, schedule: DepthwiseSchedule, b: ProgramBuilder) -> None:
        """``layer.groups`` is the number of input channels, ``layer.weight`` a dense (O, 1, kh, kw) array."""
        weight, x, geometry = layer.weight, layer.x, layer.geometry
        assert isinstance(weight, np.ndarray)
        filters = weight.shape[0]
        height, width = geometry.output_size(*x.shape[2:])
        copies = is_staged(geometry)
        copied: dict[str, View | int | float] = {"pitch": x.strides[2]}
        if not copies:
            taps = stage(b, x, geometry).taps
        else:
            layout = Layout(geometry, *x.shape[2:])
            taps = layout.taps
            staged = b.thread_tensor(f"{layer.name}.staged", (layout.plane + b.isa.lanes(x.dtype),), x.dtype)
            copied = {"staged": staged, **copy_args(b, layer.name, x, layout)}
        kernel = ConvDepthwise(
            (geometry.window, geometry.stride, geometry.dilation) if geometry.window in UNROLLED else None,
            Epilogue(layer.residual is not None, layer.activation),
            schedule.form,
            schedule.rows,
            known_stride(geometry) if copies else None,
        )
        args: dict[str, View | int | float] = {
            "x": x,
            "x_image": x.strides[0],
            "x_plane": x.strides[1],
            "w": b.constant(f"{layer.name}.weight", weight.reshape(filters, -1)),
            **b.named_constants(layer.name, channel_arrays(layer)),
            "taps": b.constant(f"{layer.name}.taps", taps),
            "filters": filters,
            "multiplier": filters // layer.groups,
            "height": height,
            "width": width,
            "depth": len(taps),
            **copied,
            **epilogue_strides(layer.y, layer.residual),
        }
        b.call(
            kernel, args, work=x.shape[0] * filters, macs=x.shape[0] * weight.size * height * width, arithmetic=x.dtype
        )


FAMILY = DepthwiseFamily()


def _vector_work(layer: Conv2d, schedule: DepthwiseSchedule) -> Work:
    """One vector of outputs; rows that are computed at once share the lines that their taps read."""
    (kh, kw), stride = layer.geometry.window, layer.geometry.stride[0]
    taps = kh * kw
    shared = (schedule.rows - 1) * max(0, kh - stride) * kw / schedule.rows if layer.geometry.dilation[0] == 1 else 0
    return Work(fma=taps, crossing=taps - shared, stores=2 if schedule.form == "flat" else 1, scalars=1)


@dataclass(frozen=True)
class _Window:
    """What an item knows of its filter: which it is, its bias, its activation's parameter, its weights where they are
    unrolled, its input."""

    filter: "Expr"
    bias: "Expr"
    parameter: "Expr | None"
    weights: list["Expr"]
    source: "Buffer"
    """What its taps read: the input, or the copy of its plane."""


@dataclass(frozen=True)
class ConvDepthwise:
    """``window`` is (size, stride, dilation) where the taps are unrolled, None where they are looped over.

    ``copy`` is the column stride that `copy_plane` knows, None where the input is read where it is.
    """

    window: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None
    epilogue: Epilogue
    form: Form = "rows"
    rows: int = 1
    copy: int | None = None

    @property
    def name(self) -> str:
        taps = "any"
        if self.window is not None:
            (kh, kw), (sh, sw), (dh, dw) = self.window
            taps = f"{kh}x{kw}_s{sh}x{sw}_d{dh}x{dw}"
        copy = "" if self.copy is None else f"_copy{self.copy}"
        return f"pcc_conv_depthwise_{taps}_{self.form}{self.rows}_{self.epilogue.symbol}{copy}"

    @property
    def params(self) -> tuple[Param, ...]:
        residual = (Param("residual", "f32*"),) if self.epilogue.residual else ()
        numbers = (
            "x_image",
            "x_plane",
            "filters",
            "multiplier",
            "height",
            "width",
            "depth",
            "y_image",
            "y_plane",
            "y_row",
        )
        strides = ("r_image", "r_plane", "r_row") if self.epilogue.residual else ()
        pointers = (
            Param("x", "f32*"),
            Param("w", "f32*"),
            *self.epilogue.params,
            Param("taps", "i32*"),
            *residual,
            Param("y", "f32*", writes=True),
        )
        copy = (Param("pitch"),) if self.copy is None else (Param("staged", "f32*", writes=True), *COPY_PARAMS)
        return *pointers, *(Param(name) for name in (*numbers, *strides)), *copy

    def body(self, k: "KernelBuilder") -> None:
        with k.work() as item:
            image, filter = k.divide(item, k["filters"])
            channel, _ = k.divide(filter, k["multiplier"])
            plane = k.let(image * k["x_image"] + channel * k["x_plane"])
            target = k.let(image * k["y_image"] + filter * k["y_plane"])
            addend = k.let(image * k["r_image"] + filter * k["r_plane"]) if self.epilogue.residual else 0
            bias = k.let(k.load(k["bias"], filter))
            taps = 0 if self.window is None else self.window[0][0] * self.window[0][1]
            weights = [k.let(k.load(k["w"], filter * k["depth"] + tap)) for tap in range(taps)]
            source = k["x"]
            if self.copy is not None:
                copy_plane(k, source, plane, k["staged"], 0, self.copy, spills=self.form == "narrow")
                source, plane = k["staged"], 0
            window = _Window(filter, bias, self.epilogue.parameter(k, filter), weights, source)
            if self.form == "flat":
                self._plane_flat(k, window, plane, target, addend)
            elif self.form == "rows":
                target = k.let(k.wide(target))
                with k.loop(0, k["height"]) as row:
                    self._row(
                        k, window, row, target, addend, lambda i, lanes: self._sums(k, window, plane, row, i, lanes)[0]
                    )
            else:
                self._blocks(k, window, plane, target, addend)

    def _blocks(self, k: "KernelBuilder", window: "_Window", plane: "Expr", target: "Expr", addend: "Expr") -> None:
        """Blocks of rows, vector by vector; the last block and the last vector of a row begin early."""
        from tvm import tirx

        blocks, _ = k.divide(k["height"] + (self.rows - 1), self.rows)
        with k.loop(0, blocks) as block:
            row = k.let(tirx.Min(block * self.rows, k["height"] - self.rows))
            # One pointer: rows of the narrow form overlap, and through several LLVM may change the order of stores.
            y = k.pointer(k["y"], target)
            at = [k.let(k.wide((row + place) * k["y_row"])) for place in range(self.rows)]
            rs = (
                [k.pointer(k["residual"], addend + (row + place) * k["r_row"]) for place in range(self.rows)]
                if self.epilogue.residual
                else []
            )
            vectors = 1 if self.form == "narrow" else k.divide(k["width"] + (k.lanes - 1), k.lanes)[0]
            with k.loop(0, vectors) as vector:
                i = 0 if self.form == "narrow" else k.let(k.wide(tirx.Min(vector * k.lanes, k["width"] - k.lanes)))
                for place, value in enumerate(self._sums(k, window, plane, row, i, k.lanes)):
                    residual = k.load(rs[place], i, k.lanes) if self.epilogue.residual else None
                    value = self.epilogue.apply(k, value, residual, k.lanes, window.parameter)
                    k.store(y, at[place] + i, value, k.lanes)

    def _plane_flat(self, k: "KernelBuilder", window: "_Window", plane: "Expr", target: "Expr", addend: "Expr") -> None:
        """All positions of the plane to the stack, then row by row to ``y``."""
        sums = k.local(FLAT_POSITIONS + k.lanes)
        positions = k.let((k["height"] - 1) * k["pitch"] + k["width"] + (k.lanes - 1))
        with k.loop(0, k.divide(positions, k.lanes)[0]) as vector:
            at = k.let(vector * k.lanes)
            k.store(sums, at, self._sums(k, window, plane, 0, at, k.lanes)[0], k.lanes)
        with k.loop(0, k["height"]) as row:
            held = k.let(row * k["pitch"])
            self._row(k, window, row, target, addend, lambda i, lanes: k.load(sums, held + i, lanes))

    def _row(
        self,
        k: "KernelBuilder",
        window: "_Window",
        row: "Expr",
        target: "Expr",
        addend: "Expr",
        value: Callable[["Expr", int], "Expr"],
    ) -> None:
        """One row of ``y`` from ``value(column, lanes)``, through the epilogue."""
        y = k.let(target + row * k["y_row"])
        r = k.let(addend + row * k["r_row"]) if self.epilogue.residual else 0

        def outputs(i: "Expr", lanes: int) -> None:
            residual = k.load(k["residual"], r + i, lanes) if self.epilogue.residual else None
            done = self.epilogue.apply(k, value(i, lanes), residual, lanes, window.parameter)
            k.store(k["y"], y + i, done, lanes)

        exact_run(k, k["width"], outputs)

    def _sums(
        self, k: "KernelBuilder", window: "_Window", plane: "Expr", row: "Expr", i: "Expr", lanes: int
    ) -> list["Expr"]:
        """Bias plus all taps of ``lanes`` outputs from column ``i`` on, of each of ``rows`` rows."""
        if self.window is None:
            return [
                self._sum_looped(k, window, k.let(plane + (row + r) * k["pitch"] + i), lanes) for r in range(self.rows)
            ]
        (kh, kw), (sh, sw), (dh, dw) = self.window
        users: dict[
            tuple[int, int, int], list[tuple[int, int]]
        ] = {}  # (phase of rows, row in it, column) of a line: the (row, tap) that read it
        for r, u, v in product(range(self.rows), range(kh), range(kw)):
            users.setdefault((u * dh % sh, r + u * dh // sh, v), []).append((r, u * kw + v))
        first_tap = {u * dh % sh: u for u in reversed(range(kh))}
        first_column = {v * dw % sw: v for v in reversed(range(kw))}
        lines: dict[tuple[int, int, int], Buffer] = {}
        sums = [k.splat(window.bias, lanes)] * self.rows
        for (phase, line, v), readers in sorted(users.items(), key=lambda item: (item[0][1], item[0])):
            u, start = first_tap[phase], first_column[v * dw % sw]
            key = phase, line, v * dw % sw
            if key not in lines:  # taps of one window row and phase are constants apart
                lines[key] = k.pointer(
                    window.source,
                    plane + k.load(k["taps"], u * kw + start) + (row + (line - u * dh // sh)) * k["pitch"],
                )
            values = k.let(k.load(lines[key], k.wide(i) + (v * dw // sw - start * dw // sw), lanes))
            for r, tap in readers:
                sums[r] = k.let(sums[r] + k.splat(window.weights[tap], lanes) * values)
        return sums

    def _sum_looped(self, k: "KernelBuilder", window: "_Window", source: "Expr", lanes: int) -> "Expr":
        acc = k.local(lanes)
        k.store(acc, 0, k.splat(window.bias, lanes), lanes)
        with k.loop(0, k["depth"]) as tap:
            weight = k.load(k["w"], window.filter * k["depth"] + tap)
            inputs = k.load(window.source, source + k.load(k["taps"], tap), lanes)
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
            plane = x[start:]
            if self.copy is not None:
                plane = np.asarray(args["staged"])
                reference_plane(args, x[start:], plane)
            value = plane[reads] @ w[filter * depth : (filter + 1) * depth] + bias[filter]

            def at(name: str, image: int = image, filter: int = filter) -> np.ndarray:
                plane = image * int(args[f"{name}_image"]) + filter * int(args[f"{name}_plane"])
                return plane + row[:, :, 0] * int(args[f"{name}_row"]) + column[:, 0]

            residual = np.asarray(args["residual"])[at("r")] if self.epilogue.residual else None
            y[at("y")] = self.epilogue.reference(value, residual, self.epilogue.reference_parameter(args, filter))
