"""Archives of ``torch.export.save``: the program's calls become a module, which `import_module` then takes as any
other, for the shapes asked for."""

import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule

from pcc.errors import PccError
from pcc.frontend.imported import ImportedModel, imported
from pcc.frontend.input_shapes import Declared, chosen_examples
from pcc.frontend.pt2_archive import TYPES, Archive, open_archive
from pcc.frontend.torch_module import import_module
from pcc.ir.graph import OUTPUT_NAMES, assign_attribute

_ARITHMETIC: dict[str, Callable[..., Any]] = {
    f"{module}.{name}": getattr(functions, name)
    for module, functions, names in (
        ("_operator", operator, "getitem add sub mul floordiv truediv mod neg pow eq ne lt le gt ge and_ or_ not_"),
        ("math", math, "ceil floor trunc"),
        ("torch", torch, "sym_float sym_int sym_max sym_min sym_not sym_ite"),
    )
    for name in names.split()
}
"""Of sizes, while they are open."""


def _require(condition: object, text: str) -> None:
    """A condition on sizes under which alone the program is the model."""
    if not condition:
        raise PccError(f"the model was exported for other shapes: {text}")


_ARITHMETIC["torch.ops.aten._assert_scalar.default"] = _require
_CHECKS_OF_TYPES = tuple(
    f"torch.ops.aten.{name}.default"
    for name in ("_assert_tensor_metadata", "sym_constrain_range", "sym_constrain_range_for_size")
)

_LAYOUTS = {7: torch.strided}
_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}


def import_pt2(
    path: Path | str, examples: Any = None, batch: int | None = None, any_batch: bool = False
) -> ImportedModel:
    """The graph of an archive, see `import_model`; ``any_batch`` as in `pcc.frontend.onnx.importer.import_onnx`.

    Nothing in it is unpickled or run. Raises `PccError` for what is damaged, open or not plain.
    """
    path = Path(path)
    with open_archive(path) as archive:
        declared, ranges, version = _inputs(archive), _ranges(archive), str(archive.program.get("torch_version", ""))
        module, names = _module(archive)
    chosen = chosen_examples(declared, examples, f"model '{path.name}'", batch, any_batch)
    _check_ranges(path.name, ranges, declared, chosen)
    graph_module = import_module(module, tuple(chosen))
    graph_module.meta[OUTPUT_NAMES] = names
    return imported(
        graph_module, f"{path.name} (torch.export, PyTorch {version})", tuple(taken.name for taken in declared)
    )


def _inputs(archive: Archive) -> list[Declared]:
    graph = archive.program["graph_module"]["graph"]
    declared = []
    for spec in archive.program["graph_module"]["signature"]["input_specs"]:
        ((kind, value),) = spec.items()
        if kind == "user_input":
            if "as_tensor" not in value["arg"]:
                raise PccError(
                    f"model '{archive.path}': an input is no tensor; pcc compiles models whose inputs are tensors"
                )
            name = value["arg"]["as_tensor"]["name"]
            meta = graph["tensor_values"][name]
            declared.append(
                Declared(name, tuple(map(_declared_size, meta["sizes"])), TYPES.get(meta["dtype"], torch.complex64))
            )
    return declared


def _declared_size(size: Mapping[str, Any]) -> int | str:
    """A number, or an expression of symbols as text: ``s0``, ``2*s0``; it is shown and compared, never evaluated."""
    return (
        int(size["as_int"])
        if "as_int" in size
        else re.sub(r"Symbol\('(\w+)'[^)]*\)", r"\1", str(size["as_expr"]["expr_str"]))
    )


def _ranges(archive: Archive) -> dict[str, tuple[int | None, int | None]]:
    """The smallest and the largest size that a symbol stands for, None where any will do."""
    ranges = archive.program.get("range_constraints", {})

    def bound(limits: Mapping[str, Any], key: str) -> int | None:
        return None if limits[key] is None else int(limits[key])

    return {symbol: (bound(limits, "min_val"), bound(limits, "max_val")) for symbol, limits in ranges.items()}


