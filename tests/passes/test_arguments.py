"""No rule of canonicalize drops an argument: each argument of each operator is varied, and the node is refused or still computes what ATen does."""

from dataclasses import dataclass
from operator import getitem
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from pcc.ir.annotations import skips
from pcc.ir.graph import assign_attribute, infer_all
from pcc.ir.verify import run_graph
from pcc.passes.canonical import CannotCompile, apply_rule
from pcc.passes.canonicalize import RULES, Canonicalize

aten: Any = torch.ops.aten


@dataclass(frozen=True)
class Input:
    """A tensor that the model is called with."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Weight(Input):
    """A tensor that the model holds."""


X, Y, IMAGE = Input((2, 6)), Input((1, 6)), Input((2, 4, 9, 7))
CHANNELS = Weight((4,))
CONV: dict[str, Any] = {"input": IMAGE, "weight": Weight((4, 2, 3, 2)), "bias": CHANNELS, "groups": 2}
WINDOW: dict[str, Any] = {"self": IMAGE, "kernel_size": [2, 2]}
STATISTICS: dict[str, Any] = {"input": IMAGE, "weight": CHANNELS, "bias": CHANNELS, "running_mean": CHANNELS, "running_var": CHANNELS}
NORM: dict[str, Any] = {**STATISTICS, "momentum": 0.1, "eps": 1e-5}


def each(example: dict[str, Any], *operators: Any) -> dict[Any, dict[str, Any]]:
    """The same arguments for several operators."""
    return dict.fromkeys(operators, example)


EXAMPLES: dict[Any, dict[str, Any]] = {
    aten.conv2d.default: CONV,
    aten.conv2d.padding: CONV,
    aten.convolution.default: {
        **CONV,
        **{"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "transposed": False, "output_padding": [0, 0]},
    },
    aten.linear.default: {"input": X, "weight": Weight((5, 6)), "bias": Weight((5,))},
    aten.mm.default: {"self": X, "mat2": Weight((6, 5))},
    aten.matmul.default: {"self": X, "other": Weight((6, 5))},
    aten.addmm.default: {"self": Weight((5,)), "mat1": X, "mat2": Weight((6, 5))},
    **each(WINDOW, aten.max_pool2d.default, aten.avg_pool2d.default, aten.max_pool2d_with_indices.default),
    **each({"self": IMAGE, "output_size": [3, 1]}, aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default, aten.adaptive_max_pool2d.default),
    **each({"self": IMAGE, "dim": [1]}, aten.mean.dim, aten.sum.dim_IntList),
    **each({"self": IMAGE, "input": IMAGE, "output_size": [18, 10], "scale_factors": None}, aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default),
    aten.upsample_bilinear2d.vec: {"input": IMAGE, "output_size": [18, 10], "scale_factors": None, "align_corners": False},
    aten.upsample_bilinear2d.default: {"self": IMAGE, "output_size": [18, 10], "align_corners": False},
    **each({"self": IMAGE, "dim": 1}, aten.softmax.int, aten.log_softmax.int),
    **each({"self": IMAGE, "dim": 1, "half_to_float": False}, aten._softmax.default, aten._log_softmax.default),
    aten.batch_norm.default: {**NORM, "training": False, "cudnn_enabled": False},
    aten.native_batch_norm.default: {**NORM, "training": False},
    aten._native_batch_norm_legit_no_training.default: NORM,
    **each({"self": X, "dtype": torch.float32}, aten.to.dtype, aten.to.dtype_layout),
    aten.to.device: {"self": X, "dtype": torch.float32, "device": torch.device("cpu")},
    aten.type_as.default: {"self": X, "other": X},
    **each(
        {"input": IMAGE, "p": 0.5, "train": False},
        aten.dropout.default,
        aten.feature_dropout.default,
        aten.alpha_dropout.default,
        aten.feature_alpha_dropout.default,
    ),
    **each({"self": X, "size": [3, 4]}, aten.view.default, aten._unsafe_view.default),
    aten.reshape.default: {"self": X, "shape": [3, 4]},
    aten.unflatten.int: {"self": X, "dim": 1, "sizes": [2, 3]},
    aten.unsqueeze.default: {"self": X, "dim": 0},
    aten.squeeze.dim: {"self": Y, "dim": 0},
    aten.squeeze.dims: {"self": Y, "dim": [0]},
    aten.permute.default: {"self": IMAGE, "dims": [0, 2, 3, 1]},
    aten.transpose.int: {"self": IMAGE, "dim0": 1, "dim1": 2},
    aten.select.int: {"self": IMAGE, "dim": 1, "index": 2},
    aten.split.Tensor: {"self": Input((4, 6)), "split_size": 2},
    aten.split_with_sizes.default: {"self": Input((4, 4)), "split_sizes": [2, 2]},
    aten.expand.default: {"self": Y, "size": [4, 6]},
    aten.repeat.default: {"self": Y, "repeats": [2, 1]},
    aten.roll.default: {"self": IMAGE, "shifts": [1], "dims": [1]},
    **each({"tensors": [X, X]}, aten.cat.default, aten.concat.default, aten.stack.default),
    aten.pad.default: {"self": IMAGE, "pad": [1, 2, 2, 1]},
    aten.constant_pad_nd.default: {"self": IMAGE, "pad": [1, 2]},
    **each({"self": X, "min": 0.25}, aten.clamp.default, aten.clip.default, aten.clamp_min.default),
    aten.clamp_max.default: {"self": X, "max": 0.25},
    **each({"self": X, "min": Y}, aten.clamp.Tensor, aten.clamp_min.Tensor),
    aten.clamp_max.Tensor: {"self": X, "max": Y},
    aten.prelu.default: {"self": IMAGE, "weight": CHANNELS},
    aten._prelu_kernel.default: {"self": X, "weight": Weight((1, 1))},
    **each({"self": X, "rounding_mode": None}, aten.div.Tensor_mode, aten.div.Scalar_mode),
    aten.pow.Tensor_Scalar: {"self": X, "exponent": 2},
    aten.pow.Tensor_Tensor: {"self": X, "exponent": Y},
}
"""Arguments to start from, where the schema's defaults and ``{"self": X}`` do not do."""

