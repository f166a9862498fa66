"""A module as an ONNX file whose names say which layer is which, so that profiles of engines that read it can be laid
beside each other."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import nn

from tools.bench_peers.networks import layer_macs

OPSET = 13
"""The newest that DeepSparse reads."""

LAYERS = ("Conv", "Gemm")
FUSED = ("Relu", "PRelu", "LeakyRelu", "Clip", "Add", "HardSigmoid", "HardSwish", "Mul", "Sigmoid")
"""Operators that engines compute with the layer before, whose time then stands beside the name of what comes out
last."""


def export_onnx(module: nn.Module, image: torch.Tensor, path: Path) -> None:
    """By PyTorch's TorchScript exporter, which folds batch norms; input and output are called so, the rest as
    `name_layers` says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (image,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["output"],
        )
    model = onnx.load(path)
    name_layers(model.graph, list(layer_macs(module, tuple(image.shape))))
    onnx.save(model, path)


def name_layers(graph: onnx.GraphProto, paths: Sequence[str]) -> None:
    """Names the convolutions and linear layers, which are in the order of their calls, by their modules' paths, and
    what comes out of them and of the operators that are fused with them ``PATH/OPERATOR``. Where an addition joins two
    layers that is ``PATH+PATH/Add``: engines fuse it with either. A second operator of one kind behind a layer keeps
    the exporter's name.
    """
    remaining, owners, names, taken = iter(paths), {}, {}, set()
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        if node.op_type in LAYERS:
            node.name = owner = next(remaining)
        elif node.op_type in FUSED:
            operands = [owners[name] for name in node.input if name in owners]
            direct = [
                operand for operand, operator in operands if operator in LAYERS
            ]  # the other operand of a residual has been through an activation
            owner = "+".join(direct or [operand for operand, _ in operands[:1]])
        else:
            owner = ""
        if owner and node.output[0] not in outputs:
            owners[node.output[0]] = owner, node.op_type
            if (name := f"{owner}/{node.op_type}") not in taken:
                names[node.output[0]] = name
                taken.add(name)
    for node in graph.node:
        for values in (node.input, node.output):
            for place, name in enumerate(values):
                values[place] = names.get(name, name)
    del graph.value_info[:]
    assert next(remaining, None) is None, "the file has fewer layers than the module calls"


def attribute(seconds: dict[str, float], paths: Sequence[str]) -> dict[str, float]:
    """Seconds of the layers at these paths, of an engine's times by names that begin with ``PATH``, ``PATH/`` or
    ``PATH+PATH/``; the last goes to that of the two that has no time of its own. Names of nothing known, such as
    changes of layout, are left out.
    """
    found: dict[str, float] = {}
    joined: list[tuple[list[str], float]] = []
    for name, time in seconds.items():
        owners = [path for path in name.split("/")[0].split("+") if path in paths]
        if len(owners) == 1:
            found[owners[0]] = found.get(owners[0], 0.0) + time
        elif owners:
            joined.append((owners, time))
    for owners, time in joined:
        missing = [path for path in owners if path not in found]
        if len(missing) == 1:
            found[missing[0]] = time
    return found
