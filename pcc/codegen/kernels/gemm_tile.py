"""The inner loop of a matrix product: a tile of filters times vectors stays in registers while the depth of the sum
passes by.

Both operands are packed in the order in which the loop reads them, so that it only steps two pointers: each step loads
``vectors`` vectors of one operand and multiplies them by ``filters`` numbers of the other, spread over a vector or, on
NEON, by lane.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pcc.codegen.program import line_elements
from pcc.dtype import FLOAT32

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder

STEPS = 8
"""Of the depth in an iteration: pairs of loads become one instruction on NEON, and loop ends are fewer."""

AHEAD, FAR_AHEAD = 1024, 12288
"""Bytes from which on weights are asked for into the L1 and into the L2 cache: from behind the L2 cache they take
longer than the few requests of an L1 cache wait, and what is asked for early is lost from there (512->512 at 14x14 on
AVX-512: 3.7 ms by one request 4096 bytes ahead, 2.4 ms by both)."""


@dataclass(frozen=True)
class GemmTile:
    """``filters`` x ``vectors`` accumulators."""

    filters: int
    vectors: int
    prefetch: bool = False
    """Whether the weights come from behind the L2 cache, and are asked for ahead."""

    def __str__(self) -> str:
        return f"{self.filters} filters x {self.vectors} vectors" + (", prefetch" if self.prefetch else "")

    @property
    def symbol(self) -> str:
        """Part of a kernel's C name."""
        return f"{self.filters}x{self.vectors}" + ("_ahead" if self.prefetch else "")

    def multiply(self, k: "KernelBuilder", weights: "Buffer", values: "Buffer", depth: "Expr", sums: "Buffer") -> None:
        """``sums`` (filters, vectors, lanes) = ``weights`` (depth, filters) transposed times ``values`` (depth,
        vectors, lanes)."""
        for place in range(self.filters * self.vectors):
            k.store(sums, place * k.lanes, k.splat(0.0, k.lanes), k.lanes)
        iterations = k.let(depth // STEPS)
        with k.loop(k.wide(0), k.wide(iterations)) as iteration:
            if self.prefetch:
                for element in range(0, STEPS * self.filters, line_elements(FLOAT32)):
                    at = iteration * (STEPS * self.filters) + element
                    k.prefetch(weights, at + AHEAD // FLOAT32.bytes, write=False)
                    k.prefetch(weights, at + FAR_AHEAD // FLOAT32.bytes, write=False, soon=False)
            for step in range(STEPS):
                self._step(k, weights, values, iteration * STEPS + step, sums)
        with k.loop(k.wide(iterations * STEPS), k.wide(depth)) as step:
            self._step(k, weights, values, step, sums)

    def _step(self, k: "KernelBuilder", weights: "Buffer", values: "Buffer", step: "Expr", sums: "Buffer") -> None:
        """Adds the products of one place of the depth."""
        lanes = k.lanes
        by_lane = k.isa.multiply_add(FLOAT32).by_lane and self.filters % lanes == 0
        vectors = [k.let(k.load(values, (step * self.vectors + v) * lanes, lanes)) for v in range(self.vectors)]
        quads = (
            [k.let(k.load(weights, step * self.filters + f, lanes)) for f in range(0, self.filters, lanes)]
            if by_lane
            else []
        )
        for f in range(self.filters):
            weight = (
                k.lane(quads[f // lanes], f % lanes, lanes)
                if by_lane
                else k.let(k.splat(k.load(weights, step * self.filters + f), lanes))
            )
            for v, vector in enumerate(vectors):
                place = (f * self.vectors + v) * lanes
                k.store(sums, place, k.load(sums, place, lanes) + weight * vector, lanes)
