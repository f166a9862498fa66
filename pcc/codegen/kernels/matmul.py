"""Products of two computed matrices: as `linear`, but for the right side, which is read where it lies instead of packed
beforehand.

A tile is some rows of ``a`` times some vectors of columns of ``b``; each vector of ``b`` that is loaded is used for all
rows of the tile.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import READ_SLACK, Argument, Param
from pcc.codegen.kernels.runs import exact_run
from pcc.codegen.layers import MatMul
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import FLOAT32

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder

TILES: dict[int, tuple[int, int]] = {16: (4, 4), 8: (4, 2), 4: (4, 4)}
"""(rows, vectors) of a tile, by lanes: accumulators, a row of ``b`` and the values of ``a`` fit the registers."""
ITEM_MACS = 1 << 20


def emit_matmul(layer: MatMul, b: ProgramBuilder) -> None:
    """``y = a @ b``."""
    (_, rows, depth), (batch, _, columns) = layer.a.shape, layer.y.shape
    lanes = b.isa.lanes(FLOAT32)
    most, vectors = TILES[lanes]
    vectors = min(vectors, -(-columns // lanes))
    kernel = MatMulTile(min(most, rows), vectors, lanes)
    tiles = -(-rows // kernel.rows)
    tiles_per_item = max(1, min(tiles, ITEM_MACS // (kernel.rows * kernel.run * depth)))
    blocks = -(-columns // kernel.run)
    b.call(
        kernel,
        {
            "a": layer.a,
            "b": layer.b,
            "y": layer.y,
            "a_batch": layer.a.batch_stride,
            "a_row": layer.a.strides[1],
            "b_batch": layer.b.batch_stride,
            "b_row": layer.b.strides[1],
            "y_batch": layer.y.strides[0],
            "y_row": layer.y.strides[1],
            "rows": rows,
            "columns": columns,
            "depth": depth,
            "blocks": blocks,
            "tiles": tiles,
            "tiles_per_item": tiles_per_item,
        },
        work=batch * blocks * -(-tiles // tiles_per_item),
        macs=batch * rows * columns * depth,
    )


@dataclass(frozen=True)
class MatMulTile:
    """Tiles of ``rows`` rows times ``vectors`` vectors of columns; items are (matrix, block of columns, run of row
    tiles), row tiles fastest."""

    rows: int
    vectors: int
    lanes: int

    @property
    def name(self) -> str:
        return f"pcc_matmul_{self.rows}x{self.run}"

    @property
    def params(self) -> tuple[Param, ...]:
        strides = ("a_batch", "a_row", "b_batch", "b_row", "y_batch", "y_row")
        sizes = ("rows", "columns", "depth", "blocks", "tiles", "tiles_per_item")
        return (
            Param("a", "f32*"),
            Param("b", "f32*"),
            Param("y", "f32*", writes=True),
            *(Param(name) for name in (*strides, *sizes)),
        )

    @property
    def run(self) -> int:
        """Columns of a tile; reading them past the last column stays within `READ_SLACK`."""
        assert self.vectors * self.lanes * FLOAT32.bytes <= READ_SLACK
        return self.vectors * self.lanes

    def body(self, k: "KernelBuilder") -> None:
        from tvm import tirx

        acc, tile = k.local(self.rows * self.run), k.local(self.rows * self.run)
        with k.work() as item:
            chunks = k.let((k["tiles"] + (k["tiles_per_item"] - 1)) // k["tiles_per_item"])
            rest, chunk = k.divide(item, chunks)
            matrix, block = k.divide(rest, k["blocks"])
            first = k.let(block * self.run)
            b_at = k.let(matrix * k["b_batch"] + first)
            start = k.let(chunk * k["tiles_per_item"])
            with k.loop(start, k.let(tirx.min(start + k["tiles_per_item"], k["tiles"]))) as row_tile:
                # Rows past the last one repeat it.
                rows = [k.let(tirx.min(row_tile * self.rows + r, k["rows"] - 1)) for r in range(self.rows)]
                self._multiply(k, acc, [k.let(matrix * k["a_batch"] + row * k["a_row"]) for row in rows], b_at)
                y_at = k.let(matrix * k["y_batch"] + first)
                with k.when_else(first + self.run <= k["columns"]) as (then, otherwise):
                    with then:
                        for r, row in enumerate(rows):
                            for v in range(0, self.run, self.lanes):
                                k.store(
                                    k["y"],
                                    y_at + row * k["y_row"] + v,
                                    k.load(acc, r * self.run + v, self.lanes),
                                    self.lanes,
                                )
                    with otherwise:
                        for index in range(0, self.rows * self.run, self.lanes):
                            k.store(tile, index, k.load(acc, index, self.lanes), self.lanes)
                        with k.loop(0, tirx.min(self.rows, k["rows"] - row_tile * self.rows)) as r:
                            row_at = k.let(y_at + (row_tile * self.rows + r) * k["y_row"])
                            held = k.let(r * self.run)
                            exact_run(
                                k,
                                k.let(k["columns"] - first),
                                lambda i, lanes: k.store(k["y"], row_at + i, k.load(tile, held + i, lanes), lanes),
                            )

    def _multiply(self, k: "KernelBuilder", acc: "Buffer", rows: "list[Expr]", b_at: "Expr") -> None:
        lanes = self.lanes
        for index in range(0, self.rows * self.run, lanes):
            k.store(acc, index, k.splat(0.0, lanes), lanes)
        # Pointers, so that a row costs the loop one register.
        left, right = [k.pointer(k["a"], row) for row in rows], k.pointer(k["b"], b_at)
        with k.loop(k.wide(0), k.wide(k["depth"])) as depth:
            inputs = [k.let(k.splat(k.load(row, depth), lanes)) for row in left]
            for v in range(0, self.run, lanes):
                value = k.let(k.load(right, depth * k.wide(k["b_row"]) + v, lanes))
                for r in range(self.rows):
                    k.store(acc, r * self.run + v, k.load(acc, r * self.run + v, lanes) + value * inputs[r], lanes)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        a, b, y = (np.asarray(args[name]) for name in ("a", "b", "y"))
        n = {key: int(value) for key, value in args.items() if isinstance(value, int)}
        chunks = -(-n["tiles"] // n["tiles_per_item"])
        for item in range(begin, end):
            rest, chunk = divmod(item, chunks)
            matrix, block = divmod(rest, n["blocks"])
            first, last = (min(n["rows"], (chunk + more) * n["tiles_per_item"] * self.rows) for more in (0, 1))
            row, depth = np.arange(first, last)[:, None], np.arange(n["depth"])
            column = np.arange(block * self.run, min((block + 1) * self.run, n["columns"]))
            left = a[matrix * n["a_batch"] + row * n["a_row"] + depth]
            y[matrix * n["y_batch"] + row * n["y_row"] + column] = (
                left @ b[matrix * n["b_batch"] + depth[:, None] * n["b_row"] + column]
            )
