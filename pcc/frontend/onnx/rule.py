"""What a rule is, and how it is applied.

A rule is a function ``rule(emit, *inputs, **attributes)`` that gives the value of an ONNX node, or a tuple of its
values. Its positional parameters are the operator's inputs (None where one is left out), its keyword parameters the
attributes with the specification's defaults. An attribute that a rule does not name is refused by name, unless it is an
empty list, which says nothing: nothing is read and ignored.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import NoneType
from typing import Any, get_args

from pcc.frontend.onnx.emitter import Emitter, Refused, Value

Rule = Callable[..., Any]


def apply(
    rule: Rule, emit: Emitter, inputs: Sequence[Value | None], attributes: Mapping[str, Any]
) -> list[Value | None]:
    """The node's values. `Refused` for an attribute or input that the rule does not take."""
    names, parameters = _signature(rule)
    for name in attributes:
        if name not in names and attributes[name] not in ((), []):
            raise Refused(f"attribute {name}={attributes[name]}")
    attributes = {name: value for name, value in attributes.items() if name in names}
    while inputs and inputs[-1] is None:
        inputs = inputs[:-1]
    inputs = _complete(inputs, parameters)
    missing = [name for name, required in names.items() if required and name not in attributes]
    if missing:
        raise Refused(f"the attribute {missing[0]} is missing")
    values = rule(emit, *inputs, **attributes)
    return list(values) if isinstance(values, list | tuple) else [values]


def _complete(inputs: Sequence[Value | None], parameters: Sequence[inspect.Parameter]) -> Sequence[Value | None]:
    """The inputs that a rule is given. `Refused` where one is missing, or there are too many."""
    single = [parameter for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    variadic = len(single) < len(parameters)
    if len(inputs) > len(single) and not variadic:
        raise Refused(f"{len(inputs)} inputs, where it has {len(single)} at most")
    least = sum(parameter.default is parameter.empty for parameter in single) or int(variadic)
    inputs = [*inputs, *[None] * (least - len(inputs))]
    for place, value in enumerate(inputs):
        parameter = parameters[min(place, len(parameters) - 1)]
        if value is None and parameter.default is parameter.empty and NoneType not in get_args(parameter.annotation):
            raise Refused(f"its input {place} ({parameter.name}) is missing")
    return inputs


@cache
def _signature(rule: Rule) -> tuple[dict[str, bool], Sequence[inspect.Parameter]]:
    """The attributes that a rule names, whether each has to be there, and its inputs."""
    parameters = list(inspect.signature(rule).parameters.values())[1:]
    attributes = {p.name: p.default is p.empty for p in parameters if p.kind is p.KEYWORD_ONLY}
    return attributes, [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
