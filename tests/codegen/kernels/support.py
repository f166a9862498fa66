"""Runs one-layer programs on the interpreter and as machine code, whole and in parts, and compares them with float64
PyTorch."""

import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from pcc.codegen.family import cheapest, family_named
from pcc.codegen.interpret import interpret
from pcc.codegen.isa import ISAS, Isa, isa_named
from pcc.codegen.kernel import Kernel
from pcc.codegen.layers import Conv2d, Linear
from pcc.codegen.machine import MACHINES, Machine
from pcc.codegen.native import run_native
from pcc.codegen.objects import compile_kernel
from pcc.codegen.program import Program, ProgramBuilder, View
from pcc.dtype import FLOAT32
from pcc.target import Target, executes_here, target_named

X86_TARGETS: tuple[Target, ...] = tuple(
    target for cpu in ("x86-64-v3", "x86-64-v4") if executes_here(target := target_named("x86_64-linux", cpu))
)
"""The x86-64 targets whose code this machine can execute."""

ALL_TARGETS: tuple[Target, ...] = (*X86_TARGETS, target_named("aarch64-linux", "cortex-a72"))
"""Those and arm64, for tests that read assembly."""

LANES = {isa.name: isa.lanes(FLOAT32) for isa in ISAS.values()}


def machine_of(isa: Isa) -> Machine:
    """A processor with that instruction set."""
    return next(machine for machine in MACHINES.values() if machine.isa == isa)


def emit_by(family: str, layer: Conv2d | Linear, b: ProgramBuilder, number: int | None = None) -> None:
    """Records a layer by the family's cheapest schedule, or by the one of that number."""
    machine, chosen = machine_of(b.isa), family_named(family)
    found = cheapest(chosen, layer, machine)
    assert not isinstance(found, str), found
    candidates = [found[0]] if number is None else chosen.candidates(layer, machine)
    assert not isinstance(candidates, str)
    chosen.emit(layer, candidates[number or 0].schedule, b)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def padded_view(b: ProgramBuilder, name: str, shape: tuple[int, int, int, int], extra: int = 3) -> View:
    """A tensor whose rows, planes and images have ``extra`` unused elements after them."""
    n, c, h, w = shape
    row = w + extra
    plane = h * row + extra
    image = c * plane + extra
    return b.strided(name, shape, (image, plane, row, 1), extra, n * image + extra)


def assembly(kernel: Kernel, target: Target) -> str:
    """The assembly text of a kernel."""
    return compile_kernel(kernel, target).texts["s"].read_text()


def external_calls(text: str) -> set[str]:
    """Functions that assembly text calls or jumps to; a kernel must need none."""
    return set(re.findall(r"^\s+(?:callq?|bl|b|jmp)\s+([A-Za-z_]\w*)", text, re.MULTILINE))


def loop_blocks(text: str) -> list[str]:
    """The basic blocks of assembly text, debug labels and directives left out, each up to its first branch."""
    lines = [line for line in text.splitlines() if not re.match(r"\s*\.[a-z]|\.L(?!BB)|\s*#|\s*//", line)]
    blocks = re.split(r"^\.LBB\w+:.*$", "\n".join(lines), flags=re.MULTILINE)
    return [
        block[: end.start()] if (end := re.search(r"\n\s+(?:j[a-z]+|b\.\w+|cbn?z)\s", block)) else block
        for block in blocks
    ]


def inner_loop(text: str) -> str:
    """The instructions of the loop that holds most of the fused multiply-adds."""
    return max(loop_blocks(text), key=lambda block: len(re.findall(r"vfmadd|fmla", block)))


def check(
    build: Callable[[ProgramBuilder], None],
    inputs: Sequence[np.ndarray],
    expected: Sequence[torch.Tensor],
    *,
    rtol: float = 1e-5,
    targets: Sequence[Target] = X86_TARGETS,
    parts: Sequence[int] = (1, 3),
) -> list[Program]:
    """Builds the program for each target and compares each output with ``expected`` (float64), relative to the largest
    expected value.

    ``build`` declares inputs and outputs on the builder it gets. Every target runs on the interpreter and natively,
    each in ``parts``.
    """
    if not targets:
        pytest.skip("this computer executes the code of no such target")
    programs = []
    for target in targets:
        b = ProgramBuilder("test", isa_named(target.isa))
        build(b)
        program = b.build()
        assert all(kernel.name.isidentifier() for kernel in program.kernels)
        programs.append(program)
        for split in parts:
            for how, outputs in (
                (f"interpreter, {split} parts", interpret(program, inputs, parts=split)),
                (f"{target.cpu}, {split} parts", run_native(program, inputs, target, parts=split)),
            ):
                for output, want in zip(outputs, expected, strict=True):
                    want = want.double().numpy()
                    assert output.shape == want.shape
                    error = np.abs(output - want).max(initial=0.0) / max(np.abs(want).max(initial=0.0), 1e-6)
                    assert error <= rtol, f"{how}: relative error {error:g}"
    return programs
