"""Graph to kernel program: each node becomes a layer, each layer is written by its kernel family; data movement becomes
views where it can."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from torch.fx import GraphModule, Node

from pcc.codegen import layers
from pcc.codegen.family import families
from pcc.codegen.isa import Isa
from pcc.codegen.joins import joining, parts_of, shuffle_of
from pcc.codegen.kernels.columns import emit_scan, emit_top_k
from pcc.codegen.kernels.copy import emit_convert, emit_copy, emit_fill
from pcc.codegen.kernels.elementwise import emit_elementwise
from pcc.codegen.kernels.gather import emit_gather
from pcc.codegen.kernels.matmul import emit_matmul
from pcc.codegen.kernels.nms import emit_nms
from pcc.codegen.kernels.pool import emit_pool
from pcc.codegen.kernels.resize import emit_resize
from pcc.codegen.kernels.scatter import emit_scatter
from pcc.codegen.kernels.softmax import emit_softmax
from pcc.codegen.layers import ConvGeometry
from pcc.codegen.program import Program, ProgramBuilder, ProgramWriter, View, contiguous_strides
from pcc.codegen.stages import stage_batch
from pcc.dtype import dtype_of
from pcc.errors import PccError
from pcc.ir import ops
from pcc.ir.activation import Activation
from pcc.ir.annotations import ComputedWith, KernelChoice, annotation
from pcc.ir.graph import arguments, constant, layer_name, max_batch, outputs, shape_of
from pcc.sparsity.formats import PackedWeight


def lower(graph_module: GraphModule, name: str, isa: Isa) -> Program:
    """The kernel program of a graph whose layers have their kernels selected, for an instruction set.

    Raises `PccError` for a node that no kernel family computes (the frontend reports those earlier, all at once).
    """
    lowering = Lowering(graph_module, ProgramBuilder(name, isa))
    for node in graph_module.graph.nodes:
        lowering.visit(node)
    program = lowering.program()
    return stage_batch(program, max_batch(graph_module)) if max_batch(graph_module) else program


class Lowering:
    """One graph being lowered: the view of every value so far."""

    def __init__(self, graph_module: GraphModule, builder: ProgramWriter[Any]) -> None:
        self.graph_module = graph_module
        self.builder: Any = builder
        """Of the machine's kind: what the writers of layers take."""
        self.views: dict[Node, View] = {}
        self.parts: dict[Node, list[View]] = {}
        """Of concatenations, where their operands belong."""
        self.shuffles: dict[Node, Node] = {}
        """The reshapes and permutes that those places make needless, and the concatenation of each."""

    def visit(self, node: Node) -> None:
        self.builder.layer, self.builder.node = layer_name(node), node.name
        if node.op in ("placeholder", "call_function") and 0 in shape_of(node):
            what = "the input" if node.op == "placeholder" else f"the result of {node.target}"
            raise PccError(
                f"node {node.name}: {what} has the shape {shape_of(node)}, which holds no elements: what has a size of "
                "0 cannot be compiled"
            )
        if node.op == "placeholder":
            self.views[node] = self.builder.input(node.name, shape_of(node), dtype_of(node.meta["val"].dtype))
        elif node.op == "output":
            self._outputs(node)
        elif node.op == "call_function" and node.target is not ops.UNPACK:
            rule = _RULES.get(node.target)
            if rule is None:
                raise PccError(
                    f"node {node.name}: no kernel computes {node.target}: the pipeline needs canonicalize and "
                    "fold-batchnorm"
                )
            self.views[node] = (
                self.views[self.shuffles[node]] if node in self.shuffles else rule.lower(self, node, arguments(node))
            )

    def program(self) -> Program[Any]:
        """What was recorded, with the places of values."""
        return replace(self.builder.build(), values={node.name: view for node, view in self.views.items()})

    def array(self, node: Node) -> np.ndarray:
        """The value of a constant node (a ``get_attr``)."""
        if node.op != "get_attr":
            raise PccError(f"node {node.name}: its value must be a constant here, not the result of {node.target}")
        return constant(node).cpu().contiguous().numpy()

    def weight(self, node: Node) -> np.ndarray | PackedWeight:
        """A layer's weight as it is stored."""
        return ops.packed_weight(node) if node.target is ops.UNPACK else self.array(node)

    def optional_array(self, node: Node | None) -> np.ndarray | None:
        return None if node is None else self.array(node)

    def view(self, node: Node) -> View:
        """Where a node's value lies; constants are placed when they are first asked for."""
        if node not in self.views:
            self.views[node] = self.builder.constant(str(node.target), self.array(node))
        return self.views[node]

    def optional_view(self, node: Node | None) -> View | None:
        return None if node is None else self.view(node)

    def tensor(self, node: Node) -> View:
        """A new contiguous tensor for a node's value."""
        return self.builder.tensor(node.name, shape_of(node), dtype_of(node.meta["val"].dtype))

    def result(self, node: Node) -> View:
        """Where a node's value goes, for kernels that write planes wherever they start: a new tensor, or its place in
        a concatenation."""
        if not has_planes(node):
            return self.tensor(node)
        joined = joining(node)
        if joined is not None and has_planes((joined[0], *shuffle_of(joined[0]))[-1]):
            return self.parts_of(joined[0])[joined[1]]
        return self.builder.planes(node.name, shape_of(node), dtype_of(node.meta["val"].dtype))

    def parts_of(self, concat: Node) -> list[View]:
        """Where the operands of a concatenation belong, which is decided when it is first asked for."""
        if concat not in self.parts:
            moves = shuffle_of(concat)
            self.shuffles |= dict.fromkeys(moves, concat)
            self.views[concat] = self.result((concat, *moves)[-1])
            self.parts[concat] = parts_of(self.views[concat], concat, shuffled=bool(moves))
        return self.parts[concat]

    def contiguous(self, view: View, name: str) -> View:
        """The same values in a contiguous tensor: ``view`` itself if it is one."""
        if view.is_contiguous:
            return view
        copy = self.builder.tensor(name, view.shape, view.dtype)
        self.write(layers.Copy(name, view, copy))
        return copy

    def in_one_piece(self, node: Node) -> dict[str, View]:
        """The operands of a node that its operator takes as contiguous tensors, by name, without those that are left
        out."""
        args = arguments(node)
        return {
            name: self.contiguous(self.view(args[name]), f"{node.name}.{name}")
            for name in _RULES[node.target].contiguous
            if args[name] is not None
        }

    def emit(self, node: Node, layer: layers.Conv2d | layers.Linear) -> View:
        """Records a layer as the family does that was chosen for its node; `PccError` where none was."""
        choice = annotation(node, KernelChoice)
        if choice is None:
            raise PccError(
                f"node {node.name}: no kernel was chosen for it: the pipeline needs select-kernels after the last pass "
                "that makes layers"
            )
        family = families(self.builder.backend).get(choice.family)
        if family is None:
            raise PccError(
                f"node {node.name}: {choice.family} was chosen for it, which is no kernel of {self.builder.backend}: "
                "select-kernels was told another processor"
            )
        family.emit(layer, choice.schedule, self.builder)
        return layer.y

    def write(self, layer: Any) -> None:
        """Records a layer of a kind that one family computes."""
        _WRITERS[type(layer)](layer, self.builder)

    def write_plain(self, node: Node, y: View, args: dict[str, Any]) -> None:
        """Records an operator of contiguous tensors, its arguments by the names of its schema, tensors as views."""
        _OF_CONTIGUOUS[node.target](self.builder, y, **args)

    def _outputs(self, node: Node) -> None:
        for name, value in outputs(self.graph_module).items():
            view = self.view(value)
            buffer = self.builder.buffers[view.buffer]
            if not (
                view.is_contiguous
                and view.offset == 0
                and buffer.elements == prod(view.shape)
                and buffer.role in ("scratch", "output")
            ):
                copy = self.builder.tensor(name, view.shape, view.dtype)
                self.write(layers.Copy(name, view, copy))
                view = copy
            self.builder.output(name, view)


