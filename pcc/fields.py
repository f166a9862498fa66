"""Named values from a text (a pipeline, a recipe) as the fields of a typed constructor: a pass, a structure, a method
of training."""

import inspect
import json
import types
from collections.abc import Collection, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from pcc.errors import PccError, shortened, suggestion

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a name", type(None): "none"}


def typed_fields(
    cls: type, values: Mapping[str, Any], *, source: str, strict: bool = True, without: Collection[str] = ()
) -> dict[str, Any]:
    """The values with the types that the constructor of ``cls`` declares, for those that were written; lists become
    tuples.

    Values are texts, numbers, booleans, None, lists and mappings of these. With ``strict=False`` numbers, booleans and
    None may be texts (``"3.6"``), as they are where a text has no types. ``without`` names parameters that no text can
    set. Raises `PccError` in one line that begins with ``source``: for an option that does not exist or is missing, and
    for a value of another type.
    """
    hints = get_type_hints(cls.__init__)
    parameters = {
        name: parameter for name, parameter in inspect.signature(cls).parameters.items() if name not in without
    }
    for name in values:
        if name not in parameters:
            raise PccError(f"{source} has no option '{name}': {suggestion(name, parameters)}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in values:
            raise PccError(f"{source} needs the option '{name}': give {in_words(hints[name])}")
    if not strict:
        values = {
            name: None if value == "none" and type(None) in get_args(hints[name]) else value
            for name, value in values.items()
        }
    declared: dict[str, Any] = {name: (hints[name], ...) for name in values}
    model = create_model(cls.__name__, __config__=ConfigDict(allow_inf_nan=False), **declared)
    try:
        # As JSON: there a list is what a tuple is written as, in strict mode too.
        checked = model.model_validate_json(json.dumps(values), strict=strict)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise PccError(
            f"{source}: {name} cannot be {shortened(repr(values[name]), 80)}: give {in_words(hints[name])}"
        ) from None
    return {name: getattr(checked, name) for name in values}


def in_words(hint: Any) -> str:
    """A type, as an error asks for it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (Union, types.UnionType):
        return " or ".join(in_words(argument) for argument in arguments)
    if origin is not None and issubclass(origin, Mapping):
        return f"a mapping from names to {in_words(arguments[1])}"
    if origin is tuple and Ellipsis not in arguments:
        return f"a list: {', '.join(map(in_words, arguments))}"
    if origin is not None:
        return f"a list, each {in_words(arguments[0])}"
    return _WORDS[hint]
