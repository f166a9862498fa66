"""The graph of one image out of a graph of several, where no image has anything to do with another.

The images are followed from the first dimension of the inputs through the graph: each value either has them in one
place, or is the same for all of them. An operator must treat the images alike and apart, or the graph is refused with
the operator's node. Sizes that count images are divided by their number, constants that repeat something for each image
keep it once. What else depends on the number of images (a literal, a constant, the operators themselves) is what
differs between the graphs that two numbers give: `refuse_difference` compares them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from pcc.errors import PccError
from pcc.ir import ops
from pcc.ir.graph import add_constant, arguments, constant, finish, infer_all, insert, layer_name, outputs, shape_of


@dataclass(frozen=True)
class Images:
    """Where a value has its images: dimension ``dim`` is (``outer``, images, ``inner``) in one, as in (T * N, F) or (N
    * T, F)."""

    dim: int
    outer: int
    inner: int


def one_image(graph_module: GraphModule, count: int) -> GraphModule:
    """Rewrites a canonical graph whose inputs have ``count`` images (at least 2) to the same for one image.

    Raises `PccError` naming the first node that computes an image's values from more than this image, or that does
    something else for each image.
    """
    split = _Split(count)
    for node in list(graph_module.graph.nodes):
        split.visit(node)
    for name, node in outputs(graph_module).items():
        place = split.places[node]
        if place is None or place.dim or place.outer > 1:
            raise PccError(
                f"output '{name}' is {list(shape_of(node))} for {count} images: a maximum batch needs them in the "
                "first dimension of each output"
            )
    inputs = [
        torch.empty(1, *shape_of(node)[1:], dtype=node.meta["val"].dtype)
        for node in graph_module.graph.find_nodes(op="placeholder")
    ]
    infer_all(graph_module, inputs)
    finish(graph_module)
    return graph_module


def refuse_difference(graph_module: GraphModule, other: GraphModule) -> None:
    """`PccError` naming the first node in which two graphs of `one_image`, made of different numbers of images, are not
    the same."""
    places: dict[Node, int] = {}

    def described(node: Node) -> tuple[Any, ...]:
        args, kwargs = map_arg((node.args, node.kwargs), lambda operand: f"%{places[operand]}")
        return (
            node.op,
            None if node.op in ("get_attr", "placeholder") else str(node.target),
            str(args),
            str(kwargs),
            *_value(node),
        )

    ours, theirs = list(graph_module.graph.nodes), list(other.graph.nodes)
    for place, (node, same) in enumerate(zip(ours, theirs, strict=False)):
        places[node] = places[same] = place
        if described(node) != described(same) or (
            node.op == "get_attr" and not torch.equal(constant(node), constant(same))
        ):
            raise PccError(
                f"{_named(node)} depends on how many images the batch has; a maximum batch needs a network that does "
                "the same for each"
            )
    if len(ours) != len(theirs):
        raise PccError(
            "the network's operators depend on how many images the batch has; a maximum batch needs a network that "
            "does the same for each"
        )


def _value(node: Node) -> tuple[Any, ...]:
    value = node.meta.get("val")
    return (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else ()


def _named(node: Node) -> str:
    layer = layer_name(node)
    return f"node {node.name} ({node.target}{f' in {layer}' if layer != node.name else ''})"


class _Mixed(Exception):
    """An operator's result for an image depends on other images, and how."""


