"""Builds a graph call by call. What is known is computed at once, so chains of shape arithmetic and constants never
reach the graph.

A value is a `Tensor` when it is known and a graph's `Node` when it depends on the model's input. An operator of known
values is computed; any other becomes a call, its known operands ``get_attr`` nodes under the names that the file gives
them.
"""

import operator
import re
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from pcc.frontend.onnx.marks import Rows, Sizes
from pcc.ir.graph import assign_attribute, fake_mode, infer, shape_of

Value = Tensor | Node

MOST_ELEMENTS = 2**30
"""Of one value: 4 GiB as fp32. Files that ask for more are damaged, or no network for a phone."""

MOST_COMPUTED = 2**28
"""Bytes of all known values that are computed, in a file without weights: tables of positions and masks take some
MiB."""
TIMES_WEIGHTS = 3
"""As many bytes more as a file's weights have, so often: they may be cast, transposed and put together."""

_RESERVED = frozenset(dir(nn.Module())) | {"_modules", "_parameters", "_buffers"}


class Refused(Exception):
    """Why a node cannot be imported, as a phrase: ``its axes are computed from the model's input``."""


class AlreadyRefused(Exception):
    """Why a node cannot be imported: one that it is made of was refused, and noted."""


class Emitter:
    """A graph in the making."""

    def __init__(self) -> None:
        self.module = GraphModule(nn.Module(), Graph())
        self.graph = self.module.graph
        self.layer, self.kind, self.name = "", "", ""
        """What is imported now: the layer, its operator, and what its nodes are called after."""
        self.opset = 0
        """The version of the operators."""
        self.used: tuple[bool, ...] = ()
        """Which outputs of the operator somebody reads."""
        self.named: tuple[bool, ...] = ()
        """Which outputs it has."""
        self.more_outputs: dict[str, Value] = {}
        """What the model returns besides what its file says, by name."""
        self.marks: dict[Value | None, Rows | Sizes] = {}
        """Which values have rows that are none."""
        self.numbered: dict[Value, tuple[int, ...]] = {}
        """The places that a pooling gives, and the shape of what it numbered for them."""
        self._names: dict[int, tuple[Tensor, str]] = {}
        self._attributes: dict[int, Node] = {}
        self._taken: set[str] = set()
        self._room = MOST_COMPUTED
        """Bytes that known values may still take."""

    # ---- making nodes ----

    def input(self, name: str, example: Tensor) -> Node:
        node = self.graph.placeholder(identifier(name))
        node.meta["val"] = fake_mode(self.graph).from_tensor(example)
        return node

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        """The value of an operator: a `Value`, or a list of them where it has several results."""
        leaves = pytree.tree_leaves((args, kwargs))
        if not any(isinstance(leaf, Node) for leaf in leaves):
            return self._compute(target, args, kwargs)
        args, kwargs = pytree.tree_map(
            lambda leaf: self._attribute(leaf) if isinstance(leaf, Tensor) else leaf, (args, kwargs)
        )
        operation = str(getattr(target, "__name__", target)).split(".")[0].strip("_")
        node = self.graph.create_node(
            "call_function", target, tuple(args), kwargs, name=identifier(f"{self.name}_{operation}")
        )
        node.meta["nn_module_stack"] = {"": (self.layer, f"onnx.{self.kind}")}
        infer(node)
        self._check_size(node.meta["val"])
        if isinstance(node.meta["val"], Tensor):
            return node
        return [self._item(node, place) for place in range(len(node.meta["val"]))]

    def _item(self, node: Node, place: int) -> Node:
        item = self.graph.create_node("call_function", operator.getitem, (node, place), name=f"{node.name}_{place}")
        item.meta["nn_module_stack"] = node.meta["nn_module_stack"]
        item.meta["val"] = node.meta["val"][place]
        return item

    def _compute(self, target: Any, args: Any, kwargs: Any) -> Any:
        with torch.no_grad():
            with fake_mode(self.graph) as mode:
                fakes = pytree.tree_map(
                    lambda leaf: mode.from_tensor(leaf) if isinstance(leaf, Tensor) else leaf, (args, kwargs)
                )
                result = target(*fakes[0], **fakes[1])
                self._check_size(result)
                self.check_room(sum(part.nbytes for part in pytree.tree_leaves(result) if isinstance(part, Tensor)))
            value = target(*args, **kwargs)
        return value if isinstance(value, Tensor) else list(value)

    def _check_size(self, value: Any) -> None:
        for part in pytree.tree_leaves(value):
            if isinstance(part, Tensor):
                check_size(part.shape)

    # ---- known values ----

    def read(self, value: Tensor) -> Tensor:
        """A value of the file."""
        self._room += (1 + TIMES_WEIGHTS) * value.nbytes
        return value

    def check_room(self, nbytes: int) -> None:
        """`Refused` for known values that would take more memory than a model has reason to."""
        if nbytes > self._room:
            raise Refused(
                f"a constant of {nbytes:,} bytes: with those before, more than pcc computes for a file of this size"
            )

    def called(self, value: Tensor, name: str) -> Tensor:
        """A known value under a name, which is kept; where it has one already, that stays."""
        if id(value) not in self._names:
            self.check_room(value.nbytes)
            self._room -= value.nbytes
            self._names[id(value)] = value, name
        return value

    def called_like(self, value: Value, other: Value) -> Value:
        """A known value that was made of another one has its name: a transposed weight is that weight."""
        if isinstance(value, Tensor) and isinstance(other, Tensor) and id(other) in self._names:
            self.called(value, self._names[id(other)][1])
        return value

    def name_of(self, value: Value | None) -> str | None:
        return self._names[id(value)][1] if isinstance(value, Tensor) and id(value) in self._names else None

    def _attribute(self, value: Tensor) -> Node:
        """The node that reads a known value; one for each."""
        if id(value) not in self._attributes:
            name = self.name_of(value) or f"{self.name}_constant"
            self.called(value, name)  # holds it, so that its id stays its own
            target = self._free(dotted(name))
            assign_attribute(self.module, target, value.detach().contiguous())
            node = self.graph.create_node("get_attr", target, name=identifier(target))
            node.meta["val"] = fake_mode(self.graph).from_tensor(value.detach())
            self._attributes[id(value)] = node
        return self._attributes[id(value)]

    def _free(self, target: str) -> str:
        """A dotted name that no attribute has, that is no part of another's, and that no module has of itself."""
        parts = [f"{part}_" if part in _RESERVED else part for part in target.split(".")]
        target, number = ".".join(parts), 0
        prefixes = {".".join(parts[:count]) for count in range(1, len(parts))}
        if self._taken & prefixes or any(taken.startswith(f"{target}.") for taken in self._taken):
            target = target.replace(".", "_")
        free = target
        while free in self._taken:
            number += 1
            free = f"{target}_{number}"
        self._taken.add(free)
        return free

    # ---- the end ----

    def return_too(self, name: str, value: Value) -> str:
        """Lets the model return a value besides what its file says; gives the value's name, which is its own."""
        free, number = identifier(name), 1
        while free in self.more_outputs:
            number += 1
            free = f"{identifier(name)}_{number}"
        self.more_outputs[free] = value
        return free

    def finish(self, results: Sequence[Value]) -> GraphModule:
        self.name = "output"
        self.graph.output(tuple(self._attribute(value) if isinstance(value, Tensor) else value for value in results))
        return self.module


