"""One library for several instruction sets: what each processor runs of it, under emulation and here, and what its
manifest says."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import pcc
from pcc.compile_report import CompileReport
from pcc.compiler import compile_model
from pcc.deploy.host import Host
from pcc.deploy.qemu import Qemu
from pcc.errors import PccError
from pcc.package import Package, open_package
from pcc.passes.pipeline import chosen_pipeline
from pcc.target import GENERIC, Target, executes_here, target_named
from tests.arm64 import arm64

X86 = target_named("x86_64-linux", GENERIC)
emulated = pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="qemu-x86_64 not found: install qemu-user")


class QemuX86(Qemu):
    """An emulated x86-64 processor, whatever this computer has."""

    def __init__(self, cpu: str) -> None:
        super().__init__(cpu, target=X86.name)

    def command(self, program: Path) -> list[str]:
        return ["qemu-x86_64", "-cpu", self._cpu, str(program)]


def compiled(folder: Path, target: Target, dtype: str = "fp32", port_dtype: str = "fp32") -> CompileReport:
    pipeline = chosen_pipeline(None, dtype=dtype, port_dtype=port_dtype)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 8, 1), nn.Flatten(), nn.Linear(8 * 13 * 13, 5)
    ).eval()
    examples, dumps = (torch.zeros(1, 3, 13, 13),), folder.parent / "dump"
    return compile_model(
        network,
        examples,
        out=folder,
        targets=[target],
        name="net",
        pipeline=pipeline,
        tuning_records="none",
        dump_ir=dumps,
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> CompileReport:
    return compiled(tmp_path_factory.mktemp("levels") / "package", X86)


@pytest.fixture
def package(report: CompileReport) -> Package:
    return open_package(report.package)


def runs(device: Host | Qemu, package: Package) -> str:
    """The processor whose code a device runs; the recorded input must give the recorded output, and a profile must fit
    the manifest."""
    assert device.selftest(package, threads=2).passed
    result = device.bench(package, warmup=0, runs=1, profile=True)
    level = package.target(device.target).level(result.target)
    assert [call.kernel for call in result.calls] == [call.kernel for call in level.calls]
    assert result.arena_bytes == level.arena_bytes
    return level.cpu


@emulated
def test_each_processor_runs_the_best_that_it_has(package: Package) -> None:
    assert runs(QemuX86("max"), package) == "x86-64-v3", "QEMU 7 has AVX2 and no AVX-512"


@pytest.mark.skipif(not executes_here(X86), reason="this computer does not execute x86-64-v3 code")
def test_this_computer_runs_the_best_that_it_has(package: Package) -> None:
    best = next(level.cpu for level in X86.levels if executes_here(level))
    assert runs(Host(), package) == best
    with pcc.load(package.path) as model:
        assert model.target == f"x86_64-linux, {best}"


@emulated
def test_a_processor_that_has_none_is_told_what_it_lacks(package: Package) -> None:
    with pytest.raises(PccError, match="compiled for x86_64-linux, x86-64-v3: this processor lacks AVX"):
        QemuX86("Nehalem").selftest(package)


def test_the_manifest_and_the_dumps_have_each_level(report: CompileReport, package: Package) -> None:
    record = package.target("x86_64-linux")
    assert [(level.cpu, level.isa) for level in (*record.better, record)] == [
        ("x86-64-v4", "avx512"),
        ("x86-64-v3", "avx2"),
    ]
    assert all(level.profile and level.layers for level in (*record.better, record))
    assert {
        path.relative_to(report.package / "ir/x86_64-linux").as_posix()
        for path in (report.package / "ir/x86_64-linux").rglob("*.*")
    } == {
        "model.c",
        "avx512/program.txt",
        "avx2/009_select-kernels.txt",
        "avx2/program.txt",
    }
    assert list((report.package.parent / "dump/x86_64-linux/avx512/kernels").glob("*.s"))
    with pytest.raises(PccError, match="its manifest does not have"):
        record.level("x86_64-linux, znver9")


def test_weights_that_are_packed_alike_are_there_once(report: CompileReport) -> None:
    wide, narrow = report.targets
    assert wide.weight_bytes == narrow.weight_bytes
    assert (
        max(wide.level_weight_bytes, narrow.level_weight_bytes)
        < wide.weight_bytes
        < wide.level_weight_bytes + narrow.level_weight_bytes
    )


@arm64
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_arm64(tmp_path: Path, dtype: str) -> None:
    """A core without arithmetic in fp16 computes in fp32, also where others of the same library do not."""
    package = open_package(compiled(tmp_path / "package", target_named("aarch64-linux", GENERIC), dtype).package)
    assert runs(Qemu("cortex-a53"), package) == "cortex-a53"
    assert runs(Qemu("cortex-a76"), package) == "cortex-a76"
    record = package.target("aarch64-linux")
    kernels = {level.isa: {call.kernel for call in level.calls} for level in (*record.better, record)}
    assert any("_f16" in kernel for kernel in kernels["neon-fp16"]) == (dtype == "fp16")
    assert not any("_f16" in kernel for kernel in kernels["neon"])


def test_ports_are_the_same_in_all_levels(tmp_path: Path) -> None:
    with pytest.raises(PccError, match="cortex-a53 does not compute in float16"):
        compiled(tmp_path / "package", target_named("aarch64-linux", GENERIC), "fp16", "fp16")
    with pytest.raises(PccError, match="does not compute in float16"):
        compiled(tmp_path / "package", X86, "fp16")
