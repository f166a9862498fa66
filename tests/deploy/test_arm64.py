"""arm64 under emulation: the runner on several processors, and the shared libraries, Android's through shims, in an
application."""

import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import pcc
from pcc.codegen.interpret import interpret
from pcc.deploy import Qemu
from pcc.models import create
from pcc.package import open_package
from pcc.package.toolchain import RUNTIME, run_tool, zig
from tests.arm64 import arm64
from tests.toy import toy_inputs, toy_package, toy_program

PROGRAM = toy_program()
INPUTS = toy_inputs(PROGRAM)
LOADER = Path(__file__).parents[1] / "runtime/load_library.c"


@cache
def _expected() -> list[np.ndarray]:
    return interpret(PROGRAM, INPUTS)


def _agree(found: list[np.ndarray]) -> None:
    for value, expected in zip(found, _expected(), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


@arm64
@pytest.mark.parametrize("target", ["aarch64-linux", "aarch64-android"])
@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a76", "max"])
def test_runner(cpu: str, target: str) -> None:
    device, package = Qemu(cpu, target=target), open_package(toy_package())
    for threads in (1, 3):
        _agree(device.run(package, INPUTS, threads))
    test = device.selftest(package)
    assert test.passed
    assert test.max_error < 1e-6
    bench = device.bench(package, threads=2, warmup=0, runs=2, profile=True)
    assert (bench.model, bench.target, len(bench.calls)) == ("toy", f"{target}, cortex-a53", len(PROGRAM.calls))


@arm64
@pytest.mark.parametrize("target", ["aarch64-linux", "aarch64-android"])
def test_runner_with_large_pages(target: str) -> None:
    _agree(Qemu("max", page_size=16384, target=target).run(open_package(toy_package()), INPUTS))


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An arm64 program for glibc, beside empty libraries with the names that Android's C library has."""
    folder = tmp_path_factory.mktemp("application")
    flags = ["-target", "aarch64-linux-gnu.2.34", "-O1", f"-I{RUNTIME}"]
    run_tool([*zig(), "cc", *flags, str(LOADER), "-o", str(folder / "load_library")])
    (folder / "empty.c").write_text("")
    run_tool(
        [*zig(), "cc", "-target", "aarch64-linux-musl", "-c", str(folder / "empty.c"), "-o", str(folder / "empty.o")]
    )
    for name in ("libc.so", "libm.so", "libdl.so"):
        (folder / "shims").mkdir(exist_ok=True)
        run_tool(
            [
                *zig(),
                "ld.lld",
                "-shared",
                "-soname",
                name,
                str(folder / "empty.o"),
                "-z",
                "max-page-size=65536",
                "-o",
                str(folder / "shims" / name),
            ]
        )
    return folder


@arm64
@pytest.mark.parametrize("page_size", [4096, 16384])
@pytest.mark.parametrize("target", ["aarch64-linux", "aarch64-android"])
def test_library_in_an_application(application: Path, target: str, page_size: int, tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("image.bin", "other.bin", "first.bin", "last.bin")]
    for path, values in zip(paths, INPUTS, strict=False):
        values.tofile(path)
    library = toy_package() / "lib" / target / "libtoy.so"
    program, *qemu = reversed(Qemu("cortex-a76", page_size=page_size).command(application / "load_library"))
    shims = ["-E", f"LD_LIBRARY_PATH={application / 'shims'}"] if target.endswith("android") else []
    done = subprocess.run(
        [*reversed(qemu), *shims, program, str(library), "3", *paths], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    _agree(
        [
            np.fromfile(path, np.float32).reshape(port.shape)
            for path, port in zip(paths[2:], PROGRAM.outputs, strict=True)
        ]
    )


@arm64
def test_android_library_of_a_trained_pruned_network(application: Path, tmp_path: Path) -> None:
    module = create("mobilenet_v2")
    report = pcc.compile(
        module,
        [torch.zeros(1, 3, 96, 96)],
        tmp_path / "package",
        target="aarch64-android",
        name="net",
        prune="connectivity{rate=2}",
    )
    package, output = open_package(report.package), tmp_path / "output.bin"
    library, recorded = package.file("lib/aarch64-android/libnet.so"), package.file("selftest/output_0.bin")
    for page_size in (4096, 16384):
        program, *qemu = reversed(Qemu("cortex-a53", page_size=page_size).command(application / "load_library"))
        paths = [str(package.file("selftest/input_0.bin")), str(output)]
        shims = ["-E", f"LD_LIBRARY_PATH={application / 'shims'}"]
        done = subprocess.run(
            [*reversed(qemu), *shims, program, str(library), "2", *paths], capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stderr
        got, wanted = np.fromfile(output, np.float32), np.fromfile(recorded, np.float32)
        assert np.abs(got - wanted).max() < 1e-4 * np.abs(wanted).max()


@arm64
def test_large_pages_refuse_small_alignment(application: Path, tmp_path: Path) -> None:
    """So that `test_library_in_an_application` shows something."""
    small = tmp_path / "libsmall.so"
    run_tool([*zig(), "ld.lld", "-shared", str(application / "empty.o"), "-z", "max-page-size=4096", "-o", str(small)])
    command = [*Qemu("cortex-a76", page_size=16384).command(application / "load_library"), str(small), "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "not page-aligned" in done.stderr