def has_planes(node: Node) -> bool:
    """Whether the planes of a node's value start at cache lines: they do unless somebody takes the value as one
    piece."""
    return len(shape_of(node)) == 4 and not any(
        user.op == "output" or _takes_one_piece(user, node) for user in node.users
    )


def _takes_one_piece(user: Node, operand: Node) -> bool:
    args, rule = arguments(user), _RULES.get(user.target)
    return rule is not None and any(args[name] is operand for name in rule.contiguous)


def geometry_of(args: Mapping[str, Any], window: tuple[int, int]) -> ConvGeometry:
    """The geometry of a convolution's or pooling's arguments."""
    top, left, bottom, right = args["padding"]
    return ConvGeometry(window, _pair(args["stride"]), (top, left, bottom, right), _pair(args["dilation"]))


def _pair(values: Any) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)


def _conv2d(lowering: Lowering, node: Node, args: dict[str, Any]) -> View:
    """A convolution, whatever form its weight has, with the max pool that its kernel computes, too."""
    weight = lowering.weight(args["weight"])
    pool = next((user for user in node.users if annotation(user, ComputedWith)), None)
    layer = layers.Conv2d(
        node.name,
        x=lowering.view(args["x"]),
        y=lowering.result(pool or node),
        weight=weight,
        bias=lowering.optional_array(args["bias"]),
        geometry=geometry_of(args, (weight.shape[2], weight.shape[3])),
        groups=args["groups"],
        residual=lowering.optional_view(args["residual"]),
        activation=Activation.parse(args["activation"]),
        parameter=lowering.optional_array(args["parameter"]),
    )
    return lowering.emit(node, layer if pool is None else with_pool(layer, pool))