def _check_ranges(
    name: str,
    ranges: Mapping[str, tuple[int | None, int | None]],
    declared: Sequence[Declared],
    examples: Sequence[Tensor],
) -> None:
    """`PccError` for a size outside of the range that the model was exported for."""
    for taken, example in zip(declared, examples, strict=True):
        for symbol, size in zip(taken.sizes or (), example.shape, strict=True):
            if isinstance(symbol, str) and symbol in ranges:
                low, high = ranges[symbol]
                if (low is not None and size < low) or (high is not None and size > high):
                    raise PccError(
                        f"model '{name}': {taken} was exported for {symbol} from {low} to {high or 'any size'}, not "
                        f"{size}"
                    )


def _module(archive: Archive) -> tuple[GraphModule, tuple[str, ...]]:
    """The program as a module, and the names of its outputs."""
    content = archive.program["graph_module"]
    root, graph = nn.Module(), Graph()
    values: dict[str, Any] = {}
    tensors = archive.tensors()
    for spec in content["signature"]["input_specs"]:
        _input(archive, spec, root, graph, values, tensors)
    for node in content["graph"]["nodes"]:
        _call(archive, node, graph, values)
    returned = []
    for spec in content["signature"]["output_specs"]:
        ((kind, value),) = spec.items()
        if kind != "user_output":
            changed = value.get("buffer_name") or value.get("user_input_name") or value.get("parameter_name") or kind
            raise PccError(
                f"model '{archive.path}' changes '{changed}' when it runs; pcc compiles models without state"
            )
        if "as_tensor" not in value["arg"]:
            raise PccError(f"model '{archive.path}': an output is no tensor; pcc compiles models that return tensors")
        returned.append(values[value["arg"]["as_tensor"]["name"]])
    graph.output(tuple(returned))
    return GraphModule(root, graph, "Archive"), _output_names(content, len(returned))


def _input(
    archive: Archive,
    spec: Mapping[str, Any],
    root: nn.Module,
    graph: Graph,
    values: dict[str, Any],
    tensors: Mapping[str, Tensor],
) -> None:
    ((kind, value),) = spec.items()
    if kind == "user_input":
        name = value["arg"]["as_tensor"]["name"]
        values[name] = graph.placeholder(name)
    elif kind in ("parameter", "buffer", "tensor_constant"):
        name, target = value["arg"]["name"], value[f"{kind}_name"]
        if not re.fullmatch(r"\w+(\.\w+)*", target) or any(hasattr(nn.Module, part) for part in target.split(".")):
            raise ValueError(f"a weight of the name {target}")
        assign_attribute(root, target, tensors[target])
        values[name] = graph.get_attr(target)
    else:
        raise PccError(
            f"model '{archive.path}' has an input of the kind {kind}; pcc compiles models whose inputs are tensors"
        )


def _call(archive: Archive, node: Mapping[str, Any], graph: Graph, values: dict[str, Any]) -> None:
    if node["target"] in _CHECKS_OF_TYPES:
        return
    target = _target(archive, node["target"])
    named = {argument["name"]: _value(archive, argument["arg"], values) for argument in node["inputs"]}
    args, kwargs = _bound(target, named)
    call = graph.call_function(target, args, kwargs)
    call.meta = _origin(node.get("metadata", {}))
    outputs = [output for output in node["outputs"] if "as_none" not in output]
    if len(outputs) == 1 and "as_tensors" not in outputs[0]:
        values[_name(outputs[0])] = call
        return
    parts = (
        [part["name"] for part in outputs[0]["as_tensors"]]
        if len(outputs) == 1
        else [_name(output) for output in outputs]
    )
    for place, name in enumerate(parts):
        values[name] = graph.call_function(operator.getitem, (call, place))
        values[name].meta = dict(call.meta)


def _target(archive: Archive, name: str) -> Any:
    """An operator of ATen or of pcc's own, or arithmetic of sizes; nothing else that Python could reach is called."""
    if name in _ARITHMETIC:
        return _ARITHMETIC[name]
    match = re.fullmatch(r"torch\.ops\.(aten|pcc)\.(\w+)\.(\w+)", name)
    packet = getattr(getattr(torch.ops, match[1]), match[2], None) if match else None
    overload = getattr(packet, match[3], None) if packet is not None and match else None
    if not isinstance(overload, torch._ops.OpOverload) or not _is_pure(overload):
        raise PccError(
            f"pcc cannot compile 1 operator of this model: {name} (in '{archive.path}'; pcc compiles plain operators "
            "of ATen)"
        )
    return overload


