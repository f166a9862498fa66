"""What an ONNX file calls its layers, in the manner of module paths: ``layer1.0.conv1``."""

import re

import onnx_ir as ir

_WEIGHT = re.compile(r"(.+)[./](?:weight|kernel)(?::\d+)?$")


def layer_of(node: ir.Node) -> str:
    """The layer of a node: what its weight is called by, else the module that its name stands in, else its name; its
    operator where it has none.

    PyTorch's older exporter writes ``/layer1/layer1.0/conv1/Conv``, each module by its path in the one around it; its
    newer one notes the modules.
    """
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if weight is not None and weight.is_initializer() and (match := _WEIGHT.match(weight.name or "")):
        return _clean(match[1])
    scopes = re.findall(r"'([^']*)'", node.metadata_props.get("pkg.torch.onnx.name_scopes", ""))
    if len(scopes) > 1:
        return _clean(scopes[-2] or scopes[-1])
    path: list[str] = []
    parts = [part for part in (node.name or "").split("/") if part]
    if len(parts) > 1 and re.fullmatch(rf"{re.escape(node.op_type)}(_\d+)?", parts[-1]):
        parts = parts[:-1]
    for part in parts:
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return _clean(".".join(path)) or node.op_type.lower()


def has_weight(node: ir.Node) -> bool:
    """Whether a node is a layer of its own, which no other may be called like."""
    return node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN") and len(node.inputs) > 1


def node_name(node: ir.Node, layer: str) -> str:
    """What the node's calls are called after: the layer, and what is done in it if that is not said yet."""
    operation = node.op_type.lower()
    return layer if has_weight(node) or layer.lower().endswith(operation) else f"{layer}.{operation}"


def unique(names: list[str]) -> list[str]:
    """Names as identifiers, those that come again with a number."""
    taken: set[str] = set()
    chosen = []
    for name in names:
        base = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_") or "value"
        base = f"_{base}" if base[0].isdigit() else base
        free, number = base, 0
        while free in taken:
            number += 1
            free = f"{base}_{number}"
        taken.add(free)
        chosen.append(free)
    return chosen


def _clean(name: str) -> str:
    return re.sub(r"\.+", ".", re.sub(r"[\s,={}\[\]\"/:;]+", ".", name)).strip(".")
