"""Sparse linear layers by bit masks: outputs in the lanes of vectors, and of each vector of weights only those that are
not zero are stored.

A mask says which of a vector's outputs keep a weight for an input; one instruction puts the weights that follow in
memory into their lanes. That costs the same at every density, and a bit for each weight of the dense layer, so it is
for the densities between lists and the dense kernel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.dense_work import pack_channels
from pcc.codegen.kernels.epilogue import Epilogue, channel_arrays
from pcc.codegen.kernels.linear import residual_rows, store_reference, store_tile
from pcc.codegen.kernels.linear_sparse import AHEAD, csr_of, memory_work
from pcc.codegen.layers import Linear
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import FLOAT32, INT32, DType
from pcc.sparsity.csr import Csr

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder

ROWS = (1, 4, 8)
"""Rows of the input that may share a tile."""

LANES = 16
"""Outputs of a vector: two masks are an int32."""

_MASK = (1 << LANES) - 1


@dataclass(frozen=True)
class LinearExpandSchedule:
    """Tiles of ``rows`` rows of the input times one vector of outputs."""

    rows: int

    def __str__(self) -> str:
        return f"tiles of {self.rows} rows x 1 vector"


@dataclass(frozen=True)
class LinearSparseExpandFamily:
    """Sparse linear layers, whatever their zeros; rows of ``x``, ``y`` and the residual may lie apart."""

    name: str = "linear-sparse-expand"
    layer: type[Linear] = Linear
    format: WeightFormat = "csr"
    dtypes: tuple[DType, ...] = (FLOAT32,)

    def candidates(self, layer: Linear, machine: Machine) -> list[Candidate] | str:
        if not machine.isa.expands or machine.isa.lanes(FLOAT32) != LANES:
            return f"{machine.isa.name} has no instruction that spreads weights over lanes by a mask of {LANES} bits"
        csr, batch = csr_of(layer), layer.x.shape[0]
        blocks = -(-csr.shape[0] // LANES)
        memory = memory_work(csr.weight.nbytes + blocks * csr.columns * LANES // 8, machine)
        found = []
        for rows in (rows for rows in ROWS if rows == 1 or rows <= batch):
            column = Work(fma=rows, crossing=1, scalars=2 + rows, branches=1 / 2)  # a mask is read and counted
            tile = column * csr.columns + Work(stores=rows)
            found.append(Candidate(LinearExpandSchedule(rows), tile * (blocks * -(-batch // rows)) + memory))
        return found

    def emit(self, layer: Linear, schedule: LinearExpandSchedule, b: ProgramBuilder) -> None:
        csr, batch = csr_of(layer), layer.x.shape[0]
        outputs, row_tiles, tables = csr.shape[0], -(-batch // schedule.rows), masks_of(csr)
        b.call(
            LinearSparseExpand(schedule.rows, Epilogue(layer.residual is not None, layer.activation)),
            {
                "x": layer.x,
                "x_row": layer.x.strides[0],
                "starts": b.table(f"{layer.name}.starts", tables.starts),
                "masks": b.constant(f"{layer.name}.masks", tables.masks),
                "w": b.constant(f"{layer.name}.weight", tables.weight),
                **b.named_constants(layer.name, channel_arrays(layer, lambda values: pack_channels(values, 1, LANES))),
                "y": layer.y,
                "y_row": layer.y.strides[0],
                "batch": batch,
                "outputs": outputs,
                "depth": csr.columns,
                "row_tiles": row_tiles,
                **residual_rows(layer),
            },
            work=len(tables.masks) * row_tiles,
            macs=batch * len(csr.weight),
            dense_macs=batch * outputs * csr.columns,
        )


FAMILY = LinearSparseExpandFamily()


# ---- the weight ----


@dataclass(frozen=True)
class Masks:
    """A weight as `LinearSparseExpand` reads it: B blocks of `LANES` outputs, K inputs."""

    starts: np.ndarray
    """int64 (B,): where each block's weights start."""
    masks: np.ndarray
    """int32 (B, ceil(K / 2)): of two neighbouring inputs, the lower bits of the first one, a bit for each output that
    keeps it."""
    weight: np.ndarray
    """(N,): kept weights by block, input and output."""


