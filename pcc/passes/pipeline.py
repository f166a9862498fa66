"""Pipelines as text:
``fold-batchnorm,prune-connectivity{rate=3.6,layers={features.0=2,features.3=4}},reorder-kernels``.

A pass's options stand in braces and are the fields of its dataclass, which also give their types:

====================  ==========================================
field                 text
====================  ==========================================
int, float            ``8``, ``3.6``
bool                  ``true``, ``false``
str, ``Literal``      ``mined``, or ``"a, b"`` when it has any of ``,={}[]"``
``X | None``          as X, or ``none``
tuple                 ``[1,2]``
``Mapping[str, X]``   ``{features.0=2,features.3=4}``
====================  ==========================================
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from pcc.errors import PccError
from pcc.fields import typed_fields
from pcc.passes.manager import pass_level
from pcc.passes.registry import pass_class, pass_names

DEFAULT_PIPELINE = (
    "decompose,canonicalize,fold-constants,fold-batchnorm,drop-filters,detect-structure,"
    "fuse-epilogues,reorder-kernels,select-kernels,plan-memory"
)

_TOKEN = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([,={}\[\]])|([^\s,={}\[\]"]+(?:\s+[^\s,={}\[\]"]+)*))\s*')
_MARKS = set(",={}[]")
_PRUNE = "prune-"

Value = str | list[Any] | dict[str, Any]
"""What the text says before a field gives it a type: a word, a list, a mapping."""


def parse_pipeline(text: str) -> list[Any]:
    """The passes of a pipeline, ready to run. `PccError` in one line for a pass, option or value that does not
    exist."""
    return [make_pass(name, options) for name, options in _parse_steps(text)]


def print_pipeline(passes: Iterable[Any]) -> str:
    """The text `parse_pipeline` reads as these passes; options that have their default are left out."""
    return ",".join(_print_pass(step) for step in passes)


def make_pass(name: str, options: Mapping[str, Value]) -> Any:
    """A pass with options still in text form."""
    cls = pass_class(name)
    return cls(**typed_fields(cls, options, source=f"pass {name}", strict=False))


PRECISIONS: Mapping[str, Mapping[str, str]] = {
    "dtype": {"fp16": "reduce-precision"},
    "port_dtype": {"fp16": "reduce-precision{ports=true}"},
    "weight_dtype": {"fp16": "store-weights"},
}
"""What the options of that name put into a pipeline; ``fp32`` puts in nothing."""


def chosen_pipeline(
    pipeline: str | None,
    prune: str | None = None,
    *,
    dtype: str = "fp32",
    port_dtype: str = "fp32",
    weight_dtype: str = "fp32",
) -> str:
    """The text of the pipeline that is asked for: the default one if None, with the pruning passes of ``prune`` put in,
    and the passes that change element types.

    ``dtype`` is what activations and weights are; with ``port_dtype`` inputs and outputs, too; ``weight_dtype`` is what
    weights of linear layers are stored as. Raises `PccError` for types that pcc does not compute in.
    """
    text = DEFAULT_PIPELINE if pipeline is None else pipeline
    text = text if prune is None else insert_pruning(text, prune)
    wanted = {"dtype": dtype, "port_dtype": port_dtype, "weight_dtype": weight_dtype}
    for option, value in wanted.items():
        if value not in ("fp32", *PRECISIONS[option]):
            raise PccError(f"{option} '{value}': choose one of fp32, {', '.join(PRECISIONS[option])}")
    if port_dtype != "fp32" and port_dtype != dtype:
        raise PccError(
            f"port_dtype {port_dtype} needs dtype {port_dtype}: inputs and outputs are of the type that the network "
            "computes in, or fp32"
        )
    if port_dtype != "fp32":
        del wanted["dtype"]
    added = [PRECISIONS[option][value] for option, value in wanted.items() if value != "fp32"]
    return insert_before(text, "select-kernels", ",".join(added)) if added else text


def insert_before(pipeline: str, name: str, added: str) -> str:
    """The pipeline with passes before the one of that name; `PccError` where it has none."""
    steps = parse_pipeline(pipeline)
    places = [place for place, step in enumerate(steps) if step.name == name]
    if not places:
        raise PccError(
            f"{added} goes before {name}, which the pipeline does not have: put it into the pipeline where it belongs"
        )
    return print_pipeline([*steps[: places[0]], *parse_pipeline(added), *steps[places[0] :]])


def insert_pruning(pipeline: str, prune: str) -> str:
    """The pipeline with pruning passes right after fold-batchnorm. ``prune`` is what ``--prune`` takes:
    ``pattern,connectivity{rate=3.6}``."""
    steps = parse_pipeline(pipeline)
    added = [_pruning_pass(name, options) for name, options in _parse_steps(prune)]
    if not added:
        raise PccError(f"--prune is empty: it takes {_prunings()}")
    names = [step.name for step in (*steps, *added)]
    for step in added:
        if names.count(step.name) > 1:
            raise PccError(f"--prune {prune}: {step.name} would run twice; name it once, here or in the pipeline")
    places = [place for place, step in enumerate(steps) if step.name == "fold-batchnorm"]
    if not places:
        raise PccError(
            "--prune puts its passes after fold-batchnorm, but the pipeline has none: name the pruning passes in the "
            "pipeline"
        )
    return print_pipeline([*steps[: places[-1] + 1], *added, *steps[places[-1] + 1 :]])


def prunes(step: Any) -> bool:
    """Whether a pass prunes."""
    return step.name.startswith(_PRUNE)


def _pruning_pass(name: str, options: Mapping[str, Value]) -> Any:
    """A pass that prunes, whose name may be without its ``prune-``."""
    full_name = f"{_PRUNE}{name.removeprefix(_PRUNE)}"
    if full_name not in pass_names():
        hint = f"; {name} is a pass that does not prune, and goes into the pipeline" if name in pass_names() else ""
        raise PccError(f"--prune takes {_prunings()}, not '{name}'{hint}")
    return make_pass(full_name, options)


def _prunings() -> str:
    return ", ".join(name.removeprefix(_PRUNE) for name in pass_names() if name.startswith(_PRUNE))


def _parse_steps(text: str) -> list[tuple[str, dict[str, Value]]]:
    """Names of passes and their options, as they are written."""
    tokens = _tokenize(text)
    steps: list[tuple[str, dict[str, Value]]] = []
    at = 0
    while at < len(tokens):
        if steps:
            at = _expect(text, tokens, at, ",")
        name, at = _word(text, tokens, at)
        options: dict[str, Value] = {}
        if at < len(tokens) and tokens[at] == ("mark", "{"):
            options, at = _parse_mapping(text, tokens, at)
        steps.append((name, options))
    return steps


def _tokenize(text: str) -> list[tuple[str, str]]:
    tokens, position, text = [], 0, text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise PccError(f"pipeline: cannot read '{text[position:]}'")
        if match[1] is not None:
            tokens.append(("quoted", re.sub(r"\\(.)", r"\1", match[1])))
        else:
            tokens.append(("mark", match[2]) if match[2] else ("word", match[3]))
        position = match.end()
    return tokens


def _at(text: str, tokens: list[tuple[str, str]], at: int) -> tuple[str, str]:
    if at >= len(tokens):
        raise PccError(f"pipeline '{text}' ends too early")
    return tokens[at]


def _expect(text: str, tokens: list[tuple[str, str]], at: int, mark: str) -> int:
    if _at(text, tokens, at) != ("mark", mark):
        raise PccError(f"pipeline '{text}': expected '{mark}' before '{tokens[at][1]}'")
    return at + 1


def _word(text: str, tokens: list[tuple[str, str]], at: int) -> tuple[str, int]:
    kind, word = _at(text, tokens, at)
    if kind == "mark":
        raise PccError(f"pipeline '{text}': expected a name before '{word}'")
    return word, at + 1


def _parse_value(text: str, tokens: list[tuple[str, str]], at: int) -> tuple[Value, int]:
    token = _at(text, tokens, at)
    if token == ("mark", "{"):
        return _parse_mapping(text, tokens, at)
    if token != ("mark", "["):
        return _word(text, tokens, at)
    items: list[Value] = []
    at += 1
    while _at(text, tokens, at) != ("mark", "]"):
        if items:
            at = _expect(text, tokens, at, ",")
        item, at = _parse_value(text, tokens, at)
        items.append(item)
    return items, at + 1


def _parse_mapping(text: str, tokens: list[tuple[str, str]], at: int) -> tuple[dict[str, Value], int]:
    entries: dict[str, Value] = {}
    at = _expect(text, tokens, at, "{")
    while _at(text, tokens, at) != ("mark", "}"):
        if entries:
            at = _expect(text, tokens, at, ",")
        key, at = _word(text, tokens, at)
        if key in entries:
            raise PccError(f"pipeline '{text}': '{key}' is given twice")
        entries[key], at = _parse_value(text, tokens, _expect(text, tokens, at, "="))
    return entries, at + 1


def _print_pass(step: Any) -> str:
    options = [
        (field.name, getattr(step, field.name))
        for field in fields(step)
        if field.init and not _is_default(field, getattr(step, field.name))
    ]
    return step.name + (
        f"{{{','.join(f'{name}={_print_value(value)}' for name, value in options)}}}" if options else ""
    )


def _is_default(field: Any, value: object) -> bool:
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return value == default


def _print_value(value: object) -> str:
    match value:
        case bool() | None:
            return str(value).lower()
        case Mapping():
            return "{" + ",".join(f"{_print_value(key)}={_print_value(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(_print_value, value)) + "]"
        case str() if not value or value != value.strip() or _MARKS & set(value) or '"' in value:
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case _:
            return str(value)


@dataclass(frozen=True)
class SplitPipeline:
    """A pipeline by what its passes work on."""

    graph: Sequence[Any]
    program: Sequence[Any]


def split_pipeline(passes: Sequence[Any]) -> SplitPipeline:
    """Graph passes and the program passes after them; `PccError` if a graph pass comes after a program pass."""
    levels = [pass_level(step) for step in passes]
    first = levels.index("program") if "program" in levels else len(levels)
    for step, level in zip(passes[first:], levels[first:], strict=True):
        if level == "graph":
            raise PccError(
                f"pass {step.name} works on the graph and cannot come after {passes[first].name}, which works on the "
                "kernel program"
            )
    return SplitPipeline(passes[:first], passes[first:])