def shape(value: Value) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else shape_of(value)


def rank(value: Value) -> int:
    return len(shape(value))


def dtype(value: Value) -> torch.dtype:
    return value.dtype if isinstance(value, Tensor) else value.meta["val"].dtype


def known(value: Value | None, what: str) -> Tensor | None:
    """A value that has to be known when compiling; ``what`` names it: ``its axes``."""
    if isinstance(value, Node):
        raise Refused(
            f"{what} computed from the model's input; pcc has to know it when it compiles: make it a constant"
        )
    return value


def integers(value: Value | Sequence[int] | None, what: str) -> list[int] | None:
    """Numbers that have to be known when compiling, from a tensor or an attribute."""
    if value is None or not isinstance(value, Tensor | Node):
        return None if value is None else [int(number) for number in value]
    tensor = known(value, what)
    assert tensor is not None
    if tensor.is_floating_point():
        raise Refused(f"{what} no integers")
    return [int(number) for number in tensor.flatten().tolist()]


def number(value: Value, what: str) -> Any:
    """A single number that has to be known when compiling."""
    tensor = known(value, what)
    assert tensor is not None
    if tensor.numel() != 1:
        raise Refused(f"{what} no single number")
    return tensor.item()


def check_size(sizes: Sequence[int]) -> None:
    if any(size < 0 for size in sizes) or prod(sizes) > MOST_ELEMENTS:
        raise Refused(f"a value of {'x'.join(map(str, sizes))} numbers is larger than any that pcc computes")


def identifier(name: str) -> str:
    """A name as part of a Python program."""
    text = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_") or "value"
    return f"_{text}" if text[0].isdigit() else text


def dotted(name: str) -> str:
    """A name as an attribute's path: identifiers and numbers between dots."""
    parts = [re.sub(r"\W", "_", part, flags=re.ASCII) for part in name.strip("/").replace("::", "_").split(".")]
    return ".".join(part for part in parts if part) or "constant"
