"""The rules, a family a file; `TABLE` has them all by operator."""

from pcc.frontend.onnx.rule import Rule
from pcc.frontend.onnx.rules import arithmetic, indexing, layers, moves, normalization, pooling, reductions, resize, shapes

TABLE: dict[str, Rule] = {}
for _family in (arithmetic, indexing, layers, moves, normalization, pooling, reductions, resize, shapes):
    TABLE |= _family.RULES