def masks_of(csr: Csr) -> Masks:
    """The masks of a weight, and its kept weights in their order."""
    blocks = -(-csr.shape[0] // LANES)
    row = np.repeat(np.arange(csr.shape[0]), np.diff(csr.offset))
    place = (row // LANES) * csr.columns + csr.index
    order = np.argsort(place, kind="stable")
    bits = (
        np.bincount(place, (1 << row % LANES).astype(float), minlength=blocks * csr.columns)
        .astype(np.uint16)
        .reshape(blocks, csr.columns)
    )
    masks = np.zeros((blocks, csr.columns + csr.columns % 2), np.uint16)
    masks[:, : csr.columns] = bits
    return Masks(csr.offset[:-1:LANES].astype(np.int64), masks.view(INT32.numpy), csr.weight[order])


# ---- the kernel ----


@dataclass(frozen=True)
class LinearSparseExpand:
    """Tiles of ``rows`` rows times `LANES` outputs; items are (block of outputs, tile of rows), rows fastest."""

    rows: int
    epilogue: Epilogue

    @property
    def name(self) -> str:
        return f"pcc_linear_sparse_expand_{self.rows}_{self.epilogue.symbol}"

    @property
    def params(self) -> tuple[Param, ...]:
        residual = (Param("residual", "f32*"), Param("r_row")) if self.epilogue.residual else ()
        tables = (Param("starts", "i32*"), Param("masks", "i32*"), Param("w", "f32*"), *self.epilogue.params)
        numbers = ("x_row", "y_row", "batch", "outputs", "depth", "row_tiles")
        return (
            Param("x", "f32*"),
            *tables,
            Param("y", "f32*", writes=True),
            *(Param(name) for name in numbers),
            *residual,
        )

    def body(self, k: "KernelBuilder") -> None:
        from tvm import tirx

        with k.work() as item:
            block, row_tile = k.divide(item, k["row_tiles"])
            # Rows past the last one repeat it.
            rows = [k.let(tirx.min(row_tile * self.rows + r, k["batch"] - 1)) for r in range(self.rows)]
            first = k.let(block * LANES)
            sums = self._multiply(k, block, [k.pointer(k["x"], row * k["x_row"]) for row in rows], first)
            store_tile(k, self.epilogue, sums, rows, first, LANES)

    def _multiply(self, k: "KernelBuilder", block: "Expr", inputs: list["Buffer"], first: "Expr") -> "Buffer":
        """Bias + sum over depth of inputs times weights, summed apart for even and odd inputs: one multiply-add need
        not wait for the one before."""
        from tvm import tirx

        sums, odd, at = k.local(self.rows * LANES), k.local(self.rows * LANES), k.local(1, INT32)
        bias = k.let(k.load(k["bias"], first, LANES))
        for r in range(self.rows):
            k.store(sums, r * LANES, bias, LANES)
            k.store(odd, r * LANES, k.splat(0.0, LANES), LANES)
        k.store(at, 0, tirx.const(0, INT32.tir()))
        pairs = k.let(k["depth"] // 2)
        masks = k.pointer(k["masks"], block * k.let((k["depth"] + 1) // 2))
        weights = k.pointer(k["w"], k.load(k["starts"], block))

        def column(acc: "Buffer", mask: "Expr", index: "Expr") -> None:
            start = k.let(k.load(at, 0))
            weight = k.let(k.expand(weights, start, mask, LANES))
            k.store(at, 0, start + tirx.popcount(mask))
            for r, x in enumerate(inputs):
                k.store(
                    acc, r * LANES, k.load(acc, r * LANES, LANES) + weight * k.splat(k.load(x, index), LANES), LANES
                )

        with k.loop(0, pairs) as pair:
            both = k.let(k.load(masks, pair))
            k.ahead(weights, k.load(at, 0), AHEAD, 1)
            column(sums, k.let(both & _MASK), pair * 2)
            column(odd, k.let((both >> LANES) & _MASK), pair * 2 + 1)
        with k.when(k["depth"] % 2 == 1):
            column(sums, k.let(k.load(masks, pairs) & _MASK), k["depth"] - 1)
        for r in range(0, self.rows * LANES, LANES):
            k.store(sums, r, k.load(sums, r, LANES) + k.load(odd, r, LANES), LANES)
        return sums

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        x, starts, masks, w, bias = (np.asarray(args[name]) for name in ("x", "starts", "masks", "w", "bias"))
        batch, outputs, depth, row_tiles = (int(args[name]) for name in ("batch", "outputs", "depth", "row_tiles"))
        pairs = -(-depth // 2)
        for item in range(begin, end):
            block, row_tile = divmod(item, row_tiles)
            row = np.arange(row_tile * self.rows, min((row_tile + 1) * self.rows, batch))[:, None]
            output = np.arange(block * LANES, min((block + 1) * LANES, outputs))
            both = masks[block * pairs : (block + 1) * pairs]
            kept = (both[:, None] >> np.arange(2 * LANES) & 1).astype(bool).reshape(-1, LANES)[:depth]
            weight = np.zeros((depth, LANES), np.float32)
            weight[kept] = w[starts[block] : starts[block] + kept.sum()]
            value = x[row * int(args["x_row"]) + np.arange(depth)] @ weight[:, : output.size] + bias[output]
            store_reference(args, self.epilogue, value, row, output, output)
