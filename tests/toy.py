"""A small program whose every number can be checked by hand, with kernels of its own: what the tests of runtime,
package and deploy compile."""

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.isa import isa_named
from pcc.codegen.kernel import Argument, Param
from pcc.codegen.plan_memory import PlanMemory
from pcc.codegen.program import Program, ProgramBuilder
from pcc.package import PackageSpec, SelfTest, TargetBuild, build_package, new_package
from pcc.target import TARGETS

if TYPE_CHECKING:
    from pcc.codegen.builder import KernelBuilder


@dataclass(frozen=True)
class ScaleRows:
    """``y[r, c] = scale * x[r, c] + bias[r]`` for rows of ``width`` elements; a work item is a row."""

    name: str = "pcc_toy_scale_rows"
    params: tuple[Param, ...] = (
        Param("x", "f32*"),
        Param("bias", "f32*"),
        Param("y", "f32*", writes=True),
        Param("width"),
        Param("scale", "f32"),
    )

    def body(self, k: "KernelBuilder") -> None:
        width, x, y = k["width"], k["x"], k["y"]
        with k.work() as row, k.loop(0, width) as column:
            value = k.load(x, row * width + column) * k["scale"] + k.load(k["bias"], row)
            k.store(y, row * width + column, value)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        x, bias, y, width = args["x"], args["bias"], args["y"], int(args["width"])  # type: ignore[arg-type]
        assert isinstance(x, np.ndarray)
        assert isinstance(bias, np.ndarray)
        assert isinstance(y, np.ndarray)
        for row in range(begin, end):
            row_slice = slice(row * width, (row + 1) * width)
            y[row_slice] = x[row_slice] * np.float32(args["scale"]) + bias[row]


@dataclass(frozen=True)
class Gather:
    """``y[i] = x[index[i]] + residual[i]``; a work item is an element."""

    name: str = "pcc_toy_gather"
    params: tuple[Param, ...] = (
        Param("x", "f32*"),
        Param("index", "i32*"),
        Param("residual", "f32*"),
        Param("y", "f32*", writes=True),
    )

    def body(self, k: "KernelBuilder") -> None:
        with k.work() as i:
            k.store(k["y"], i, k.load(k["x"], k.load(k["index"], i)) + k.load(k["residual"], i))

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        x, index, residual, y = (args[name] for name in ("x", "index", "residual", "y"))
        assert isinstance(x, np.ndarray)
        assert isinstance(residual, np.ndarray)
        assert isinstance(y, np.ndarray)
        assert isinstance(index, np.ndarray)
        y[begin:end] = x[index[begin:end]] + residual[begin:end]


def toy_program(name: str = "toy", rows: int = 37, width: int = 13, depth: int = 5, seed: int = 0) -> Program:
    """Two inputs of (rows, width); ``depth`` rescalings of the first, each permuted and added to the second; two
    outputs. The second bias is prepared."""
    rng = np.random.default_rng(seed)
    b = ProgramBuilder(name, isa_named("neon"))
    x, other = b.input("image", (1, rows, width)), b.input("other", (rows, width))
    for step in range(depth):
        b.layer = f"scale.{step}"
        y = b.tensor(f"scaled.{step}", (rows, width))
        bias = b.constant(f"scale.{step}.bias", rng.integers(-8, 8, rows).astype(np.float32) / 8)
        if step == 1:
            doubled = {"x": bias, "bias": bias, "width": 1, "scale": 1.0}
            bias = b.prepared("scale.1.doubled", (rows,), ScaleRows(), "y", doubled, work=rows)
        b.call(
            ScaleRows(),
            {"x": x, "bias": bias, "y": y, "width": width, "scale": 0.5 + step / 4},
            work=rows,
            macs=rows * width,
            dense_macs=2 * rows * width,
        )
        b.layer = f"mix.{step}"
        x = b.tensor(f"mixed.{step}", (rows, width))
        index = b.table(f"mix.{step}.index", rng.permutation(rows * width))
        b.call(Gather(), {"x": y, "index": index, "residual": other, "y": x}, work=rows * width)
        if step == 0:
            b.output("first", x)
    b.output("last", x)
    return PlanMemory()(b.build())


def toy_inputs(program: Program, seed: int = 1) -> list[np.ndarray]:
    """Normal values for the program's inputs."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(port.shape).astype(np.float32) for port in program.inputs]


PREPROCESSING = {"size": 13, "resize": 13, "channels": "L", "mean": [0.5], "std": [0.25]}


@cache
def toy_package() -> Path:
    """A package of the toy program for every target, with a self-test; made once, removed at exit. Not to be changed:
    copy it."""
    from pcc.codegen.interpret import interpret
    from pcc.codegen.objects import compile_kernels

    program = toy_program()
    inputs = toy_inputs(program)
    builds = [
        TargetBuild(target, program, [kernel.object for kernel in compile_kernels(program.kernels, target)])
        for target in TARGETS.values()
    ]
    folder = Path(tempfile.mkdtemp(prefix="pcc-toy-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with new_package(folder / "toy.pcc") as staging:
        selftest = SelfTest(inputs, interpret(program, inputs), tolerance=1e-5)
        spec = PackageSpec(
            "toy",
            builds,
            preprocessing=PREPROCESSING,
            labels=["cat", "dog"],
            selftest=selftest,
            notes={"pipeline": "none"},
        )
        build_package(spec, staging)
    return folder / "toy.pcc"
