"""A C program that is linked against a package, as an application is."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pcc.codegen.interpret import interpret
from pcc.codegen.objects import compile_kernels
from pcc.codegen.program import Program
from pcc.package import PackageSpec, TargetBuild, build_package, new_package
from pcc.target import TARGETS
from tests.toy import toy_package, toy_program

HERE = Path(__file__).parent


@pytest.mark.skipif(shutil.which("gcc") is None, reason="not run: gcc not found")
def test_links_and_runs(tmp_path: Path) -> None:
    library = toy_package() / "lib/x86_64-linux"
    program = tmp_path / "application"
    source = HERE / "application.c"
    flags = [
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-I{toy_package() / 'include'}",
        f"-L{library}",
        f"-Wl,-rpath,{library}",
    ]
    subprocess.run(["gcc", *flags, str(source), "-ltoy", "-o", str(program)], check=True)
    found = [
        float(word)
        for word in subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.split()
    ]
    zeros = [np.zeros(port.shape, np.float32) for port in toy_program().inputs]
    np.testing.assert_allclose(found, [value.flat[0] for value in interpret(toy_program(), zeros)], rtol=1e-6)


def _of_zeros(program: Program) -> list[float]:
    zeros = [np.zeros(port.shape, np.float32) for port in program.inputs]
    return [value.flat[0] for value in interpret(program, zeros)]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="not run: gcc not found")
def test_two_models_in_one_program(tmp_path: Path) -> None:
    """Each file has the model whose header it includes; one that includes both says whose function it means."""
    small, target = toy_program("small-toy", rows=5, width=3, seed=7), TARGETS["x86_64-linux"]
    with new_package(tmp_path / "small") as staging:
        kernels = [compiled.object for compiled in compile_kernels(small.kernels, target)]
        build_package(PackageSpec("small-toy", [TargetBuild(target, small, kernels)]), staging)
    libraries = [package / "lib/x86_64-linux" for package in (toy_package(), tmp_path / "small")]
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{toy_package() / 'include'}", f"-I{tmp_path}/small/include"]
    for run, header in (("run_toy", "toy.h"), ("run_small", "small-toy.h")):
        source = [HERE / "one_of_two.c", "-o", tmp_path / f"{run}.o"]
        subprocess.run(["gcc", *flags, f'-DMODEL="{header}"', f"-DRUN={run}", "-c", *source], check=True)
    for order in (["-ltoy", "-lsmall-toy"], ["-lsmall-toy", "-ltoy"]):
        program = tmp_path / f"application{order[0]}"
        linked = [word for folder in libraries for word in (f"-L{folder}", f"-Wl,-rpath,{folder}")]
        objects = [HERE / "two_models.c", tmp_path / "run_toy.o", tmp_path / "run_small.o"]
        subprocess.run(["gcc", *flags, *objects, *linked, *order, "-o", program], check=True)
        *found, one, other = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
        assert (one, other) == ("toy", "small-toy")
        expected = _of_zeros(toy_program()) + _of_zeros(small)
        np.testing.assert_allclose(list(map(float, found)), expected * 2, rtol=1e-6)
    refused = subprocess.run(
        ["gcc", *flags, "-DONE_NAME_FOR_TWO", "-c", HERE / "two_models.c", "-o", tmp_path / "refused.o"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 'attempt to use poisoned "pcc_model_name"' in refused.stderr
