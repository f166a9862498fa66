"""Finding nodes in graphs."""

from torch.fx import GraphModule, Node


def calls(graph_module: GraphModule, operator: str) -> list[Node]:
    """The calls of an operator: ``pcc.conv2d``, ``aten.slice.Tensor``."""
    return [
        node
        for node in graph_module.graph.nodes
        if node.op == "call_function" and str(node.target).removesuffix(".default") == operator
    ]


def call(graph_module: GraphModule, operator: str) -> Node:
    """The only call of an operator."""
    (found,) = calls(graph_module, operator)
    return found


def operators(graph_module: GraphModule) -> list[str]:
    """The operators of all calls, in order."""
    return [
        str(node.target).removesuffix(".default") for node in graph_module.graph.nodes if node.op == "call_function"
    ]
