"""An ``nn.Module`` becomes a graph: ``torch.export``, then one plain `torch.fx.GraphModule` of ATen calls without side
effects."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from pcc.dtype import full_name
from pcc.errors import PccError
from pcc.frontend.checkpoint import check_finite
from pcc.frontend.export import export, refuse_branches
from pcc.frontend.imported import ImportedModel, imported
from pcc.frontend.inputs import as_module, check_input, example_of_batch, example_tensors
from pcc.ir.graph import OUTPUT_NAMES, assign_attribute, finish, infer_all


def import_module(
    module: nn.Module | ExportedProgram | Callable[..., Any], example_inputs: tuple[Tensor, ...]
) -> GraphModule:
    """The graph of a module (an exported program, a function) in evaluation mode, for inputs of exactly these shapes.

    Inputs are named as ``forward`` names them; outputs, in ``graph_module.meta["pcc.output_names"]``, by their keys and
    positions (``output`` for a single one). Parameters, buffers and constants are ``get_attr`` nodes under the names of
    the module's state dict. Nodes are named after the module they come from (``features_0_0``), and
    ``node.meta["val"]`` has their shape.

    Raises `PccError` if the module cannot be exported, is not fp32, or has weights that are lazy, without values or not
    finite.
    """
    module = as_module(module)
    _check_fp32(module)
    check_finite(module)
    for position, example in enumerate(example_inputs):
        check_input(position, example)
    with evaluating(module):
        exported = export(module, example_inputs)
    graph_module = _plain_graph(exported)
    infer_all(graph_module, example_inputs)
    finish(graph_module)
    return graph_module


def import_torch(
    model: nn.Module | ExportedProgram | Callable[..., Any], examples: Any, batch: int | None = None
) -> ImportedModel:
    """A module, an exported program or a function as `import_model` gives it; ``examples`` as there, and there have to
    be some."""
    if examples is None:
        raise PccError("a module does not say what it takes: give example inputs")
    module = as_module(model)
    tensors = example_tensors(module, examples)
    graph_module = import_module(
        module, tensors if batch is None else tuple(example_of_batch(example, batch) for example in tensors)
    )
    return imported(graph_module, f"{type(module).__name__} (torch module)")


def refuse_batch_branches(
    model: nn.Module | ExportedProgram | Callable[..., Any], examples: Any, max_batch: int
) -> None:
    """`PccError` if what a model of Python code does depends on how many images its inputs have, up to
    ``max_batch``."""
    module = as_module(model)
    with evaluating(module):
        refuse_branches(
            module, tuple(example_of_batch(example, 2) for example in example_tensors(module, examples)), max_batch
        )


@contextmanager
def evaluating(module: nn.Module) -> Generator[None]:
    """Inside, a module and all that it is made of are in eval mode; afterwards each part is in the mode that it had."""
    was_training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in was_training:
            part.training = True


def _check_fp32(module: nn.Module) -> None:
    """`PccError` for parameters or buffers of another floating point type (integers may stay: counters, indices)."""
    for name, values in (*module.named_parameters(), *module.named_buffers()):
        if (values.is_floating_point() or values.is_complex()) and values.dtype != torch.float32:
            raise PccError(f"'{name}' is {full_name(values.dtype)}: pcc compiles fp32 models; call model.float() first")


def _plain_graph(exported: ExportedProgram) -> GraphModule:
    """The exported graph with weights as attributes instead of inputs."""
    root, graph = nn.Module(), Graph()
    copied: dict[Node, Node] = {}
    kinds = {
        spec.arg.name: spec for spec in exported.graph_signature.input_specs if isinstance(spec.arg, TensorArgument)
    }
    returned = _returned(exported)
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name not in kinds:
            raise PccError(f"input '{node.name}' is not a tensor: pcc compiles models whose inputs are tensors")
        if node.op == "placeholder" and kinds[node.name].kind == InputKind.USER_INPUT:
            copied[node] = graph.placeholder(node.name)
        elif node.op == "placeholder":
            target = str(kinds[node.name].target)
            assign_attribute(root, target, _stored(exported, target))
            copied[node] = graph.create_node("get_attr", target, name=target.replace(".", "_"))
        elif node.op == "call_function" and not _is_guard(node):
            copied[node] = _copy_call(graph, node, copied)
        elif node.op == "output":
            by_name = {original.name: new for original, new in copied.items()}
            graph.output(tuple(by_name[name] for name in returned.values()))
    graph_module = GraphModule(root, graph, "Graph")
    graph_module.meta[OUTPUT_NAMES] = tuple(returned)
    return graph_module


def _copy_call(graph: Graph, node: Node, copied: dict[Node, Node]) -> Node:
    args, kwargs = map_arg((node.args, node.kwargs), lambda operand: copied[operand])
    new = graph.create_node("call_function", node.target, args, kwargs, name=_readable_name(node))  # type: ignore[arg-type]
    new.meta = {key: node.meta[key] for key in ("stack_trace", "nn_module_stack") if key in node.meta}
    return new


def _readable_name(node: Node) -> str:
    """``layer1_0_conv1`` for what a torch layer computes, ``layer1_0_add`` for an operation of one's own module."""
    operation = str(getattr(node.target, "__name__", node.target)).split(".")[0].strip("_")
    stack = node.meta.get("nn_module_stack")
    path, kind = list(stack.values())[-1][:2] if stack else ("", "")
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    parts = path.split(".") if path else []
    if not (parts and kind.startswith("torch.nn.modules.")) or "Sequential" in kind:
        parts.append(operation)
    if isinstance(node.meta.get("val"), list | tuple):
        parts.append("results")
    return "_".join(parts)


