"""Times kernels layer by layer against ONNX Runtime on one thread, interleaved, and prints the ratios' medians.

Run it pinned, e.g. ``taskset -c 1 python tools/bench_kernels.py resnet50``. Absolute times move with the machine's load; ratios move less.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from pcc.codegen.interpret import Memory
from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.conv_dense import emit_conv_dense
from pcc.codegen.kernels.conv_depthwise import emit_conv_depthwise
from pcc.codegen.kernels.linear import emit_linear
from pcc.codegen.layers import Conv2d, ConvGeometry, Linear
from pcc.codegen.native import NativeKernels
from pcc.codegen.program import Program, ProgramBuilder
from pcc.ir.activation import Activation
from pcc.target import Target, target_named


@dataclass(frozen=True)
class Case:
    """A layer and how often its network has it. ``size`` 0 is a linear layer."""

    inputs: int
    size: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    count: int = 1

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def out_size(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def macs(self) -> int:
        if self.size == 0:
            return self.inputs * self.outputs
        return self.out_size**2 * self.outputs * self.kernel**2 * (1 if self.depthwise else self.inputs)

    def __str__(self) -> str:
        kind = "fc" if self.size == 0 else "dw" if self.depthwise else "conv"
        return f"{kind} {self.inputs}->{self.outputs} {self.kernel}x{self.kernel}/{self.stride} @{self.size} x{self.count}"


def _resnet50() -> list[Case]:
    cases = [Case(3, 224, 64, 7, 2)]
    channels, size = 64, 56
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width, stride = 64 << stage, 1 if stage == 0 else 2
        cases += [Case(channels, size, width), Case(width, size, width, 3, stride), Case(channels, size, 4 * width, 1, stride)]
        size, channels = size // stride, 4 * width
        cases += [Case(width, size, channels, count=blocks), Case(channels, size, width, count=blocks - 1), Case(width, size, width, 3, count=blocks - 1)]
    return [*cases, Case(2048, 0, 1000)]


def _vgg16() -> list[Case]:
    convs = [(3, 224, 64, 1), (64, 224, 64, 1), (64, 112, 128, 1), (128, 112, 128, 1), (128, 56, 256, 1), (256, 56, 256, 2)]
    convs += [(256, 28, 512, 1), (512, 28, 512, 2), (512, 14, 512, 3)]
    return [*(Case(i, s, o, 3, count=n) for i, s, o, n in convs), Case(25088, 0, 4096), Case(4096, 0, 4096), Case(4096, 0, 1000)]


def _mobilenet_v2() -> list[Case]:
    cases = [Case(3, 224, 32, 3, 2)]
    channels, size = 32, 112
    for expand, out, blocks, first_stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for block in range(blocks):
            stride, hidden = first_stride if block == 0 else 1, channels * expand
            cases += [Case(channels, size, hidden)] if expand > 1 else []
            cases += [Case(hidden, size, hidden, 3, stride, depthwise=True), Case(hidden, size // stride, out)]
            channels, size = out, size // stride
    cases += [Case(320, 7, 1280), Case(1280, 0, 1000)]
    return [Case(**{**vars(case), "count": cases.count(case)}) for case in dict.fromkeys(cases)]


NETWORKS: dict[str, Callable[[], list[Case]]] = {"resnet50": _resnet50, "vgg16": _vgg16, "mobilenet_v2": _mobilenet_v2}


def _weights(case: Case) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    shape = (case.outputs, case.inputs) if case.size == 0 else (case.outputs, 1 if case.depthwise else case.inputs, case.kernel, case.kernel)
    return random.standard_normal(shape, np.float32) * 0.05, random.standard_normal(case.outputs, np.float32)


def _program(case: Case, lanes: int) -> Program:
    b = ProgramBuilder("bench", lanes, layer=str(case))
    weight, bias = _weights(case)
    relu = Activation("relu")
    if case.size == 0:
        y = b.tensor("y", (1, case.outputs))
        emit_linear(Linear("fc", b.input("x", (1, case.inputs)), y, weight, bias, activation=relu), b)
    else:
        x, y = b.input("x", (1, case.inputs, case.size, case.size)), b.tensor("y", (1, case.outputs, case.out_size, case.out_size))
        geometry = ConvGeometry((case.kernel, case.kernel), (case.stride, case.stride), (case.padding, case.padding, case.padding, case.padding))
        layer = Conv2d("conv", x, y, weight, bias, geometry, case.inputs if case.depthwise else 1, activation=relu)
        (emit_conv_depthwise if case.depthwise else emit_conv_dense)(layer, b)
    b.output("y", y)
    return b.build()


class Ours:
    """A case as machine code in this process."""

    def __init__(self, case: Case, target: Target, inputs: np.ndarray) -> None:
        program = _program(case, isa_named(target.isa).lanes)
        self._kernels, self._memory = NativeKernels(program.kernels, target), Memory(program)
        self._memory.arrays["x"][: inputs.size] = inputs.ravel()
        self._calls = [(call.kernel, self._memory.arguments(call), call.work) for call in program.calls]

    def run(self) -> float:
        """Seconds of one run."""
        start = time.perf_counter()
        for kernel, arguments, work in self._calls:
            self._kernels.call(kernel, arguments, 0, work)
        return time.perf_counter() - start

    def output(self) -> np.ndarray:
        return self._memory.arrays["y"]


class Theirs:
    """The same case in ONNX Runtime."""

    def __init__(self, case: Case, inputs: np.ndarray) -> None:
        weight, bias = _weights(case)
        constants = [helper.make_tensor(n, TensorProto.FLOAT, v.shape, v.tobytes(), raw=True) for n, v in (("w", weight), ("b", bias))]
        if case.size == 0:
            node = helper.make_node("Gemm", ["x", "w", "b"], ["z"], transB=1)
        else:
            groups = case.inputs if case.depthwise else 1
            attributes = {"pads": [case.padding] * 4, "strides": [case.stride] * 2, "kernel_shape": [case.kernel] * 2, "group": groups}
            node = helper.make_node("Conv", ["x", "w", "b"], ["z"], **attributes)
        out = (1, case.outputs) if case.size == 0 else (1, case.outputs, case.out_size, case.out_size)
        ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs.shape)], [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)]
        graph = helper.make_graph([node, helper.make_node("Relu", ["z"], ["y"])], "bench", *ports, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._inputs = {"x": inputs}

    def run(self) -> float:
        """Seconds of one run."""
        start = time.perf_counter()
        self.result = self._session.run(None, self._inputs)[0]
        return time.perf_counter() - start


def _shape(case: Case) -> tuple[int, ...]:
    return (1, case.inputs) if case.size == 0 else (1, case.inputs, case.size, case.size)


def compare(cases: Sequence[Case], target: Target, runs: int) -> None:
    """Prints a line a layer, and the network's total (every layer as often as it occurs)."""
    totals = [0.0, 0.0]
    print(f"{'layer':38} {'ours ms':>8} {'ORT ms':>8} {'ours GF/s':>10} {'ORT GF/s':>9} {'ours/ORT':>9}")
    for case in cases:
        inputs = np.random.default_rng(1).standard_normal(_shape(case), np.float32)
        ours, theirs = Ours(case, target, inputs), Theirs(case, inputs)
        ours.run()
        theirs.run()
        want = np.asarray(theirs.result).ravel()
        error = np.abs(ours.output()[: want.size] - want).max() / np.abs(want).max()
        if error > 1e-4:
            raise SystemExit(f"{case}: relative error {error:g} against ONNX Runtime")
        pairs = [(ours.run(), theirs.run()) for _ in range(runs)]
        mine, other = (min(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        totals = [totals[0] + mine * case.count, totals[1] + other * case.count]
        rates = [2e-9 * case.macs / seconds for seconds in (mine, other)]
        print(f"{case!s:38} {mine * 1e3:8.3f} {other * 1e3:8.3f} {rates[0]:10.1f} {rates[1]:9.1f} {ratio:9.2f}", flush=True)
    print(f"{'all':38} {totals[0] * 1e3:8.2f} {totals[1] * 1e3:8.2f} {'':10} {'':9} {totals[0] / totals[1]:9.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--cpu", default="native", help="x86-64 processor to compile for (default: this one)")
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    compare(NETWORKS[options.network](), target_named("x86_64-linux", options.cpu), options.runs)


if __name__ == "__main__":
    main()
