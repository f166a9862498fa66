"""What a rule is, and how it is applied.

A rule is a function ``rule(emit, *inputs, **attributes)`` that gives the value of an ONNX node, or a tuple of its
values. Its positional parameters are the operator's inputs (None where one is left out), its keyword parameters the
attributes with the specification's defaults. An attribute that a rule does not name is refused by name: nothing is read
and ignored.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from pcc.frontend.onnx.emitter import Emitter, Refused, Value

Rule = Callable[..., Any]


def apply(
    rule: Rule, emit: Emitter, inputs: Sequence[Value | None], attributes: Mapping[str, Any]
) -> list[Value | None]:
    """The node's values. `Refused` for an attribute or input that the rule does not take."""
    names, most = _signature(rule)
    for name in attributes:
        if name not in names:
            raise Refused(f"attribute {name}={attributes[name]}")
    while inputs and inputs[-1] is None:
        inputs = inputs[:-1]
    if most is not None and len(inputs) > most:
        raise Refused(f"{len(inputs)} inputs, where it has {most} at most")
    missing = [name for name, required in names.items() if required and name not in attributes]
    if missing:
        raise Refused(f"the attribute {missing[0]} is missing")
    values = rule(emit, *inputs, **attributes)
    return list(values) if isinstance(values, list | tuple) else [values]


@cache
def _signature(rule: Rule) -> tuple[dict[str, bool], int | None]:
    """The attributes that a rule names, whether each has to be there, and how many inputs it takes at most."""
    parameters = list(inspect.signature(rule).parameters.values())[1:]
    attributes = {p.name: p.default is p.empty for p in parameters if p.kind is p.KEYWORD_ONLY}
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return attributes, None if variadic else sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
