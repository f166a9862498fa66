"""An ONNX model that grows by a node at a time, each run by ONNX Runtime as it is drawn."""

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from tests.random_graphs.builder import GAP, LARGEST, MOST_ELEMENTS, Unfit

OPSETS = (11, 13, 17, 18, 20, 21)


class OnnxBuilder:
    """A model being drawn. Values are known by name."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.numbers = np.random.default_rng(random.getrandbits(32))
        self.opset = random.choice(OPSETS)
        self.inputs: dict[str, np.ndarray] = {}
        self.values: dict[str, np.ndarray] = {}
        self.live: list[str] = []
        """Those that depend on the model's inputs."""
        self.constants: dict[str, np.ndarray] = {}
        self.nodes: list[onnx.NodeProto] = []

    def input(self, *shape: int) -> None:
        name = f"input:{len(self.inputs)}"
        self.inputs[name] = self.values[name] = self.noise(*shape)
        self.live.append(name)

    # ---- draws ----

    def noise(self, *shape: int) -> np.ndarray:
        return self.numbers.standard_normal(shape).astype(np.float32)

    def size(self, most: int) -> int:
        return self.random.randint(1, max(1, most))

    def flag(self) -> bool:
        return self.random.random() < 0.5

    def divisor(self, number: int) -> int:
        return self.random.choice([n for n in range(1, number + 1) if number % n == 0])

    def pick(self, suits: Callable[[np.ndarray], bool]) -> str:
        fit = [name for name in self.live if suits(self.values[name])]
        if not fit:
            raise Unfit
        return fit[max(self.random.randrange(len(fit)), self.random.randrange(len(fit)))]

    def real(self, *ranks: int) -> str:
        return self.pick(lambda x: x.dtype == np.float32 and (not ranks or x.ndim in ranks))

    def axis(self, x: np.ndarray) -> int:
        if not x.ndim:
            raise Unfit
        return self.random.randrange(-x.ndim, x.ndim)

    def axes(self, x: np.ndarray) -> list[int]:
        if not x.ndim:
            raise Unfit
        chosen = sorted(self.random.sample(range(x.ndim), self.size(x.ndim)))
        return [axis - x.ndim if self.flag() else axis for axis in chosen]

    # ---- nodes ----

    def add(self, operator: str, *operands: str | np.ndarray | None, outputs: int = 1, **attributes: Any) -> str:
        """Runs a node and keeps it; arrays become initializers. The name of its first result, or `Unfit` if that is
        empty, large or no number."""
        names, feeds, name = [], {}, ""
        for operand in operands:
            if isinstance(operand, np.ndarray):
                name = f"node/{len(self.nodes)}.constant:{len(feeds)}"
                feeds[name] = operand
            elif operand is not None:
                name = operand
                feeds[name] = self.values[name]
            names.append("" if operand is None else name)
        result_names = [f"node/{len(self.nodes)}/{operator}_{place}:0" for place in range(outputs)]
        node = helper.make_node(operator, names, result_names, name=f"node/{len(self.nodes)}", **attributes)
        results = run_node(node, feeds, self.opset)
        for value in results:
            if not isinstance(value, np.ndarray) or not value.size or value.size > MOST_ELEMENTS or value.ndim > 6:
                raise Unfit
            if not (np.abs(value.astype(np.float64)) <= LARGEST).all():
                raise Unfit
        self.nodes.append(node)
        self.constants.update((name, value) for name, value in feeds.items() if name not in self.values)
        self.values.update(zip(result_names, results, strict=True))
        if operator != "Shape" and any(name in self.live for name in names):
            self.live += result_names
        return result_names[0]

    def model(self) -> onnx.ModelProto:
        """What was drawn: what nobody reads, and a value that somebody does, are the outputs."""
        read = {name for node in self.nodes for name in node.input}
        computed = [name for name in self.live if name not in self.inputs]
        outputs = dict.fromkeys([*(name for name in computed if name not in read), self.random.choice(computed)])
        graph = helper.make_graph(
            self.nodes,
            "random",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
                for name, value in self.inputs.items()
            ],
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(self.values[name].dtype), None)
                for name in outputs
            ],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def expected(self, model: onnx.ModelProto) -> list[np.ndarray]:
        return [self.values[value.name] for value in model.graph.output]


def run_node(node: onnx.NodeProto, feeds: dict[str, np.ndarray], opset: int) -> list[Any]:
    graph = helper.make_graph(
        [node],
        "node",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in feeds.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in node.output],
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads, options.graph_optimization_level = (
        4,
        1,
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    try:
        session: Any = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return session.run(None, feeds)
    except Exception as error:  # ONNX Runtime's: arguments that do not fit, and operators that it does not have
        raise Unfit(str(error)) from error


def apart(*differences: np.ndarray) -> None:
    """`Unfit` if a number, of which the sign decides, is nearly 0."""
    if any(bool((np.abs(x) < GAP).any()) for x in differences):
        raise Unfit


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def scalar(number: float) -> np.ndarray:
    return np.array(number, np.float32)


def broadcast(x: np.ndarray, y: np.ndarray) -> bool:
    return all(1 in (m, n) or m == n for m, n in zip(x.shape[::-1], y.shape[::-1], strict=False))


def constant_for(b: OnnxBuilder, x: np.ndarray) -> np.ndarray:
    """Of a shape that broadcasts to the value's."""
    return b.noise(*[size if b.flag() else 1 for size in x.shape][b.random.randint(0, x.ndim) :])
