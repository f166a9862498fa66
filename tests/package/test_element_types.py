"""Tensors of every element type through a package: buffers, ports, manifest, header, library, loader, runner and
self-test."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pcc
from pcc.codegen.interpret import interpret
from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.copy import emit_copy
from pcc.codegen.layers import Copy
from pcc.codegen.objects import compile_kernels
from pcc.codegen.plan_memory import PlanMemory
from pcc.codegen.program import Program, ProgramBuilder
from pcc.deploy import Host, Qemu
from pcc.dtype import DTYPES
from pcc.errors import PccError
from pcc.package import PackageSpec, SelfTest, TargetBuild, build_package, open_package
from pcc.package.read import Package
from pcc.runtime.loader import load
from pcc.target import host_target, target_named
from tests.arm64 import arm64

SHAPE = (5, 37)


def transposing_program() -> Program:
    """An input of each type, its transpose as an output; a constant of each type beside it in one tensor."""
    b = ProgramBuilder("types", isa_named("neon"))
    for name, dtype in DTYPES.items():
        x, y = b.input(f"{name}_in", SHAPE, dtype), b.tensor(name, (2, *SHAPE[::-1]), dtype)
        constant = b.constant(
            f"{name}.constant", np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE[::-1]).astype(dtype.numpy)
        )
        parts = [replace(y, shape=SHAPE[::-1], strides=y.strides[1:], offset=half * y.strides[0]) for half in (0, 1)]
        emit_copy(Copy(f"{name}.turn", replace(x, shape=x.shape[::-1], strides=x.strides[::-1]), parts[0]), b)
        emit_copy(Copy(f"{name}.copy", constant, parts[1]), b)
        b.output(name, y)
    return PlanMemory()(b.build())


PROGRAM = transposing_program()
INPUTS = [np.random.default_rng(0).integers(0, 100, port.shape).astype(port.dtype.numpy) for port in PROGRAM.inputs]


def package_for(target: str, folder: Path) -> Package:
    chosen = target_named(target)
    objects = [kernel.object for kernel in compile_kernels(PROGRAM.kernels, chosen)]
    build_package(
        PackageSpec(
            "types", [TargetBuild(chosen, PROGRAM, objects)], selftest=SelfTest(INPUTS, interpret(PROGRAM, INPUTS))
        ),
        folder,
    )
    return open_package(folder)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return package_for(host_target().name, tmp_path_factory.mktemp("types"))


def agree(found: Sequence[np.ndarray]) -> None:
    for port, x, y in zip(PROGRAM.outputs, INPUTS, found, strict=True):
        assert y.dtype == port.dtype.numpy
        np.testing.assert_array_equal(y[0], x.T)
        np.testing.assert_array_equal(y[1].ravel(), np.arange(x.size).astype(port.dtype.numpy))


def test_in_this_process(package: Package) -> None:
    agree(interpret(PROGRAM, INPUTS))
    with load(package.path) as model:
        assert [spec.dtype.name for spec in model.inputs] == list(DTYPES)
        agree(model(*INPUTS))
        with pytest.raises(
            PccError,
            match=r"input 'float16_in' is float32, the model takes float16: convert it with .astype\('float16'\)",
        ):
            model(*(x.astype(np.float32) for x in INPUTS))


def test_by_the_runner(package: Package) -> None:
    assert [port.dtype for port in package.manifest.outputs] == list(DTYPES)
    agree(Host().run(package, INPUTS))
    assert Host().selftest(package).passed
    assert Host().bench(package, runs=2).median > 0


def test_a_wrong_value_of_any_type_fails_the_selftest(package: Package, tmp_path: Path) -> None:
    for index, port in enumerate(PROGRAM.outputs):
        recorded = interpret(PROGRAM, INPUTS)
        recorded[index].ravel()[7] += 1
        folder = tmp_path / port.name
        chosen = host_target()
        objects = [kernel.object for kernel in compile_kernels(PROGRAM.kernels, chosen)]
        build_package(
            PackageSpec("types", [TargetBuild(chosen, PROGRAM, objects)], selftest=SelfTest(INPUTS, recorded)), folder
        )
        assert not Host().selftest(open_package(folder)).passed, port.name


def test_header(package: Package) -> None:
    text = (package.path / "include" / "types.h").read_text()
    for dtype in DTYPES.values():
        assert f"'{dtype.name}_in': 5 x 37, {dtype.c} */" in text


@arm64
def test_on_arm64(tmp_path: Path) -> None:
    emulated = package_for("aarch64-linux", tmp_path / "types")
    agree(Qemu("cortex-a53").run(emulated, INPUTS))
    assert Qemu("cortex-a53").selftest(emulated).passed


class Constants(nn.Module):
    """Some outputs are known when compiling."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        numbers = torch.arange(3)
        return x + 1, numbers, numbers.int(), numbers > 1, torch.tensor(3.0), numbers.float()[:, None]


def test_outputs_that_are_the_same_for_every_input(tmp_path: Path) -> None:
    x = torch.randn(1, 3, 4, 4)
    pcc.compile(Constants().eval(), (x,), tmp_path / "package")
    found = pcc.load(tmp_path / "package")(x.numpy())
    for value, wanted in zip(found, Constants()(x), strict=True):
        assert value.shape == tuple(wanted.shape)
        assert value.dtype == (np.uint8 if wanted.dtype == torch.bool else wanted.numpy().dtype)
        np.testing.assert_array_equal(value, wanted.numpy())
