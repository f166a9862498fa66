"""Greedy non-maximum suppression: again and again the best box that is left, which takes those away that overlap it.
An item is a class of an image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.nms import SIDES, suppressed
from pcc.codegen.opencl.kernels.numbers import numbers, of_numbers, place, tensor, whole_numbers
from pcc.codegen.opencl.work_group import range_over
from pcc.codegen.program import View
from pcc.codegen.range import Range
from pcc.dtype import FLOAT32

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder, Expr
    from pcc.codegen.opencl.program import DeviceProgramBuilder


def emit_nms(
    b: "DeviceProgramBuilder", y: View, boxes: View, scores: View, count: int, overlap: float, threshold: float
) -> None:
    """``y = nms(boxes, scores)``, see ``pcc::nms``."""
    batch, classes, size = scores.shape
    tensors = {"boxes": boxes, "scores": scores, "y": y}
    offsets = {f"{name}_offset": view.offset for name, view in tensors.items()}
    left = b.tensor(f"{b.node}.left", scores.shape)
    limits = b.constant(f"{b.node}.limits", np.array([overlap, threshold], np.float32))
    sizes = {"items": batch * classes, "classes": classes, "size": size, "count": count}
    b.call(
        SuppressBoxes(),
        {**tensors, "left": left, "limits": limits, **offsets, **sizes},
        range_over((batch * classes, 1, 1)),
    )


@dataclass(frozen=True)
class SuppressBoxes:
    """``left`` has the scores of the boxes that are left, minus infinity for the others; ``limits`` the overlap and the
    score from which on boxes count."""

    arithmetic = FLOAT32

    @property
    def name(self) -> str:
        return "pcc_nms"

    @property
    def params(self) -> tuple[Param, ...]:
        read = (tensor(name, FLOAT32) for name in ("boxes", "scores", "limits"))
        written = (tensor(name, FLOAT32, writes=True) for name in ("left", "y"))
        offsets = ("boxes_offset", "scores_offset", "y_offset")
        return *read, *written, *numbers(*offsets, "items", "classes", "size", "count")

    def body(self, k: "DeviceKernelBuilder") -> None:
        k = of_numbers(k)
        none = k.splat(float("-inf"))
        item, _, _ = place(k, k["items"], 1)
        start = k.let(item * k["size"])
        image, _ = k.divide(item, k["classes"])
        box = k.let(k["boxes_offset"] + image * (SIDES * k["size"]))
        overlap, threshold = k.load(k["limits"], 0), k.load(k["limits"], 1)
        with k.loop(k["size"]) as i:
            score = k.load(k["scores"], k["scores_offset"] + start + i)
            k.store(k["left"], start + i, k.select(score > threshold, score, none))
        best, best_place = k.variable(none), k.variable(k.let(start))
        with k.loop(k["count"]) as rank:
            best.value = none
            with k.loop(k["size"]) as i:
                score = k.load(k["left"], start + i)
                with k.when_all(score > best.value):
                    best.value, best_place.value = score, i
            is_left = best.value > none
            at = k["y_offset"] + item * k["count"] + rank
            k.store(k["y"], at, k.let(k.select(is_left, k.number(best_place.value), k.splat(-1.0))))
            with k.when_all(is_left):
                self._suppress(k, box, start, k.let(best_place.value), overlap)

    def _suppress(self, k: "DeviceKernelBuilder", box: "Expr", start: "Expr", chosen: "Expr", overlap: "Expr") -> None:
        """Takes the chosen box away, and what overlaps it."""

        def sides(i: "Expr") -> "list[Expr]":
            return [k.load(k["boxes"], box + side * k["size"] + i) for side in range(SIDES)]

        top, first, bottom, last = sides(chosen)
        area, zero = k.let((bottom - top) * (last - first)), k.splat(0.0)
        with k.loop(k["size"]) as i:
            other_top, other_first, other_bottom, other_last = sides(i)
            height = k.larger(k.smaller(other_bottom, bottom) - k.larger(other_top, top), zero)
            width = k.larger(k.smaller(other_last, last) - k.larger(other_first, first), zero)
            shared = k.let(height * width)
            whole = area + (other_bottom - other_top) * (other_last - other_first) - shared
            with k.when_all(k.let(shared / whole) > overlap):
                k.store(k["left"], start + i, k.splat(float("-inf")))
        k.store(k["left"], start + chosen, k.splat(float("-inf")))

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n, (overlap, threshold) = whole_numbers(args), np.asarray(args["limits"])[:2]
        boxes, scores, y = (np.asarray(args[name])[n[f"{name}_offset"] :] for name in ("boxes", "scores", "y"))
        for item in np.arange(n["items"]):
            sides = boxes[item // n["classes"] * SIDES * n["size"] :][: SIDES * n["size"]].reshape(SIDES, n["size"])
            y[item * n["count"] :][: n["count"]] = suppressed(
                sides, scores[item * n["size"] :][: n["size"]], n["count"], float(overlap), float(threshold)
            )