OTHERS: dict[str, list[Any]] = {
    **{"stride": [[2, 1]], "padding": [[1, 0], "same"], "dilation": [[2, 2]], "transposed": [True], "output_padding": [[1, 1]]},
    **{"kernel_size": [[3, 2]], "ceil_mode": [True], "count_include_pad": [False], "divisor_override": [3], "output_size": [[4, 2]]},
    **{"dim": [0, [0], [1, 2], -1], "keepdim": [True], "dtype": [torch.float64], "half_to_float": [True], "dims": [[0, 3, 2, 1], [2]]},
    **{"align_corners": [True], "scale_factors": [[2.0, 1.45]], "scales_h": [2.1], "scales_w": [1.45], "training": [True], "momentum": [0.5], "eps": [0.1]},
    **{"memory_format": [torch.channels_last, torch.contiguous_format], "layout": [torch.strided], "device": [torch.device("cpu")]},
    **{"pin_memory": [False], "non_blocking": [True], "copy": [True], "implicit": [True], "cudnn_enabled": [True], "p": [0.3], "train": [True]},
    **{"size": [[4, 3], [5, 6]], "shape": [[4, 3]], "sizes": [[3, 2]], "start_dim": [1], "end_dim": [1], "dim0": [3, -1], "dim1": [0, -1]},
    **{"start": [1, -2], "end": [1, -2], "step": [2], "index": [0, -1], "split_size": [3], "split_sizes": [[1, 3]], "repeats": [[1, 3]], "shifts": [[-3]]},
    **{"pad": [[-1, 0, 2, 2]], "mode": ["reflect"], "value": [1.5], "alpha": [3], "beta": [2], "threshold": [0.5], "other": [0.7], "min": [-0.1, 0]},
    **{"max": [0.5], "min_val": [-0.3], "max_val": [0.4], "negative_slope": [0.3], "approximate": ["tanh"], "scale": [1.7], "input_scale": [0.6]},
    **{"exponent": [3, 0.5], "rounding_mode": ["floor", "trunc"]},
}
"""Other values of an argument, by its name; those that ATen refuses for an operator are left out."""

FIXED = ("groups", "half_to_float")
"""What the weight's shape and fp32 leave one legal value, which the examples have (groups is 2 there, not the default)."""

REFUSED = ("aten::conv1d", "aten::conv3d", "aten::conv_transpose", "aten::upsample_bicubic")
"""Operators whose rule is a refusal."""

VARIED = [operator for operator in RULES if operator.namespace == "aten" and not operator._schema.name.startswith(REFUSED)]