def with_pool(layer: layers.Conv2d, pool: Node) -> layers.PooledConv2d:
    """The layer whose ``y`` is that of the max pool after it."""
    return layers.PooledConv2d(**vars(layer), window=_pair(arguments(pool)["kernel"]))


def _linear(lowering: Lowering, node: Node, args: dict[str, Any]) -> View:
    layer = layers.Linear(
        node.name,
        **lowering.in_one_piece(node),
        y=lowering.result(node),
        weight=lowering.weight(args["weight"]),
        bias=lowering.optional_array(args["bias"]),
        activation=Activation.parse(args["activation"]),
        parameter=lowering.optional_array(args["parameter"]),
        images=max_batch(lowering.graph_module) or 1,
    )
    return lowering.emit(node, layer)


def _matmul(lowering: Lowering, node: Node, args: dict[str, Any]) -> View:
    layer = layers.MatMul(node.name, lowering.view(args["a"]), **lowering.in_one_piece(node), y=lowering.result(node))
    lowering.write(layer)
    return layer.y


def _gather(lowering: Lowering, node: Node, args: dict[str, Any]) -> View:
    index: Node = args["index"]
    if index.op == "get_attr":
        whole = np.clip(lowering.array(index), 0, shape_of(args["x"])[2] - 1).astype(np.int32)
        table = lowering.builder.constant(str(index.target), whole)
    else:
        table = lowering.contiguous(lowering.view(index), f"{node.name}.index")
    operands = lowering.in_one_piece(node)
    layer = layers.Gather(node.name, operands["x"], table, operands.get("weight"), lowering.tensor(node))
    lowering.write(layer)
    return layer.y


def _plain(lowering: Lowering, node: Node, args: dict[str, Any]) -> View:
    """An operator of contiguous tensors."""
    y = lowering.tensor(node)
    lowering.write_plain(node, y, {**args, **lowering.in_one_piece(node)})
    return y


def _convert(lowering: Lowering, node: Node, args: dict[str, Any]) -> View:
    layer = layers.Convert(node.name, **lowering.in_one_piece(node), y=lowering.tensor(node))
    lowering.write(layer)
    return layer.y


def _pool2d(lowering: Lowering, node: Node, args: dict[str, Any]) -> View:
    if annotation(node, ComputedWith):
        return lowering.view(args["x"])
    geometry = geometry_of(args, _pair(args["kernel"]))
    layer = layers.Pool2d(
        node.name, lowering.view(args["x"]), lowering.result(node), args["mode"], geometry, args["count_include_pad"]
    )
    lowering.write(layer)
    return layer.y


def _resize2d(lowering: Lowering, node: Node, args: dict[str, Any]) -> View:
    scales = args["scales"]
    layer = layers.Resize2d(
        node.name,
        lowering.view(args["x"]),
        lowering.result(node),
        args["mode"],
        args["align_corners"],
        None if scales is None else (float(scales[0]), float(scales[1])),
    )
    lowering.write(layer)
    return layer.y


def _softmax(lowering: Lowering, node: Node, args: dict[str, Any]) -> View:
    layer = layers.Softmax(
        node.name,
        **lowering.in_one_piece(node),
        y=lowering.tensor(node),
        dim=args["dim"] % len(shape_of(node)),
        log=args["log"],
    )
    lowering.write(layer)
    return layer.y


def _elementwise(lowering: Lowering, node: Node, args: dict[str, Any]) -> View:
    layer = layers.Elementwise(
        node.name, tuple(lowering.view(x) for x in args["xs"]), lowering.result(node), args["expression"]
    )
    lowering.write(layer)
    return layer.y


def _concat(lowering: Lowering, node: Node, args: dict[str, Any]) -> View:
    for operand, part in zip(args["xs"], lowering.parts_of(node), strict=True):
        if (x := lowering.view(operand)) != part:
            lowering.write(layers.Copy(node.name, x, part))
    return lowering.views[node]


def _reshape(lowering: Lowering, node: Node, args: dict[str, Any]) -> View:
    shape = shape_of(node)
    return replace(lowering.in_one_piece(node)["self"], shape=shape, strides=contiguous_strides(shape))


def _permute(lowering: Lowering, node: Node, args: dict[str, Any]) -> View:
    x = lowering.view(node.args[0])  # type: ignore[arg-type]
    order = [dim % len(x.shape) for dim in args["dims"]]
    permuted = replace(x, shape=tuple(x.shape[dim] for dim in order), strides=tuple(x.strides[dim] for dim in order))
    return lowering.contiguous(permuted, node.name)


