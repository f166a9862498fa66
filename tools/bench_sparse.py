"""Times sparse convolutions against our dense kernel on one thread, interleaved, for filter groups of 1, 2 and 4.

Run it pinned, e.g. ``taskset -c 1 python tools/bench_sparse.py vgg16 --patterns 8 --rate 3.6``. Weights are random and pruned as the passes prune
them; the dense kernel computes the same pruned weights, and the results must agree. Staging the input is part of every time. GFLOP/s are
dense-equivalent (what a dense layer would need), from the best run; ``x`` is the median ratio to dense, in parentheses what the cost models say.
"""

import argparse
import statistics
import time

import numpy as np

from pcc.codegen.interpret import Memory
from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.conv_dense import cost_conv_dense, emit_conv_dense
from pcc.codegen.kernels.conv_sparse import cost_conv_sparse, emit_conv_sparse
from pcc.codegen.layers import Conv2d, ConvGeometry
from pcc.codegen.native import NativeKernels
from pcc.codegen.program import ProgramBuilder
from pcc.ir.activation import Activation
from pcc.sparsity import fkw, joint, pattern
from pcc.target import Target, target_named

Case = tuple[int, int, int, int, int]
"""Input channels, input size, output channels, kernel, stride."""

VGG16: tuple[Case, ...] = tuple(
    (inputs, size, outputs, 3, 1)
    for inputs, size, outputs in (
        (64, 224, 64),
        (64, 112, 128),
        (128, 112, 128),
        (128, 56, 256),
        (256, 56, 256),
        (256, 28, 512),
        (512, 28, 512),
        (512, 14, 512),
    )
)
RESNET50: tuple[Case, ...] = tuple((64 << stage, 112 >> stage, 64 << stage, 3, 2) for stage in (1, 2, 3)) + tuple(
    (64 << stage, 56 >> stage, 64 << stage, 3, 1) for stage in range(4)
)
RESNET50_1X1: tuple[Case, ...] = tuple(
    case for stage in range(4) for case in ((64 << stage, 56 >> stage, 256 << stage, 1, 1), (256 << stage, 56 >> stage, 64 << stage, 1, 1))
)
NETWORKS = {"vgg16": VGG16, "resnet50": RESNET50, "resnet50-1x1": RESNET50_1X1}


def _prune(case: Case, patterns: np.ndarray | None, rate: float, share: int) -> tuple[np.ndarray, fkw.FKW]:
    inputs, _, outputs, kernel, _ = case
    weight = np.random.default_rng(0).standard_normal((outputs, inputs, kernel, kernel), np.float32) * 0.05
    cut = joint.project(weight, patterns if kernel == 3 else None, rate, share=share)
    return cut.weight, fkw.pack(cut.weight, 1, patterns if kernel == 3 else None, share, cut.order)


class Compiled:
    """One layer as machine code in this process, its dense-equivalent operations and what it weighs."""

    def __init__(self, case: Case, weight: np.ndarray | fkw.FKW, target: Target) -> None:
        inputs, size, outputs, kernel, stride = case
        pad, lanes = kernel // 2, isa_named(target.isa).lanes
        geometry = ConvGeometry((kernel, kernel), (stride, stride), (pad, pad, pad, pad))
        out = geometry.output_size(size, size)
        b = ProgramBuilder("bench", lanes, layer="conv")
        x, y = b.input("x", (1, inputs, size, size)), b.tensor("y", (1, outputs, *out))
        layer = Conv2d("conv", x, y, weight, np.zeros(outputs, np.float32), geometry, activation=Activation("relu"))
        sparse = isinstance(weight, fkw.FKW)
        (emit_conv_sparse if sparse else emit_conv_dense)(layer, b)
        self.cost = (cost_conv_sparse if sparse else cost_conv_dense)(layer, lanes)
        b.output("y", y)
        program = b.build()
        self.flops = 2 * inputs * outputs * kernel**2 * out[0] * out[1]
        self.kernel = program.calls[-1].kernel.name.removeprefix("pcc_conv_").removesuffix("_relu")
        self.constant_bytes = sum(buffer.nbytes for buffer in program.buffers.values() if buffer.role == "constant")
        self._native, self._memory = NativeKernels(program.kernels, target), Memory(program)
        self._memory.arrays["x"][: inputs * size * size] = np.random.default_rng(1).standard_normal(inputs * size * size, np.float32)
        self._calls = [(call.kernel, self._memory.arguments(call), call.work) for call in program.calls]
        self._outputs = outputs * out[0] * out[1]

    def run(self) -> float:
        """Seconds of one run."""
        start = time.perf_counter()
        for kernel, arguments, work in self._calls:
            self._native.call(kernel, arguments, 0, work)
        return time.perf_counter() - start

    def output(self) -> np.ndarray:
        return self._memory.arrays["y"][: self._outputs]


def compare(case: Case, patterns: np.ndarray | None, rate: float, target: Target, runs: int) -> None:
    """Prints one layer's line."""
    inputs, size, outputs, kernel, stride = case
    pairs = []
    for share in (1, 2, 4):
        weight, packed = _prune(case, patterns, rate, share)
        pair = Compiled(case, weight, target), Compiled(case, packed, target)
        for one in pair:
            one.run()
        want = pair[0].output()
        error = np.abs(pair[1].output() - want).max() / np.abs(want).max()
        if error > 1e-4:
            raise SystemExit(f"{case}: relative error {error:g} against the dense kernel")
        pairs.append(pair)
    dense = pairs[0][0]
    forms = [dense, *(sparse for _, sparse in pairs)]
    seconds = [[one.run() for one in forms] for _ in range(runs)]
    best = [min(column) for column in zip(*seconds, strict=True)]
    line = f"{inputs:4}->{outputs:<4} {kernel}x{kernel}/{stride} @{size:<3} dense {dense.flops / best[0] * 1e-9:5.0f}"
    for i, one in enumerate(forms[1:], 1):
        ratio = statistics.median(row[0] / row[i] for row in seconds)
        line += f" | {one.flops / best[i] * 1e-9:5.0f} {ratio:4.1f}x ({dense.cost / one.cost:4.1f}) {one.kernel.removeprefix('sparse_')}"
    print(f"{line} | {forms[1].constant_bytes / dense.constant_bytes:.2f} of dense bytes", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--cpu", default="native", help="processor to compile for")
    parser.add_argument("--patterns", type=int, default=4, help="4: the designed ones; 0: every tap; else mined from random weights")
    parser.add_argument("--rate", type=float, default=3.6, help="connectivity")
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    random = np.random.default_rng(2).standard_normal((256, 64, 3, 3), np.float32)
    patterns = {0: None, 4: pattern.DESIGNED}.get(options.patterns, pattern.mine([random], options.patterns) if options.patterns else None)
    print("dense-equivalent GFLOP/s, ratio to dense (modelled) and kernel, for filter groups of 1 | 2 | 4")
    for case in NETWORKS[options.network]:
        compare(case, patterns, options.rate, target_named("x86_64-linux", options.cpu), options.runs)


if __name__ == "__main__":
    main()
