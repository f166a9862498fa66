"""Tests that need an emulated arm64: marked, and reported as not run, with the reason, where QEMU or the arm64 C
library is missing."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from pcc.codegen.objects import compile_kernels
from pcc.codegen.plan_memory import PlanMemory
from pcc.codegen.program import Program
from pcc.deploy import Qemu
from pcc.package import PackageSpec, TargetBuild, build_package, open_package
from pcc.target import target_named

CPUS = ("cortex-a53", "cortex-a76", "max")
"""What is emulated: the oldest cores that we compile for, newer ones, and all that QEMU knows."""

FP16_CPUS = ("cortex-a76", "max")
"""Those of them that compute in fp16; the first is one that pcc compiles for."""

Test = TypeVar("Test", bound=Callable[..., Any])


def arm64(test: Test) -> Test:
    """Marks a test function or class as one for arm64."""
    missing = Qemu.missing()
    return pytest.mark.arm64(pytest.mark.skipif(missing is not None, reason=f"arm64 not run: {missing}")(test))


def run_emulated(
    program: Program, inputs: Sequence[np.ndarray], cpus: Sequence[str] = CPUS, threads: int = 2, cpu: str | None = None
) -> dict[str, list[np.ndarray]]:
    """The outputs of a program (for NEON, memory not planned), compiled for ``cpu``, on each emulated processor,
    through package and runner."""
    target = target_named("aarch64-linux", cpu)
    planned = PlanMemory()(program)
    objects = [kernel.object for kernel in compile_kernels(planned.kernels, target)]
    with tempfile.TemporaryDirectory() as folder:
        build_package(PackageSpec(planned.name, [TargetBuild(target, planned, objects)]), Path(folder))
        package = open_package(Path(folder))
        return {cpu: Qemu(cpu).run(package, inputs, threads) for cpu in cpus}
