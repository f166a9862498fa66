"""Linear layers: outputs in the lanes of vectors, weights streamed once in the order they are stored, each vector used
for all rows of a tile.

With one row the layer is as fast as memory; more rows share what was loaded, four at a time. One or two rows that are
left over are a tile of their own. Weights may be stored in a narrower type than inputs, and become that of the inputs
as they are loaded. Where inputs are fp16, so are the sums of `BLOCK` inputs; those of the blocks are fp32.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.dense_work import pack_channels, pack_weight
from pcc.codegen.kernels.epilogue import Epilogue, channel_arrays
from pcc.codegen.kernels.linear_sparse import AHEAD
from pcc.codegen.kernels.runs import exact_run
from pcc.codegen.layers import Linear
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder, Together, View
from pcc.dtype import FLOAT32, INT32, REALS, DType, dtype_of

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder

VECTORS: dict[int, dict[int, int]] = {64: {1: 4, 4: 4}, 32: {1: 4, 4: 3}, 16: {1: 8, 4: 4}}
"""Vectors of outputs in a tile, by the size of vectors in bytes and rows of the tile."""

BLOCK = 64
"""Products that are added up in fp16: rounding then makes a sum of any depth an error of some 2^-9 of its largest terms
(measured; see tests)."""

FEW_ROWS = (1, 2)
"""Rows of a last tile that are not filled up to a whole one."""


@dataclass(frozen=True)
class LinearSchedule:
    """A tile of ``rows`` rows of the input times ``vectors`` vectors of outputs."""

    rows: int
    vectors: int

    def __str__(self) -> str:
        return f"tiles of {self.rows} rows x {self.vectors} vectors"

    def variants(self) -> Iterator["LinearSchedule"]:
        """Fewer outputs at a time."""
        yield from (replace(self, vectors=vectors) for vectors in range(1, self.vectors))


@dataclass(frozen=True)
class LinearFamily:
    """Dense linear layers; rows of ``x``, ``y`` and the residual may lie apart."""

    name: str = "linear"
    layer: type[Linear] = Linear
    format: WeightFormat = "dense"
    dtypes: tuple[DType, ...] = REALS

    def candidates(self, layer: Linear, machine: Machine) -> list[Candidate]:
        batch, depth = layer.x.shape
        outputs = layer.weight.shape[0]
        images = layer.images if batch == 1 else 1  # that share tiles
        rows = 1 if batch * layer.images == 1 else 4
        vectors, lanes = VECTORS[machine.isa.vector_bytes][rows], machine.isa.lanes(layer.x.dtype)
        tiles = -(-outputs // (vectors * lanes)) * -(-batch * images // rows)
        step = Work(fma=rows * vectors, loads=vectors, far=vectors, scalars=rows, branches=1)
        assert isinstance(layer.weight, np.ndarray)
        memory = machine.beyond(View("weight", (outputs, depth), (depth, 1), dtype=dtype_of(layer.weight.dtype)))
        together = (step * depth + Work(stores=rows * vectors)) * tiles + memory
        return [Candidate(LinearSchedule(rows, vectors), together * (1 / images))]

    def emit(self, layer: Linear, schedule: LinearSchedule, b: ProgramBuilder) -> None:
        batch, depth = layer.x.shape
        weight = layer.weight
        assert isinstance(weight, np.ndarray)
        outputs = weight.shape[0]
        kernel = LinearTile(
            schedule.rows,
            schedule.vectors,
            b.isa.lanes(layer.x.dtype),
            Epilogue(layer.residual is not None, layer.activation),
        )
        blocks, row_tiles = -(-outputs // kernel.run), -(-batch // schedule.rows)
        of_outputs = channel_arrays(layer, lambda values: pack_channels(values, 1, kernel.run))
        strides = {"x_row": "x", "y_row": "y", **({} if layer.residual is None else {"r_row": "residual"})}
        b.call(
            kernel,
            {
                "x": layer.x,
                "x_row": layer.x.strides[0],
                "w": b.packed(
                    f"{layer.name}.weight", weight[:, :, None, None], partial(pack_weight, groups=1, block=kernel.run)
                ),
                **b.named_constants(layer.name, of_outputs),
                "y": layer.y,
                "y_row": layer.y.strides[0],
                "batch": batch,
                "outputs": outputs,
                "depth": depth,
                "row_tiles": row_tiles,
                **residual_rows(layer),
            },
            work=blocks * row_tiles,
            macs=batch * weight.size,
            together=Together(schedule.rows, "batch", "row_tiles", strides) if batch == 1 < layer.images else None,
            arithmetic=layer.x.dtype,
        )


FAMILY = LinearFamily()


@dataclass(frozen=True)
class LinearTile:
    """Tiles of ``rows`` rows times ``vectors`` vectors of ``lanes`` outputs; items are (block of outputs, tile of
    rows), rows fastest."""

    rows: int
    vectors: int
    lanes: int
    epilogue: Epilogue

    @property
    def name(self) -> str:
        return f"pcc_linear_{self.rows}x{self.run}_{self.epilogue.symbol}"

    @property
    def params(self) -> tuple[Param, ...]:
        residual = (Param("residual", "f32*"),) if self.epilogue.residual else ()
        numbers = (
            "x_row",
            "y_row",
            *(["r_row"] if self.epilogue.residual else []),
            "batch",
            "outputs",
            "depth",
            "row_tiles",
        )
        pointers = (
            Param("x", "f32*"),
            Param("w", "f32*"),
            *self.epilogue.params,
            *residual,
            Param("y", "f32*", writes=True),
        )
        return *pointers, *(Param(name) for name in numbers)

    @property
    def run(self) -> int:
        """Outputs of a tile."""
        return self.vectors * self.lanes

    def body(self, k: "KernelBuilder") -> None:
        with k.work() as item:
            block, row_tile = k.divide(item, k["row_tiles"])
            first_row, first = k.let(row_tile * self.rows), k.let(block * self.run)
            if self.rows == 1:
                self._tile(k, 1, first_row, first)
                return
            left = k.let(k["batch"] - first_row)
            for rows in FEW_ROWS:
                with k.when(left == rows):
                    self._tile(k, rows, first_row, first)
            with k.when(left > max(FEW_ROWS)):
                self._tile(k, self.rows, first_row, first)

    def _tile(self, k: "KernelBuilder", tall: int, first_row: "Expr", first: "Expr") -> None:
        """``tall`` rows of outputs, as many of them as there are."""
        from tvm import tirx

        acc = k.local(tall * self.run, FLOAT32)
        # Rows past the last one repeat it.
        rows = [k.let(tirx.min(first_row + r, k["batch"] - 1)) for r in range(tall)]
        starts = [k.let(row * k["x_row"]) for row in rows]
        with k.computing_in(FLOAT32):
            for v in range(0, self.run, self.lanes):
                bias = k.let(k.load(k["bias"], first + v, self.lanes))
                for r in range(tall):
                    k.store(acc, r * self.run + v, bias, self.lanes)
        if k.real == FLOAT32:
            self._multiply(k, acc, starts, first, 0, k["depth"])
        else:
            self._multiply_by_blocks(k, acc, starts, first)
        with k.computing_in(FLOAT32):
            store_tile(k, self.epilogue, acc, rows, first, self.run)

    def _multiply(
        self, k: "KernelBuilder", acc: "Buffer", rows: list["Expr"], first: "Expr", begin: "Expr", end: "Expr"
    ) -> None:
        """acc += sum over the depth from ``begin`` to ``end`` of inputs times weights."""
        lanes = self.lanes
        start = k.let(k.wide(first * k["depth"]))
        with k.loop(k.wide(begin), k.wide(end)) as depth:
            k.ahead(k["w"], start + depth * self.run, AHEAD, self.run)
            inputs = [k.let(k.splat(k.load(k["x"], row + depth), lanes)) for row in rows]
            for v in range(0, self.run, lanes):
                weight = k.let(k.load(k["w"], start + depth * self.run + v, lanes))
                for r in range(len(rows)):
                    k.store(acc, r * self.run + v, k.load(acc, r * self.run + v, lanes) + weight * inputs[r], lanes)

    def _multiply_by_blocks(self, k: "KernelBuilder", acc: "Buffer", rows: list["Expr"], first: "Expr") -> None:
        """acc += the sums of blocks of the depth."""
        from tvm import tirx

        sums = k.local(len(rows) * self.run)
        with k.loop(0, k.divide(k["depth"] + (BLOCK - 1), BLOCK)[0]) as block:
            for place in range(0, len(rows) * self.run, self.lanes):
                k.store(sums, place, k.splat(0.0, self.lanes), self.lanes)
            begin = k.let(block * BLOCK)
            self._multiply(k, sums, rows, first, begin, k.let(tirx.min(begin + BLOCK, k["depth"])))
            for place in range(0, len(rows) * self.run, self.lanes):
                of_block = k.converted(k.load(sums, place, self.lanes), FLOAT32)
                k.store(acc, place, k.load(acc, place, self.lanes) + of_block, self.lanes)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        x, w, bias = (np.asarray(args[name]) for name in ("x", "w", "bias"))
        batch, outputs, depth, row_tiles = (int(args[name]) for name in ("batch", "outputs", "depth", "row_tiles"))
        for item in range(begin, end):
            block, row_tile = divmod(item, row_tiles)
            row = np.arange(row_tile * self.rows, min((row_tile + 1) * self.rows, batch))[:, None]
            output = np.arange(block * self.run, min((block + 1) * self.run, outputs))
            panel = w[block * depth * self.run : (block + 1) * depth * self.run].reshape(depth, self.run)
            value = x[row * int(args["x_row"]) + np.arange(depth)] @ panel[:, : output.size] + bias[output]
            store_reference(args, self.epilogue, value, row, output, output)


def residual_rows(layer: Linear) -> dict[str, View | int]:
    """The arguments that say where the residual lies, if there is one."""
    return {} if layer.residual is None else {"residual": layer.residual, "r_row": layer.residual.strides[0]}


def store_reference(
    args: Mapping[str, Argument],
    epilogue: Epilogue,
    value: np.ndarray,
    row: np.ndarray,
    output: np.ndarray,
    place: np.ndarray,
) -> None:
    """Sums (rows, outputs) through the epilogue to ``y``, on NumPy: of these rows, (rows, 1), and outputs, whose
    parameters lie at ``place``."""
    residual = np.asarray(args["residual"])[row * int(args["r_row"]) + output] if epilogue.residual else None
    parameter = epilogue.reference_parameter(args, place)
    np.asarray(args["y"])[row * int(args["y_row"]) + output] = epilogue.reference(value, residual, parameter)


def store_tile(
    k: "KernelBuilder", epilogue: Epilogue, sums: "Buffer", rows: list["Expr"], first: "Expr", run: int
) -> None:
    """``run`` neighbouring outputs, from ``first`` on, of each row through the epilogue to ``y``, as far as there are
    so many.

    ``sums`` (rows, run) are in registers. A row that is there twice is stored twice.
    """

    def store(value: "Expr", row: "Expr", output: "Expr", lanes: int) -> None:
        residual = k.load(k["residual"], row * k["r_row"] + output, lanes) if epilogue.residual else None
        value = epilogue.apply(k, value, residual, lanes, epilogue.parameter(k, output, lanes))
        k.store(k["y"], row * k["y_row"] + output, value, lanes)

    with k.when_else(first + run <= k["outputs"]) as (then, otherwise):
        with then:
            for r, row in enumerate(rows):
                for v in range(0, run, k.lanes):
                    store(k.load(sums, r * run + v, k.lanes), row, first + v, k.lanes)
        with otherwise:
            tile, rows_held = k.local(len(rows) * run), k.local(len(rows), INT32)
            for r, row in enumerate(rows):
                k.store(rows_held, r, row)
                for index in range(r * run, (r + 1) * run, k.lanes):
                    k.store(tile, index, k.load(sums, index, k.lanes), k.lanes)
            with k.loop(0, len(rows)) as r:
                row, held = k.let(k.load(rows_held, r)), k.let(r * run)
                exact_run(
                    k,
                    k.let(k["outputs"] - first),
                    lambda i, lanes: store(k.load(tile, held + i, lanes), row, first + i, lanes),
                )