def _is_guard(node: Node) -> bool:
    return "_assert" in str(node.target) or "sym_constrain" in str(node.target)


def _stored(exported: ExportedProgram, target: str) -> Tensor:
    """The value of a parameter, buffer or lifted constant; `PccError` if it is not fp32 (integers may stay: counters,
    indices)."""
    value: Any = exported.state_dict.get(target, exported.constants.get(target))
    value = value.detach().contiguous()
    if value.is_floating_point() and value.dtype != torch.float32:
        raise PccError(f"'{target}' is {full_name(value.dtype)}: pcc compiles fp32 models; call model.float() first")
    return value


def _returned(exported: ExportedProgram) -> dict[str, str]:
    """What the model returns: the name its user gives it, and the name of the exported node."""
    for spec in exported.graph_signature.output_specs:
        if spec.kind != OutputKind.USER_OUTPUT:
            raise PccError(
                f"the model changes '{spec.target or spec.arg.name}' when it runs; pcc compiles models without state"
            )
        if not isinstance(spec.arg, TensorArgument):
            raise PccError(
                "an output of the model is not a tensor: pcc compiles models that return tensors, alone or in tuples, "
                "lists and dicts"
            )
    nodes = [spec.arg.name for spec in exported.graph_signature.output_specs]
    if not nodes:
        raise PccError("the model returns no tensor")
    tree = exported.call_spec.out_spec
    assert tree is not None
    paths = [path for path, _ in pytree.tree_flatten_with_path(pytree.tree_unflatten(nodes, tree))[0]]
    names = [_output_name(path) for path in paths]
    if len(set(names)) < len(names):
        raise PccError(
            f"the model's outputs would have the same names: {', '.join(names)}; return a flat tuple or a flat dict"
        )
    return dict(zip(names, nodes, strict=True))


def _output_name(path: tuple[Any, ...]) -> str:
    """``output`` for a single result, ``output_1`` in a tuple, ``logits`` or ``boxes_0`` in a dict."""
    parts = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
    return "_".join(parts if parts and not parts[0].isdigit() else ["output", *parts])
