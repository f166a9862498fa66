"""What passes do with a graph, in a few words: read and add constants, insert and replace nodes, infer shapes, name
layers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from pcc.errors import PccError
from pcc.ir.annotations import carry

OUTPUT_NAMES = "pcc.output_names"
"""Key of ``graph_module.meta`` under which the outputs' names are, a tuple."""

MAX_BATCH = "pcc.max_batch"
"""Key under which is how many images a batch may have at most, if the graph is one image's and stands for any batch."""


def outputs(graph_module: GraphModule) -> dict[str, Node]:
    """The nodes that the model returns, by the names its user knows them by."""
    returned = graph_module.graph.output_node().args[0]
    nodes = returned if isinstance(returned, list | tuple) else (returned,)
    names = graph_module.meta.get(OUTPUT_NAMES) or [f"output_{i}" for i in range(len(nodes))]
    return dict(zip(names, nodes, strict=True))  # type: ignore[arg-type]


def max_batch(graph_module: GraphModule) -> int:
    """How many images a batch may have; 0 for a graph that is computed as it is."""
    return graph_module.meta.get(MAX_BATCH, 0)


def shape_of(node: Node) -> tuple[int, ...]:
    """The static shape of a node's value."""
    return tuple(int(size) for size in node.meta["val"].shape)


def arguments(node: Node) -> dict[str, Any]:
    """A call's arguments by their names in the operator's schema, defaults filled in."""
    bound: dict[str, Any] = {}
    for position, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if position < len(node.args):
            bound[argument.name] = node.args[position]
        else:
            bound[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return bound


def constant(node: Node) -> Tensor:
    """The value of a ``get_attr`` node."""
    value: Any = node.graph.owning_module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach()


def is_random(node: Node) -> bool:
    """Whether a call gives another value each time."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def is_constant(node: object) -> bool:
    """Whether a node's value is known: an attribute of the module, or computed from nothing else."""
    if not isinstance(node, Node):
        return False
    seen, pending = set(), [node]
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.op == "call_function" and not is_random(current):
            pending.extend(current.all_input_nodes)
        elif current.op != "get_attr":
            return False
    return True


def add_constant(before: Node, name: str, value: Tensor) -> Node:
    """A new ``get_attr`` in front of a node. ``name`` (dots allowed: ``features.0.weight``) gets a suffix where it is
    taken."""
    graph = before.graph
    module = graph.owning_module
    assert module is not None
    taken, target = (
        {key for key, _ in (*module.named_parameters(), *module.named_buffers(), *module.named_modules())},
        name,
    )
    for count in range(1, 1 << 30):
        if target not in taken:
            break
        target = f"{name}_{count}"
    assign_attribute(module, target, value.detach().contiguous())
    with graph.inserting_before(before):
        node = graph.create_node("get_attr", target, name=target.replace(".", "_"))
    node.meta["val"] = fake_mode(graph).from_tensor(value.detach())
    return node


def assign_attribute(module: torch.nn.Module, target: str, value: Tensor) -> None:
    """Sets the buffer of a dotted name, making modules on the way."""
    *path, leaf = target.split(".")
    for part in path:
        if not hasattr(module, part):
            module.add_module(part, torch.nn.Module())
        module = getattr(module, part)
    module.register_buffer(leaf, value)


def insert(before: Node, target: Any, args: tuple[Any, ...], like: Node, name: str | None = None) -> Node:
    """A new call in front of a node, its value inferred; it knows what ``like`` knows (annotations, where it came
    from)."""
    with before.graph.inserting_before(before):
        node = before.graph.create_node("call_function", target, args, name=name)
    infer(node)
    carry(like, node)
    return node


def rewrite(node: Node, target: Any, args: tuple[Any, ...]) -> Node:
    """The node becomes another call of the same shape; its name, its users and its annotations stay."""
    before = shape_of(node)
    node.target, node.args, node.kwargs = target, args, {}
    infer(node)
    if shape_of(node) != before:
        raise AssertionError(f"{node.name}: rewritten to {target}, its shape {before} became {shape_of(node)}")
    return node


def replace(old: Node, new: Node) -> None:
    """Users of ``old`` use ``new``, which keeps its own name and annotations; ``old`` is erased."""
    old.replace_all_uses_with(new)
    old.graph.erase_node(old)


def infer(node: Node) -> None:
    """Computes ``node.meta["val"]`` of a call from its operands' values."""
    args, kwargs = map_arg((node.args, node.kwargs), lambda operand: operand.meta["val"])
    try:
        with torch.no_grad(), fake_mode(node.graph):
            node.meta["val"] = node.target(*args, **kwargs)  # type: ignore[operator]
    except PccError as error:
        raise PccError(f"node {node.name}: {error}") from error


def infer_all(graph_module: GraphModule, inputs: Sequence[Tensor] | None = None) -> None:
    """Computes the value of every node anew, from example inputs or from those known."""
    graph = graph_module.graph
    mode = FakeTensorMode()
    placeholders = graph.find_nodes(op="placeholder")
    examples = (
        inputs
        if inputs is not None
        else [torch.empty(shape_of(node), dtype=node.meta["val"].dtype) for node in placeholders]
    )
    for node, example in zip(placeholders, examples, strict=True):
        node.meta["val"] = mode.from_tensor(example.detach())
    for node in graph.nodes:
        if node.op == "get_attr":
            node.meta["val"] = mode.from_tensor(constant(node))
        elif node.op == "call_function":
            infer(node)


def fake_mode(graph: Graph) -> FakeTensorMode:
    """The mode in which the graph's values were inferred."""
    for node in graph.nodes:
        value = node.meta.get("val")
        if value is not None and hasattr(value, "fake_mode"):
            return value.fake_mode
    return FakeTensorMode()


def layer_name(node: Node) -> str:
    """The module a node came from (``features.0.0``), as the model's author names it; the node's own name where there
    is none."""
    stack = node.meta.get("nn_module_stack")
    path = list(stack.values())[-1][0] if stack else ""
    return path or node.name


def eliminate_dead_code(graph_module: GraphModule) -> bool:
    """Drops nodes nobody uses and the attributes only they read; inputs stay. True if anything went."""
    changed = graph_module.graph.eliminate_dead_code()
    used = {node.target for node in graph_module.graph.nodes if node.op == "get_attr"}
    for name, _ in (*graph_module.named_parameters(), *graph_module.named_buffers()):
        if name not in used:
            owner, _, leaf = name.rpartition(".")
            delattr(graph_module.get_submodule(owner), leaf)
    return changed


def finish(graph_module: GraphModule) -> None:
    """What a pass does last: dead code out, structure checked, the module's code made again."""
    eliminate_dead_code(graph_module)
    graph_module.graph.lint()
    graph_module.recompile()
