"""The nodes of an ONNX model: each function draws operands and attributes, and adds itself, as the model's opset has
it."""

from collections.abc import Callable, Sequence
from typing import Any

from tests.random_graphs.builder import Unfit
from tests.random_graphs.onnx_builder import OnnxBuilder
from tests.random_graphs.onnx_nodes import layers, moves, numbers

Step = Callable[[OnnxBuilder], Any]

STEPS: Sequence[Step] = [*layers.STEPS, *moves.STEPS, *numbers.STEPS]
"""What is drawn from; what stands here twice is drawn twice as often."""


def draw(b: OnnxBuilder, steps: Sequence[Step] = STEPS) -> OnnxBuilder:
    """A model of one or two inputs and up to ten nodes or a few more."""
    for _ in range(b.random.choice([1, 1, 2])):
        b.input(b.size(3), b.size(8), b.size(9), b.size(9)) if b.random.random() < 0.8 else b.input(
            *(b.size(7) for _ in range(b.size(3)))
        )
    wanted, tried = b.size(10), 0
    while len(b.nodes) < wanted and tried < 200:
        tried += 1
        try:
            b.random.choice(steps)(b)
        except Unfit:
            continue
    if not b.nodes:
        b.add("Neg", b.real())
    return b