def _is_pure(overload: Any) -> bool:
    """Whether an operator is one of PyTorch's dispatcher (not TorchScript's, which can save files), and reads no file
    and prints nothing."""
    schema = overload._schema
    texts_alone = not any("Tensor" in str(argument.type) for argument in schema.arguments) and any(
        "str" in str(argument.type) for argument in schema.arguments
    )
    return f"{schema.name}.{schema.overload_name}".removesuffix(".") in _dispatched() and not texts_alone


@cache
def _dispatched() -> frozenset[str]:
    return frozenset(torch._C._dispatch_get_all_op_names())


def _bound(target: Any, named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments by position as far as the operator's schema has them so."""
    if not isinstance(target, torch._ops.OpOverload):
        return tuple(named.values()), {}
    args: list[Any] = []
    for argument in target._schema.arguments:
        if argument.kwarg_only or argument.name not in named:
            break
        args.append(named.pop(argument.name))
    return tuple(args), named


def _value(archive: Archive, argument: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """An argument of a call."""
    ((kind, value),) = argument.items()
    if kind not in _KINDS:
        raise PccError(
            f"model '{archive.path}' has an argument of the kind {kind}; pcc compiles plain operators of tensors and "
            "numbers"
        )
    return _KINDS[kind](value, values)


def _numbers(value: Sequence[Any], values: Mapping[str, Any]) -> list[float]:
    return [float(part) for part in value]  # infinities are text


def _sizes(value: Sequence[Any], values: Mapping[str, Any]) -> list[Any]:
    return [_size(part, values) for part in value]


def _optional(value: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    return None if "as_none" in value else values[value["as_tensor"]["name"]]


def _size(value: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """A tensor, or a number that is computed (``as_name``) or written out."""
    if "name" in value:
        return values[value["name"]]
    ((kind, content),) = value.items()
    return values[content] if kind == "as_name" else content


_KINDS: dict[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "as_none": lambda value, values: None,
    **dict.fromkeys(("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"), _size),
    **dict.fromkeys(("as_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools"), _sizes),
    "as_optional_tensor": _optional,
    "as_optional_tensors": lambda value, values: [_optional(part, values) for part in value],
    **dict.fromkeys(
        ("as_int", "as_bool", "as_string", "as_ints", "as_bools", "as_strings"), lambda value, values: value
    ),
    "as_float": lambda value, values: float(value),
    "as_floats": _numbers,
    "as_scalar_type": lambda value, values: TYPES[value],
    "as_memory_format": lambda value, values: _FORMATS[value],
    "as_layout": lambda value, values: _LAYOUTS[value],
    "as_device": lambda value, values: torch.device("cpu"),
}
"""What an archive has as arguments, and how each is read."""


def _name(output: Mapping[str, Any]) -> str:
    ((_, value),) = output.items()
    return value.get("name") or value["as_name"]


def _origin(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The modules a call comes from, outermost first, and its line, as `torch.export` has them on nodes."""
    meta: dict[str, Any] = {"stack_trace": metadata["stack_trace"]} if "stack_trace" in metadata else {}
    parts = [entry.split(",") for entry in metadata.get("nn_module_stack", "").split(";") if entry.count(",") == 2]
    if parts:
        meta["nn_module_stack"] = {key: (path, kind) for key, path, kind in parts}
    return meta


def _output_names(content: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """As `pcc.frontend.torch_module` names them: by the keys and places of what the model returns."""
    call = content["module_call_graph"][0]["signature"]
    names = [name or "output" for name in _paths(json.loads(call["out_spec"])[1], "")] if call else []
    if len(names) != count or len(set(names)) != count:
        return tuple(f"output_{place}" for place in range(count)) if count > 1 else ("output",)
    return tuple(names)


def _paths(spec: Mapping[str, Any], prefix: str) -> list[str]:
    if spec["type"] is None:
        return [prefix]
    keys = (
        json.loads(spec["context"])
        if str(spec["type"]).endswith(("dict", "OrderedDict"))
        else range(len(spec["children_spec"]))
    )
    found = []
    for key, child in zip(keys, spec["children_spec"], strict=True):
        text = str(key)
        found += _paths(child, f"{prefix}_{text}" if prefix else f"output_{text}" if text.isdigit() else text)
    return found
