"""The rules of canonicalize, a family a file.

A rule is called with a node and, by keyword, those arguments of its operator that it names; it makes the node
canonical, in place, or raises `CannotCompile`. An argument that a rule does not name must have the schema's default, or
the node is refused: nothing is read and ignored.
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.fx import Node

from pcc.dtype import full_name
from pcc.ir.graph import arguments, is_constant

Rule = Callable[..., None]
"""``rule(node, *, name=value, ...)``. A rule that takes ``**_`` finds all that its arguments say in the node's own
value."""

_STORAGE = frozenset(
    {
        "memory_format",
        "layout",
        "device",
        "pin_memory",
        "non_blocking",
        "copy",
        "implicit",
        "cudnn_enabled",
        "cudnn_enable",
        "dtype",
    }
)
"""Arguments that say how a value is stored or computed, not what it is. ``dtype`` is in the node's value, where
`require_fp32` looks."""


class CannotCompile(Exception):
    """Why pcc has no form for a node, as a phrase: ``transposed convolution``."""


def apply_rule(rule: Rule, node: Node) -> None:
    """Makes a node canonical; `CannotCompile` if the rule refuses it or would not read one of its arguments."""
    rule(node, **read_arguments(rule, node))


def read_arguments(function: Callable[..., Any], node: Node) -> dict[str, Any]:
    """A node's arguments that a function names; `CannotCompile` for another that does not have the schema's default."""
    names, takes_all = _named(function)
    values = arguments(node)
    if not takes_all:
        for argument in node.target._schema.arguments:  # type: ignore[union-attr]
            name, value = argument.name, values[argument.name]
            if (
                name not in names
                and name not in _STORAGE
                and not (argument.has_default_value() and _same(value, argument.default_value))
            ):
                raise CannotCompile(f"argument {name}={value}")
    return {name: value for name, value in values.items() if takes_all or name in names}


@cache
def _named(rule: Callable[..., Any]) -> tuple[frozenset[str], bool]:
    """The arguments that a function names, and whether it takes all there are."""
    parameters = inspect.signature(rule).parameters
    return frozenset(parameters), any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def _same(value: Any, default: Any) -> bool:
    return not isinstance(value, Node) and type(value) is type(default) and value == default


def require_fp32(node: Node, **_: Any) -> None:
    """Refuses a node that reads or computes numbers of another floating point type, or reads others than fp32 that are
    computed.

    Whole numbers and truth values that a model computes are fp32 values in a canonical graph; what it knows of them
    becomes fp32 where it is read.
    """
    for part in (node, *node.all_input_nodes):
        value = part.meta["val"]
        for tensor in value if isinstance(value, list | tuple) else (value,):
            if tensor is not None and tensor.dtype not in (_KNOWN if part is node or is_constant(part) else _FP32):
                raise CannotCompile(f"computes with {full_name(tensor.dtype)}; pcc compiles fp32")


WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""Types of whole numbers."""
_FP32 = (torch.float32,)
_KNOWN = (torch.float32, torch.bool, *WHOLE)
