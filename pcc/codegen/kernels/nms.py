"""Greedy non-maximum suppression: again and again the best box that is left, which takes those away that overlap it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import math
from pcc.codegen.kernels.runs import exact_run
from pcc.codegen.program import ProgramBuilder, View
from pcc.dtype import FLOAT32, INT32

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder

SIDES = 4
"""Numbers of a box."""


def emit_nms(
    b: ProgramBuilder, y: View, boxes: View, scores: View, count: int, overlap: float, threshold: float
) -> None:
    """``y = nms(boxes, scores)``, see ``pcc::nms``."""
    batch, classes, size = scores.shape
    left = b.thread_tensor("left", (size,))
    numbers = {"classes": classes, "size": size, "count": count, "overlap": overlap, "threshold": threshold}
    b.call(SuppressBoxes(), {"boxes": boxes, "scores": scores, "left": left, "y": y, **numbers}, work=batch * classes)


@dataclass(frozen=True)
class SuppressBoxes:
    """Items are (image, class); ``left`` has the scores of the boxes that are left, minus infinity for the others."""

    @property
    def name(self) -> str:
        return "pcc_nms"

    @property
    def params(self) -> tuple[Param, ...]:
        pointers = (
            Param("boxes", "f32*"),
            Param("scores", "f32*"),
            Param("left", "f32*", writes=True),
            Param("y", "f32*", writes=True),
        )
        return (
            *pointers,
            Param("classes"),
            Param("size"),
            Param("count"),
            Param("overlap", "f32"),
            Param("threshold", "f32"),
        )

    def body(self, k: "KernelBuilder") -> None:
        from tvm import tirx

        none, left = float("-inf"), k["left"]
        best, best_place, score, place = k.local(1), k.local(1), k.local(k.lanes), k.local(k.lanes)
        lane = k.local(k.lanes)
        with k.work() as item:
            for number in range(k.lanes):
                k.store(lane, number, math.constant(k, float(number), 1))
            start, box = k.let(item * k["size"]), k.let(item // k["classes"] * (SIDES * k["size"]))

            def take(i: "Expr", lanes: int) -> None:
                value = k.let(k.load(k["scores"], start + i, lanes))
                k.store(
                    left,
                    i,
                    math.select(k, value > k.splat(k["threshold"], lanes), value, math.constant(k, none, lanes)),
                    lanes,
                )

            exact_run(k, k["size"], take)
            with k.loop(0, k["count"]) as rank:
                # The best of each lane, then of all: of equal scores the first box.
                k.store(score, 0, math.constant(k, none, k.lanes), k.lanes)
                k.store(place, 0, math.constant(k, -1.0, k.lanes), k.lanes)

                def compare(i: "Expr", lanes: int) -> None:
                    value, held = k.let(k.load(left, i, lanes)), k.let(k.load(score, 0, lanes))
                    at = k.splat(tirx.Cast(FLOAT32.tir(), i), lanes) + k.load(lane, 0, lanes)
                    k.store(place, 0, math.select(k, value > held, at, k.load(place, 0, lanes)), lanes)
                    k.store(score, 0, math.select(k, value > held, value, held), lanes)

                exact_run(k, k["size"], compare)
                k.store(best, 0, math.constant(k, none, 1))
                k.store(best_place, 0, math.constant(k, -1.0, 1))
                with k.loop(0, k.lanes) as number:
                    value, at = k.let(k.load(score, number)), k.let(k.load(place, number))
                    with k.when(
                        tirx.Or(
                            value > k.load(best, 0),
                            tirx.And(tirx.EQ(value, k.load(best, 0)), at < k.load(best_place, 0)),
                        )
                    ):
                        k.store(best, 0, value)
                        k.store(best_place, 0, at)
                chosen = k.let(k.load(best_place, 0))
                k.store(k["y"], item * k["count"] + rank, chosen)
                with k.when(chosen >= math.constant(k, 0.0, 1)):
                    self._suppress(k, box, k.let(tirx.Cast(INT32.name, chosen)))

    def _suppress(self, k: "KernelBuilder", box: "Expr", chosen: "Expr") -> None:
        """Takes the chosen box away, and what overlaps it."""
        left, size = k["left"], k["size"]
        sides = [k.let(k.load(k["boxes"], box + side * size + chosen)) for side in range(4)]
        area = k.let((sides[2] - sides[0]) * (sides[3] - sides[1]))

        def keep(i: "Expr", lanes: int) -> None:
            top, first, bottom, last = (k.let(k.load(k["boxes"], box + side * size + i, lanes)) for side in range(4))
            edges = [k.splat(side, lanes) for side in sides]
            zero, none = math.constant(k, 0.0, lanes), math.constant(k, float("-inf"), lanes)
            height = math.minimum(k, bottom, edges[2]) - math.maximum(k, top, edges[0])
            width = math.minimum(k, last, edges[3]) - math.maximum(k, first, edges[1])
            shared = k.let(math.maximum(k, height, zero) * math.maximum(k, width, zero))
            whole = k.splat(area, lanes) + (bottom - top) * (last - first) - shared
            k.store(
                left,
                i,
                math.select(k, k.let(shared / whole) > k.splat(k["overlap"], lanes), none, k.load(left, i, lanes)),
                lanes,
            )

        exact_run(k, size, keep)
        k.store(left, chosen, math.constant(k, float("-inf"), 1))

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        classes, size, count = (int(args[name]) for name in ("classes", "size", "count"))  # type: ignore[arg-type]
        boxes, scores, y = (np.asarray(args[name]) for name in ("boxes", "scores", "y"))
        for item in range(begin, end):
            sides = boxes[item // classes * SIDES * size :][: SIDES * size].reshape(SIDES, size)
            y[item * count :][:count] = suppressed(
                sides, scores[item * size :][:size], count, float(args["overlap"]), float(args["threshold"])
            )  # type: ignore[arg-type]


def suppressed(sides: np.ndarray, scores: np.ndarray, count: int, overlap: float, threshold: float) -> np.ndarray:
    """The places of the boxes that stay, -1 behind the last one; ``sides`` (4, N): top, left, bottom, right."""
    left, chosen = np.where(scores > np.float32(threshold), scores, -np.inf), np.full(count, -1.0, np.float32)
    areas = (sides[2] - sides[0]) * (sides[3] - sides[1])
    for rank in range(count):
        best = int(np.argmax(left))
        if left[best] == -np.inf:
            break
        chosen[rank] = best
        low, high = np.maximum(sides[:2], sides[:2, best : best + 1]), np.minimum(sides[2:], sides[2:, best : best + 1])
        shared = np.prod(np.maximum(high - low, 0), axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            left[shared / (areas + areas[best] - shared) > np.float32(overlap)] = -np.inf
        left[best] = -np.inf
    return chosen
