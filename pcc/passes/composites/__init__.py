"""What composite operators are made of, a family a file: functions in PyTorch that decompose traces in an operator's
place.

A function is called with those arguments of its operator that it names; another argument must have the schema's
default, or the operator is refused by name (as for canonicalize's rules). ``NotImplemented`` leaves the operator as it
is; `CannotCompile` says why it cannot be taken apart. A function may use whatever pcc compiles or takes apart,
``torch.ops.pcc`` included; tables are written with PyTorch's operators, too, and folded with other constants.

Two more arguments may be named: ``computed``, those arguments that depend on the model's input, and ``used``, the
numbers of those results that somebody reads.
"""

from collections.abc import Callable
from typing import Any

from torch._ops import OpOverload

from pcc.passes.composites import (
    attention,
    convolution,
    detection,
    matrices,
    moves,
    norms,
    pooling,
    recurrent,
    reductions,
    resample,
)

COMPOSITES: dict[Any, Callable[..., Any]] = {
    **attention.COMPOSITES,
    **convolution.COMPOSITES,
    **detection.COMPOSITES,
    **matrices.COMPOSITES,
    **moves.COMPOSITES,
    **norms.COMPOSITES,
    **pooling.COMPOSITES,
    **recurrent.COMPOSITES,
    **reductions.COMPOSITES,
    **resample.COMPOSITES,
}


def composite_of(target: Any) -> Callable[..., Any] | None:
    """The function of a call's target, if it has one; operators of other libraries are known by name."""
    return COMPOSITES.get(target) or (detection.NAMED.get(target.name()) if isinstance(target, OpOverload) else None)
