"""The end of detectors."""

from typing import Any

import torch

from pcc.frontend.onnx.emitter import Emitter, Refused, Value, number, shape
from pcc.frontend.onnx.rule import Rule
from pcc.frontend.onnx.rules.arithmetic import convert
from pcc.ir.ops import NMS, SCATTER

_aten: Any = torch.ops.aten


def non_max_suppression(
    emit: Emitter,
    boxes: Value,
    scores: Value,
    most: Value | None = None,
    overlap: Value | None = None,
    threshold: Value | None = None,
    *,
    center_point_box: int = 0,
) -> Value:
    """Rows (image, class, box) of the boxes that stay. Where ONNX has as many rows as there are, the model gives all that there could be: those that are
    none come last and hold -1; their number without these is an output more, ``NAME.count``.

    boxes (B, N, 4): two opposite corners (y, x), or centre (x, y) and size; scores (B, C, N).
    """
    (batch, classes, size), limit = shape(scores), int(number(most, "its number of boxes is")) if most is not None else 0
    count = min(limit, size)
    if count < 1:
        raise Refused(f"max_output_boxes_per_class={limit}, so that no box would ever stay")
    sides = emit.call(_aten.transpose.int, boxes, 1, 2)
    a, b = (emit.call(_aten.slice.Tensor, sides, 1, begin, begin + 2) for begin in (0, 2))
    if center_point_box:
        half = emit.call(_aten.mul.Tensor, b, 0.5)
        low, high = emit.call(_aten.sub.Tensor, a, half), emit.call(_aten.add.Tensor, a, half)
    else:
        low, high = emit.call(_aten.minimum.default, a, b), emit.call(_aten.maximum.default, a, b)
    most_overlap, least_score = (
        default if value is None else float(number(value, f"its {what} is"))
        for value, what, default in ((overlap, "IoU threshold", 0.0), (threshold, "score threshold", float("-inf")))
    )
    chosen = emit.call(NMS, emit.call(_aten.cat.default, [low, high], 1), scores, count, most_overlap, least_score)
    rows = batch * classes * count
    flat = emit.call(_aten.reshape.default, chosen, [1, rows])
    stays = emit.call(_aten.ge.Scalar, flat, 0)
    place = emit.call(_aten.sub.Tensor, emit.call(_aten.cumsum.default, convert(emit, stays, torch.float32), 1), 1.0)
    place = emit.call(_aten.where.self, stays, place, torch.tensor(float(rows)))  # the others into a row behind
    numbers = torch.arange(batch * classes, dtype=torch.float32).repeat_interleave(count)
    table = torch.stack([numbers // classes, numbers % classes])
    values = emit.call(_aten.cat.default, [table, flat], 0)
    moved = emit.call(SCATTER, torch.full((3, rows + 1), -1.0), emit.call(_aten.expand.default, place, [3, rows]), values, "set")
    emit.more_outputs[f"{emit.name}.count"] = emit.call(_aten.reshape.default, emit.call(_aten.sum.dim_IntList, stays, [1]), [1])
    found = emit.call(_aten.transpose.int, emit.call(_aten.slice.Tensor, moved, 1, 0, rows), 0, 1)
    return convert(emit, found, torch.int64)


RULES: dict[str, Rule] = {"NonMaxSuppression": non_max_suppression}