def _slice(lowering: Lowering, node: Node, args: dict[str, Any]) -> View:
    part = sliced(lowering.view(node.args[0]), node)  # type: ignore[arg-type]
    return part if part.strides[-1] == 1 else lowering.contiguous(part, node.name)


def sliced(x: View, node: Node) -> View:
    """The part of ``x`` that a slice takes, where it lies."""
    args = arguments(node)
    dim, step = args["dim"] % len(x.shape), args["step"]
    begin, _, _ = slice(args["start"], args["end"]).indices(x.shape[dim])
    strides = (*x.strides[:dim], x.strides[dim] * step, *x.strides[dim + 1 :])
    return replace(x, shape=shape_of(node), strides=strides, offset=x.offset + begin * x.strides[dim])


def _expand(lowering: Lowering, node: Node, args: dict[str, Any]) -> View:
    x, shape = lowering.view(node.args[0]), shape_of(node)  # type: ignore[arg-type]
    padded = (1,) * (len(shape) - len(x.shape)) + x.shape
    strides = (0,) * (len(shape) - len(x.shape)) + x.strides
    spread = replace(
        x, shape=shape, strides=tuple(0 if size == 1 else stride for size, stride in zip(padded, strides, strict=True))
    )
    return lowering.contiguous(spread, node.name)


def _pad(lowering: Lowering, node: Node, args: dict[str, Any]) -> View:
    """The value everywhere, then the input into its place."""
    x, shape = lowering.view(node.args[0]), shape_of(node)  # type: ignore[arg-type]
    y = lowering.result(node)
    lowering.write(layers.Fill(node.name, y, float(args["value"])))
    inside = y
    for position, before in enumerate(args["pad"][::2]):
        dim = len(shape) - 1 - position
        inside = slice_view(inside, dim, before, before + x.shape[dim])
    lowering.write(layers.Copy(node.name, x, inside))
    return y


def slice_view(view: View, dim: int, begin: int, end: int) -> View:
    """``view[..., begin:end, ...]`` along one dimension."""
    shape = (*view.shape[:dim], end - begin, *view.shape[dim + 1 :])
    return replace(view, shape=shape, offset=view.offset + begin * view.strides[dim])


@dataclass(frozen=True)
class _Rule:
    """How an operator becomes calls of kernels."""

    lower: Callable[[Lowering, Node, dict[str, Any]], View]
    """Records the calls for a node and its arguments, by name; gives where the result lies."""
    contiguous: tuple[str, ...] = ()
    """The operands of which its kernels take contiguous tensors only."""


_WRITERS: dict[type, Callable[[Any, ProgramBuilder], None]] = {
    layers.Convert: emit_convert,
    layers.Copy: emit_copy,
    layers.Elementwise: emit_elementwise,
    layers.Fill: emit_fill,
    layers.Gather: emit_gather,
    layers.MatMul: emit_matmul,
    layers.Pool2d: emit_pool,
    layers.Resize2d: emit_resize,
    layers.Softmax: emit_softmax,
}
"""What records the calls of layers that one family computes."""

_OF_CONTIGUOUS: dict[Any, Callable[..., None]] = {
    ops.NMS: emit_nms,
    ops.SCAN: emit_scan,
    ops.SCATTER: emit_scatter,
    ops.TOP_K: emit_top_k,
}
"""What records the calls of operators of contiguous tensors."""

_RULES: dict[Any, _Rule] = {
    ops.CONV2D: _Rule(_conv2d),
    ops.LINEAR: _Rule(_linear, ("x", "residual")),
    ops.MATMUL: _Rule(_matmul, ("b",)),
    ops.CONVERT: _Rule(_convert, ("x",)),
    ops.GATHER: _Rule(_gather, ("x", "weight")),
    ops.TOP_K: _Rule(_plain, ("x",)),
    ops.SCAN: _Rule(_plain, ("x",)),
    ops.SCATTER: _Rule(_plain, ("x", "index", "updates")),
    ops.NMS: _Rule(_plain, ("boxes", "scores")),
    ops.POOL2D: _Rule(_pool2d),
    ops.RESIZE2D: _Rule(_resize2d),
    ops.SOFTMAX: _Rule(_softmax, ("x",)),
    ops.ELEMENTWISE: _Rule(_elementwise),
    ops.CONCAT: _Rule(_concat),
    ops.RESHAPE: _Rule(_reshape, ("self",)),
    ops.PERMUTE: _Rule(_permute),
    ops.SLICE: _Rule(_slice),
    ops.EXPAND: _Rule(_expand),
    ops.PAD: _Rule(_pad),
}
