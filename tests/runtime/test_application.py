"""A C program that is linked against a package, as an application is."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pcc.codegen.interpret import interpret
from tests.toy import toy_package, toy_program


@pytest.mark.skipif(shutil.which("gcc") is None, reason="not run: gcc not found")
def test_links_and_runs(tmp_path: Path) -> None:
    library = toy_package() / "lib/x86_64-linux"
    program = tmp_path / "application"
    source = Path(__file__).with_name("application.c")
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
