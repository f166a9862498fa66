"""How an operator of the graph is registered: ``torch.ops.pcc.NAME`` with its reference semantics in PyTorch and its
shape function."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

CANONICAL: set[Any] = set()
"""Every operator that a canonical graph may have; what the frontend lets pass."""

COMPOSITE: set[Any] = set()
"""Operators that decompose takes apart, into what their reference calls."""

REFERENCES: dict[Any, Callable[..., Tensor]] = {}
"""What each of pcc's operators computes, as a PyTorch function through which gradients flow."""


def register(
    schema: str,
    reference: Callable[..., Tensor],
    shape: Callable[..., Sequence[int]],
    dtype: Callable[..., torch.dtype] | None = None,
    composite: bool = False,
) -> Any:
    """Defines ``pcc::<schema>``; ``shape`` and ``dtype`` get the operator's arguments and say what the (contiguous)
    result is; else it has the type of the first operand. A ``composite`` operator is not canonical."""
    name = "pcc::" + schema.split("(", 1)[0]
    torch.library.define(name, schema[schema.index("(") :])
    torch.library.impl(name, "CompositeExplicitAutograd", reference if dtype else rounded_once(reference))

    def fake(*args: Any, **kwargs: Any) -> Tensor:
        first = args[0][0] if isinstance(args[0], list | tuple) else args[0]
        return first.new_empty(list(shape(*args, **kwargs)), dtype=None if dtype is None else dtype(*args, **kwargs))

    torch.library.register_fake(name, fake)
    operator = getattr(torch.ops.pcc, schema.split("(", 1)[0]).default
    (COMPOSITE if composite else CANONICAL).add(operator)
    REFERENCES[operator] = reference
    return operator


def rounded_once(reference: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A reference that computes in fp32 where operands are narrower, and rounds what it gives to the type of the first
    one."""

    @wraps(reference)
    def computed(*args: Any, **kwargs: Any) -> Tensor:
        first = next(iter((*args, *kwargs.values())))
        dtype = (first[0] if isinstance(first, list | tuple) else first).dtype
        result = reference(*pytree.tree_map(_widened, args), **pytree.tree_map(_widened, kwargs))
        return result if result is NotImplemented else result.to(dtype)

    return computed


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float16 else value
