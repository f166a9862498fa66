"""The texts of what is compiled that ``--dump-ir`` and packages have: programs and kernels."""

import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pcc.codegen.objects import CompiledKernel
from pcc.codegen.print_program import print_program
from pcc.codegen.program import Program
from pcc.files import writing
from pcc.package.spec import GpuBuild


def dump_program(folder: Path, program: Program) -> None:
    with _dumping(folder):
        (folder / "program.txt").write_text(print_program(program), encoding="utf-8")


def dump_kernels(folder: Path, kernels: Sequence[CompiledKernel]) -> None:
    with _dumping(folder):
        for kernel in kernels:
            for suffix, text in kernel.texts.items():
                shutil.copyfile(text, folder / f"{kernel.name}.{suffix}")


def dump_gpu(place: Path, build: GpuBuild, suffix: str, roots: Sequence[Path], dump_ir: Path | None) -> None:
    """The program of a GPU, as `dump_program` has it, and in what is dumped for the user its kernels."""
    for root in roots:
        dump_program(root / place, build.artefact.program)
    if dump_ir is None:
        return
    folder = dump_ir / place / "kernels"
    with _dumping(folder):
        for kernel in build.artefact.kernels:
            (folder / f"{kernel.name}.{suffix}").write_text(kernel.code, encoding="ascii")


@contextmanager
def _dumping(folder: Path) -> Generator[None]:
    """A folder that is there; `PccError` if it or what the block puts there cannot be written."""
    with writing(f"the dump '{folder}'"):
        folder.mkdir(parents=True, exist_ok=True)
        yield