def example_of(operator: Any) -> dict[str, Any]:
    """Arguments with which an operator compiles; those that it does not have are left out of the shared examples."""
    arguments = {argument.name: argument for argument in operator._schema.arguments}
    other = {"other": Y if "Tensor" in str(arguments["other"].type) else 0.7} if "other" in arguments else {}
    return {name: value for name, value in {**other, **EXAMPLES.get(operator, {"self": X})}.items() if name in arguments}


def graph_of(operator: Any, given: dict[str, Any]) -> tuple[GraphModule, list[Tensor], Node]:
    """A graph of one call (and, where it gives several values, of its last one, or of a pooling's or batch norm's first)."""
    generator = torch.Generator().manual_seed(1)
    root, graph, inputs = nn.Module(), Graph(), []

    def operand(value: Any) -> Any:
        if not isinstance(value, Input):
            return value
        tensor = torch.rand(value.shape, generator=generator) * 2 - (0 if isinstance(value, Weight) else 1)
        if isinstance(value, Weight):
            name = f"weight_{len(graph.nodes)}"
            assign_attribute(root, name, tensor)
            return graph.create_node("get_attr", name)
        inputs.append(tensor)
        return graph.placeholder(f"x{len(graph.nodes)}")

    arguments = {name: pytree.tree_map(operand, value, is_leaf=lambda v: isinstance(v, Input)) for name, value in given.items()}
    positional, keyword, all_positional = [], {}, True
    for argument in operator._schema.arguments:
        all_positional = all_positional and argument.name in arguments and not argument.kwarg_only
        if all_positional:
            positional.append(arguments[argument.name])
        elif argument.name in arguments:
            keyword[argument.name] = arguments[argument.name]
    node = graph.call_function(operator, tuple(positional), keyword)
    returns = [str(result.type) for result in operator._schema.returns]
    result = node
    if len(returns) > 1 or returns[0].startswith("List"):
        result = graph.call_function(getitem, (node, 0 if len(returns) > 1 else 1))
    graph.output((result,))
    graph_module = GraphModule(root, graph)
    infer_all(graph_module, inputs)
    return graph_module, inputs, node


def outcome(operator: Any, given: dict[str, Any]) -> str | None:
    """Why the call is refused; None if it compiles to what ATen computes; ``illegal`` if ATen refuses it."""
    try:
        graph_module, inputs, _ = graph_of(operator, given)
        expected = run_graph(graph_module, inputs)
    except (RuntimeError, IndexError, TypeError, ValueError, AssertionError):
        return "illegal"
    Canonicalize()(graph_module)
    left = [reason for part in graph_module.graph.nodes for reason in skips(part)]
    if left:
        return str(left[0].reason)
    actual = run_graph(graph_module, inputs)
    torch.testing.assert_close(actual, expected, rtol=3e-6, atol=3e-6, equal_nan=True, msg=f"{operator}({given}) computes something else")
    return None


@pytest.mark.parametrize("operator", VARIED, ids=str)
def test_no_argument_is_dropped(operator: Any) -> None:
    start = example_of(operator)
    assert outcome(operator, start) in (None, "a power whose exponent is a tensor"), "the example itself must compile"
    for argument in operator._schema.arguments:
        if "Tensor" in str(argument.type) and not isinstance(start.get(argument.name), list) and argument.name not in ("min", "max"):
            continue
        exclusive = {"output_size": None} if argument.name == "scale_factors" else {}
        varied = [outcome(operator, {**start, **exclusive, argument.name: value}) for value in [*OTHERS.get(argument.name, []), *_tensors(argument)]]
        assert argument.name in FIXED or any(reason != "illegal" for reason in varied), f"{argument.name} of {operator} is never varied: add a value to OTHERS"


def _tensors(argument: Any) -> list[Any]:
    return [[X, X, X]] if "List[Tensor]" in str(argument.type) else [X] if "Tensor" in str(argument.type) else []


def test_an_argument_that_a_rule_does_not_name_is_refused() -> None:
    def rule(node: Node, self: Node) -> None:
        raise AssertionError("called although an argument would be dropped")

    _, _, node = graph_of(aten.softplus.default, {"self": X, "beta": 1, "threshold": 3})
    with pytest.raises(CannotCompile, match="argument threshold=3"):
        apply_rule(rule, node)
