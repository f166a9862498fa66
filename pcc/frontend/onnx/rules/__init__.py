"""The rules, a family a file; `TABLE` has them all by operator."""

from pcc.frontend.onnx.rule import Rule
from pcc.frontend.onnx.rules import (
    arithmetic,
    detection,
    indexing,
    layers,
    moves,
    normalization,
    pooling,
    recurrent,
    reductions,
    resize,
    shapes,
)

TABLE: dict[str, Rule] = {}
for _family in (
    arithmetic,
    detection,
    indexing,
    layers,
    moves,
    normalization,
    pooling,
    recurrent,
    reductions,
    resize,
    shapes,
):
    TABLE.update(_family.RULES)
