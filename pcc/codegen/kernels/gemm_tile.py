"""The inner loop of a matrix product: a tile of filters times vectors stays in registers while the depth of the sum passes by.

Both operands are packed in the order in which the loop reads them, so that it only steps two pointers: each step loads ``vectors`` vectors of one operand
and multiplies them by ``filters`` numbers of the other, spread over a vector or, on NEON, by lane.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pcc.dtype import FLOAT32

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder


@dataclass(frozen=True)
class GemmTile:
    """``filters`` x ``vectors`` accumulators."""

    filters: int
    vectors: int

    def __str__(self) -> str:
        return f"{self.filters} filters x {self.vectors} vectors"

    def multiply(self, k: "KernelBuilder", weights: "Buffer", values: "Buffer", depth: "Expr", sums: "Buffer") -> None:
        """``sums`` (filters, vectors, lanes) = ``weights`` (depth, filters) transposed times ``values`` (depth, vectors, lanes)."""
        lanes = k.lanes
        for place in range(self.filters * self.vectors):
            k.store(sums, place * lanes, k.splat(0.0, lanes), lanes)
        by_lane = k.isa.multiply_add(FLOAT32).by_lane and self.filters % lanes == 0
        with k.loop(k.wide(0), k.wide(depth)) as step:
            vectors = [k.let(k.load(values, (step * self.vectors + v) * lanes, lanes)) for v in range(self.vectors)]
            quads = [k.let(k.load(weights, step * self.filters + f, lanes)) for f in range(0, self.filters, lanes)] if by_lane else []
            for f in range(self.filters):
                weight = k.lane(quads[f // lanes], f % lanes, lanes) if by_lane else k.let(k.splat(k.load(weights, step * self.filters + f), lanes))
                for v, vector in enumerate(vectors):
                    place = (f * self.vectors + v) * lanes
                    k.store(sums, place, k.load(sums, place, lanes) + weight * vector, lanes)