class _Split:
    """A graph being rewritten, node by node: where each value so far has its images, None where it is the same for all.
    Shapes are still those before."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.places: dict[Node, Images | None] = {}

    def visit(self, node: Node) -> None:
        if node.op == "placeholder":
            if not shape_of(node) or shape_of(node)[0] != self.count:
                raise PccError(
                    f"input '{node.name}' is {list(shape_of(node))} for {self.count} images: a maximum batch needs "
                    "them in its first dimension"
                )
            self.places[node] = Images(0, 1, 1)
        elif node.op == "call_function" and any(self.places[operand] is not None for operand in node.all_input_nodes):
            rule = _RULES.get(node.target)
            try:
                if rule is None:
                    raise _Mixed("no rule says what it does with the images of a batch")
                self.places[node] = rule(self, node, arguments(node))
            except _Mixed as error:
                raise PccError(
                    f"{_named(node)} mixes the images of a batch: {error}; such a network is compiled for one fixed "
                    "batch"
                ) from None
        elif node.op != "output":
            self.places[node] = None

    def place(self, node: Node) -> Images:
        found = self.places[node]
        if found is None:
            raise _Mixed(f"{node.name} is the same for all images")
        return found

    def none_of(self, node: Node, *dims: int) -> Images:
        """The images of an operand, which must not lie in these dimensions."""
        found = self.place(node)
        if found.dim in [dim % len(shape_of(node)) for dim in dims]:
            raise _Mixed(f"{node.name} has them in dimension {found.dim}, over which it computes")
        return found

    def together(self, user: Node, operands: Sequence[Node | None], rank: int) -> Images:
        """The images of operands that are broadcast to ``rank`` dimensions: in one place for all that have them, the
        rest is made to fit."""
        known = [operand for operand in operands if operand is not None]
        found = dict.fromkeys(
            replace(place, dim=place.dim + rank - len(shape_of(operand)))
            for operand in known
            if (place := self.places[operand]) is not None
        )
        if len(found) != 1:
            raise _Mixed("its operands have them in different places")
        (place,) = found
        for operand in known:
            if self.places[operand] is None:
                self.fit(user, operand, replace(place, dim=place.dim - rank + len(shape_of(operand))))
        return place

    def fit(self, user: Node, operand: Node, place: Images) -> None:
        """Makes an operand that is the same for all images one for a single image: where it repeats something for each,
        once is left."""
        shape, dim = shape_of(operand), place.dim
        if dim < 0 or shape[dim] == 1:
            return
        if operand.op == "get_attr":
            value = constant(operand)
            if shape[dim] != place.outer * self.count * place.inner:
                raise _Mixed(f"the constant {operand.target} has another number of rows than there are of images")
            parts = value.unflatten(dim, (place.outer, self.count, place.inner))
            first = parts.narrow(dim + 1, 0, 1)
            if not torch.equal(first.expand_as(parts), parts):
                raise _Mixed(f"the constant {operand.target} has other values for each of them")
            single = add_constant(user, f"{operand.target}_image", first.flatten(dim, dim + 2))
        elif operand.target is ops.EXPAND and self._spreads(operand, dim):
            source: Any = operand.args[0]
            divided = self.divided(shape, dim)
            single = (
                source
                if list(shape_of(source)) == divided
                else insert(user, ops.EXPAND, (source, divided), operand, f"{operand.name}_image")
            )
        else:
            raise _Mixed(f"{operand.name}, which is no constant, has a part for each of them")
        self.places[single] = None
        user.replace_input_with(operand, single)

    @staticmethod
    def _spreads(node: Node, dim: int) -> bool:
        source: Any = node.args[0]
        before = dim - len(shape_of(node)) + len(shape_of(source))
        return before < 0 or shape_of(source)[before] == 1

    def divided(self, shape: Sequence[int], dim: int) -> list[int]:
        """A shape for one image."""
        return [size // self.count if place == dim else size for place, size in enumerate(shape)]


Rule = Callable[[_Split, Node, dict[str, Any]], Images]


def _rows(split: _Split, node: Node, args: dict[str, Any]) -> Images:
    """Convolutions, linear layers, batch norm: each row of dimension 0 by itself."""
    place = split.together(node, [args.get("x", args.get("input")), args.get("residual")], len(shape_of(node)))
    if place.dim:
        raise _Mixed(f"they lie in dimension {place.dim}, over which it computes")
    constants = [args.get(name) for name in ("weight", "bias", "parameter", "running_mean", "running_var")]
    if any(isinstance(value, Node) and split.places[value] is not None for value in constants):
        raise _Mixed("its weights are computed from them")
    return place


def _planes(split: _Split, node: Node, args: dict[str, Any]) -> Images:
    """Poolings and resizings: each plane by itself."""
    return split.none_of(args["x"], 2, 3)


def _elementwise(split: _Split, node: Node, args: dict[str, Any]) -> Images:
    return split.together(node, args["xs"], len(shape_of(node)))


def _concat(split: _Split, node: Node, args: dict[str, Any]) -> Images:
    along = args["dim"] % len(shape_of(node))
    if any(place is not None and place.dim == along for place in (split.places[x] for x in args["xs"])):
        raise _Mixed("it joins along the dimension that they lie in")
    return split.together(node, args["xs"], len(shape_of(node)))


def _convert(split: _Split, node: Node, args: dict[str, Any]) -> Images:
    return split.place(args["x"])


def _softmax(split: _Split, node: Node, args: dict[str, Any]) -> Images:
    return split.none_of(args["x"], args["dim"])


def _columns(split: _Split, node: Node, args: dict[str, Any]) -> Images:
    return split.none_of(args["x"], 1)


def _matmul(split: _Split, node: Node, args: dict[str, Any]) -> Images:
    """Images may be matrices of the batch, rows of ``a``, or columns of ``b``."""
    a, b = args["a"], args["b"]
    in_a, in_b = split.places[a], split.places[b]
    if all(place is None or place.dim == 0 for place in (in_a, in_b)):
        return split.together(node, [a, b], 3)
    if in_a is not None and in_b is None:
        return split.none_of(a, 2)
    if in_b is not None and in_a is None:
        return split.none_of(b, 1)
    raise _Mixed("it multiplies some of them by others")


def _gather(split: _Split, node: Node, args: dict[str, Any]) -> Images:
    """Images may be what is read from (apart from the dimension that is indexed), or places that each look up the same
    table."""
    x, tables = args["x"], [table for table in (args["index"], args["weight"]) if table is not None]
    everywhere = {place for operand in (x, *tables) if (place := split.places[operand]) is not None}
    if all(place.dim == 0 for place in everywhere):
        if len(everywhere) != 1:
            raise _Mixed("its operands have them in different places")
        (place,) = everywhere
        for operand in (x, *tables):
            if split.places[operand] is None:
                split.fit(node, operand, place)
        return place
    if all(split.places[table] is None for table in tables):
        return split.none_of(x, 2)
    if split.places[x] is None and all(place.dim == 2 for place in everywhere):
        return split.together(node, tables, 3)
    raise _Mixed("it reads values of some of them at places that others give")


def _reshape(split: _Split, node: Node, args: dict[str, Any]) -> Images:
    """The images stay one axis of the elements in their order: so many lie before it, so many behind."""
    x: Any = node.args[0]
    place, shape = split.place(x), shape_of(node)
    before = prod(shape_of(x)[: place.dim]) * place.outer
    for dim, size in enumerate(shape):
        start = prod(shape[:dim])
        if size > 1 and before % start == 0 and size % (before // start * split.count) == 0:
            outer = before // start
            node.args = (x, split.divided(shape, dim))
            return Images(dim, outer, size // (outer * split.count))
    raise _Mixed(f"from {list(shape_of(x))} to {list(shape)} it puts values of several of them together")


def _permute(split: _Split, node: Node, args: dict[str, Any]) -> Images:
    x: Any = node.args[0]
    place, rank = split.place(x), len(shape_of(node))
    return replace(place, dim=[dim % rank for dim in args["dims"]].index(place.dim))


def _slice(split: _Split, node: Node, args: dict[str, Any]) -> Images:
    """Along the images' dimension all of them, or as many of the outer parts, each with all of them."""
    x: Any = node.args[0]
    place, dim = split.place(x), args["dim"] % len(shape_of(x))
    if place.dim != dim:
        return place
    begin, end, step = slice(args["start"], args["end"], args["step"]).indices(shape_of(x)[dim])
    whole = split.count * place.inner
    if step != 1 or begin % whole or end % whole:
        raise _Mixed("it takes some of them and not others")
    node.args = (x, dim, begin // split.count, end // split.count)
    return replace(place, outer=(end - begin) // whole)


def _expand(split: _Split, node: Node, args: dict[str, Any]) -> Images:
    x: Any = node.args[0]
    place, shape = split.place(x), shape_of(node)
    dim = place.dim + len(shape) - len(shape_of(x))
    node.args = (x, split.divided(shape, dim))
    return replace(place, dim=dim)


def _pad(split: _Split, node: Node, args: dict[str, Any]) -> Images:
    x: Any = node.args[0]
    place = split.place(x)
    first = 2 * (len(shape_of(x)) - 1 - place.dim)
    if any(args["pad"][first : first + 2]):
        raise _Mixed("it puts more beside them")
    return place


_RULES: dict[Any, Rule] = {
    **dict.fromkeys((ops.CONV2D, ops.LINEAR, ops.BATCH_NORM), _rows),
    ops.POOL2D: _planes,
    ops.RESIZE2D: _planes,
    ops.ELEMENTWISE: _elementwise,
    ops.CONCAT: _concat,
    ops.CONVERT: _convert,
    ops.SOFTMAX: _softmax,
    ops.TOP_K: _columns,
    ops.SCAN: _columns,
    ops.MATMUL: _matmul,
    ops.GATHER: _gather,
    ops.RESHAPE: _reshape,
    ops.PERMUTE: _permute,
    ops.SLICE: _slice,
    ops.EXPAND: _expand,
    ops.PAD: _pad,
}
"""What each operator of a canonical graph does with the images of its operands; all others are refused."""
