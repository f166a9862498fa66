"""Devices by name, the host as a device, and what the runner says when it is used wrongly."""

import json
import math
import os
import re
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pcc
from pcc.codegen.interpret import interpret
from pcc.codegen.objects import compile_kernels
from pcc.deploy import Host, Qemu, device_named
from pcc.errors import PccError
from pcc.package import PackageSpec, TargetBuild, build_package, new_package, open_package
from pcc.package.files import file_record
from pcc.runtime.loader import load
from pcc.target import TARGETS
from tests.toy import toy_inputs, toy_package, toy_program

PROGRAM = toy_program()
INPUTS = toy_inputs(PROGRAM)


def _runner(*arguments: str, package: Path | None = None) -> subprocess.CompletedProcess[str]:
    program = (package or toy_package()) / "bin/x86_64-linux/pcc-run"
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_package(), tmp_path / "copy"))


def test_names() -> None:
    assert isinstance(device_named("host"), Host)
    assert device_named("qemu:cortex-a53").name == "qemu (cortex-a53)"
    for name in ("", "phone", "host:x", "Host"):
        with pytest.raises(PccError, match=r"unknown device .*: choose host, qemu or qemu:CPU"):
            device_named(name)


def test_missing_qemu_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PccError, match=r"qemu-aarch64 not found: install qemu-user and libc6-arm64-cross"):
        Qemu().run(open_package(toy_package()), INPUTS)


def test_host_runs() -> None:
    package = open_package(toy_package())
    for threads in (1, 2):
        for value, expected in zip(Host().run(package, INPUTS, threads), interpret(PROGRAM, INPUTS), strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


def test_manifest_that_is_not_the_librarys(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["outputs"][0]["shape"] = [1, 6]
    for record in manifest["targets"]:
        record["layers"] = record["layers"][:1]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PccError, match=r"output 'first' is \(1, 6\) in the manifest, the library gives 481 numbers"):
        Host().run(open_package(copy), INPUTS)
    with pytest.raises(PccError, match=r"the manifest lists 1 kernel calls, the library makes \d"):
        Host().bench(open_package(copy), runs=1, profile=True)


def test_wrong_inputs() -> None:
    package = open_package(toy_package())
    with pytest.raises(PccError, match=r"toy takes 2 inputs \(image, other\), 1 were given"):
        Host().run(package, INPUTS[:1])
    with pytest.raises(PccError, match=r"input 'other' is float32 \(13, 37\), the model takes float32 \(37, 13\)"):
        Host().run(package, [INPUTS[0], INPUTS[1].T])


def _with_runner(package: Path, script: str) -> Path:
    """The package with another program as its runner."""
    runner = package / "bin/x86_64-linux/pcc-run"
    runner.write_text(f"#!/bin/sh\n{script}\n")
    manifest = json.loads((package / "manifest.json").read_text())
    manifest["files"]["bin/x86_64-linux/pcc-run"] = json.loads(file_record(runner).model_dump_json())
    (package / "manifest.json").write_text(json.dumps(manifest))
    return package


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("head -c 100000 /dev/urandom", "its runner did not print what this pcc reads .*: compile the package again"),
        ("", "its runner did not print what this pcc reads"),
        ("echo '{\"median\": NaN}'", "its runner did not print what this pcc reads"),
        ("head -c 100000 /dev/zero | tr '\\0' '['", "its runner did not print what this pcc reads"),
        ("cat /dev/zero", "pcc-run printed more than 1 MiB and was stopped"),
        ("cat /dev/zero >&2", "pcc-run printed more than 1 MiB and was stopped"),
        ("kill -SEGV $$", r"host: the program was stopped by SIGSEGV \(Segmentation fault\)"),
        ("kill -ILL $$", "host: the program was stopped by SIGILL"),
        ("exit 3", "host: the program ended with status 3 and said nothing"),
        (
            "echo one >&2; printf 'two \\033[31m \\377 three\\n' >&2; exit 2",
            "host: two \\[31m \N{REPLACEMENT CHARACTER} three$",
        ),
        ("head -c 100000 /dev/urandom >&2; exit 2", "host: "),
    ],
)
def test_runner_that_may_do_anything(copy: Path, script: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcc.deploy.process.OUTPUT_BYTES", 1 << 20)
    package = open_package(_with_runner(copy, script))
    for use in (Host().bench, Host().selftest):
        with pytest.raises(PccError, match=message) as caught:
            use(package)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000


def test_a_gpu_that_failed_in_the_run(copy: Path) -> None:
    """With ``use`` gpu the processor's result is none, also of an earlier package, whose runner gives it."""
    said = '{"device": "cpu: the GPU failed in a run: lost", "passed": true, "max_error": 0, "tolerance": 1}'
    _with_runner(copy, f"echo '{said}'")
    manifest = json.loads((copy / "manifest.json").read_text())
    for record in manifest["targets"]:
        record["gpu"] = {"interface": "opencl", "programs": [], "runner": record["runner"]}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    device, package = Host(), open_package(copy)
    device.use = "gpu"
    for use in (device.selftest, lambda package: device.run(package, INPUTS)):
        with pytest.raises(PccError, match=r"^host: no GPU computed this: the GPU failed in a run: lost$"):
            use(package)
    device.use = "auto"
    assert device.selftest(package).device == device.used == "cpu: the GPU failed in a run: lost"


@pytest.mark.skipif(Qemu.missing() is not None, reason=f"not run: {Qemu.missing()}")
def test_qemu_runs_a_package_that_is_for_android_alone(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["targets"] = [record for record in manifest["targets"] if record["name"] == "aarch64-android"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    device = device_named("qemu:cortex-a53")
    assert device.named(open_package(copy)) == "qemu (cortex-a53), aarch64-android"
    assert device.selftest(open_package(copy)).passed
    assert device.named(open_package(toy_package())) == "qemu (cortex-a53)"
    manifest["targets"] = []
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PccError, match="has no library for aarch64-linux, only for"):
        device.selftest(open_package(copy))


def test_runner_that_writes_no_outputs(copy: Path) -> None:
    with pytest.raises(PccError, match="its runner wrote no output 'first': compile it again"):
        Host().run(open_package(_with_runner(copy, "exit 0")), INPUTS)
    (copy / "bin/x86_64-linux/pcc-run").chmod(0o644)
    with pytest.raises(PccError, match=r"cannot start .*pcc-run on host: Permission denied"):
        Host().run(open_package(copy), INPUTS)


def test_bench() -> None:
    result = Host().bench(open_package(toy_package()), threads=2, warmup=1, runs=30, profile=True)
    assert (result.model, result.threads, result.warmup, result.runs) == ("toy", 2, 1, 30)
    assert 0 < result.min <= result.p10 <= result.median <= result.p90
    assert [(call.layer, call.kernel) for call in result.calls] == [
        (call.layer, call.kernel.name) for call in PROGRAM.calls
    ]
    assert 0 < sum(call.seconds for call in result.calls)
    assert not Host().bench(open_package(toy_package()), runs=1).calls


def test_names_of_any_kind_reach_the_reports(tmp_path: Path) -> None:
    names = ["*/ ??/", "a\nb\t\x01", 'a"b\\', "größe 图", "%s%n", "???"]
    program = toy_program(depth=3)
    program = replace(
        program, calls=tuple(replace(call, layer=name) for call, name in zip(program.calls, names, strict=True))
    )
    program = replace(
        program, outputs=tuple(replace(port, name=name) for port, name in zip(program.outputs, names, strict=False))
    )
    target = TARGETS["x86_64-linux"]
    objects = [compiled.object for compiled in compile_kernels(program.kernels, target)]
    with new_package(tmp_path / "out") as staging:
        build_package(PackageSpec("toy", [TargetBuild(target, program, objects)]), staging)
    result = Host().bench(open_package(tmp_path / "out"), runs=1, profile=True)
    assert [call.layer for call in result.calls] == names
    with load(tmp_path / "out") as model:
        assert [call.layer for call in model.profile()] == names
        assert [port.name for port in model.outputs] == names[:2]


def test_bench_for_people() -> None:
    text = _runner("bench", "--runs", "3", "--profile").stdout
    assert re.match(
        r"toy, x86_64-linux, x86-64-v3, cpu, 1 threads, 3 runs: median [\d.]+ ms, p10 [\d.]+, p90 [\d.]+, min [\d.]+\n",
        text,
    )
    assert len(text.splitlines()) == 1 + len(PROGRAM.calls)


def test_the_static_runner_has_no_gpu() -> None:
    assert _runner("bench", "--device", "gpu").stderr.startswith("pcc-run: this program has no code for a GPU: ")


def test_selftest_passes_and_fails(copy: Path) -> None:
    package = open_package(copy)
    result = Host().selftest(package)
    assert result.passed
    assert result.max_error <= result.tolerance == 1e-5
    output = copy / "selftest/output_1.bin"
    values = np.fromfile(output, np.float32)
    for wrong in (values[7] + 1e-3 * np.abs(values).max(), math.nan, math.inf):
        changed = values.copy()
        changed[7] = wrong
        changed.tofile(output)
        done = _runner("selftest", str(copy / "selftest"), "--json", package=copy)
        assert done.returncode == 1
        assert json.loads(done.stdout)["passed"] is False
        assert "FAILED" in _runner("selftest", str(copy / "selftest"), package=copy).stdout
    with pytest.raises(PccError, match=r"selftest/output_1.bin is damaged"):
        Host().selftest(package)


def test_nan_where_numbers_are_expected_fails(copy: Path) -> None:
    image = copy / "selftest/input_0.bin"
    np.full(image.stat().st_size // 4, math.nan, np.float32).tofile(image)
    done = _runner("selftest", str(copy / "selftest"), "--json", package=copy)
    assert (done.returncode, json.loads(done.stdout)["passed"]) == (1, False)


def test_nan_where_it_is_expected_passes(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), Logarithm()).eval()
    pcc.compile(module, (torch.randn(1, 3, 8, 8),), out=tmp_path / "net")
    assert np.isnan(np.fromfile(tmp_path / "net/selftest/output_0.bin", np.float32)).any()
    assert Host().selftest(open_package(tmp_path / "net")).passed


class Logarithm(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.log()


def test_output_that_cannot_be_written() -> None:
    program = toy_package() / "bin/x86_64-linux/pcc-run"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [program, "bench", "--runs", "1", "--json"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (2, b"pcc-run: standard output cannot be written\n")


def test_runner_is_used_wrongly(tmp_path: Path) -> None:
    short = tmp_path / "short.bin"
    short.write_bytes(b"abc")
    long = tmp_path / "long.bin"
    long.write_bytes(bytes(37 * 13 * 4 + 1))
    out = str(tmp_path / "out.bin")
    outputs = ("--output", out, "--output", out)
    for arguments, message in (
        (("run", *("--input", str(short)) * 70, *("--output", out) * 70), "'toy' has 2 inputs and 2 outputs"),
        ((), "pcc-run run --input"),
        (("fly",), "unknown command 'fly'"),
        (("bench", "--threads"), "--threads needs a value"),
        (("bench", "--threads", "0"), "--threads 0: a whole number, at least 1"),
        (("bench", "--runs", "many"), "--runs many: a whole number"),
        (("bench", "extra"), "unexpected 'extra'"),
        (("bench", "--faster", "1"), "unknown option --faster"),
        (("bench", "--threads", "5000"), "options.threads is 5000"),
        (("selftest",), "selftest needs a folder"),
        (("selftest", str(tmp_path)), "has no file 'tolerance'"),
        (("run", "--input", str(short)), "'toy' has 2 inputs and 2 outputs"),
        (
            ("run", "--input", str(short), "--input", str(short), *outputs),
            "short.bin: too short, 1924 bytes of float32 are expected",
        ),
        (("run", "--input", str(long), "--input", str(long), *outputs), "long.bin: too long, 1924 bytes"),
        (("run", "--input", "absent", "--input", str(long), *outputs), "cannot read absent"),
    ):
        done = _runner(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("pcc-run: ")
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="not run: qemu-x86_64 not found")
def test_processor_that_lacks_the_instructions() -> None:
    program = str(toy_package() / "bin/x86_64-linux/pcc-run")
    for cpu, status in (("Nehalem", 2), ("max", 0)):
        done = subprocess.run(
            ["qemu-x86_64", "-cpu", cpu, program, "bench", "--runs", "1"], capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done.stderr
        assert status == 0 or "toy is compiled for x86_64-linux, x86-64-v3: this processor lacks AVX" in done.stderr


def test_runner_wants_the_weights_of_its_package(copy: Path, tmp_path: Path) -> None:
    library = copy / "lib/x86_64-linux/libtoy.so"
    program = copy / "bin/x86_64-linux/pcc-run"
    beside = program.with_name("libtoy.so")
    library.rename(beside)  # as one pushes the two to a phone
    assert _runner("bench", "--runs", "1", package=copy).returncode == 0
    moved = beside.rename(tmp_path / "elsewhere.so")
    assert "keep the package's folders together" in _runner("bench", package=copy).stderr
    assert _runner("bench", "--runs", "1", "--library", str(moved), package=copy).returncode == 0
    content = moved.read_bytes()
    at = content.index(b"pccweigh")
    for damaged in (
        b"",
        b"text",
        content[:5000],
        content[: at + 16] + b"?" + content[at + 17 :],
        content[:-200],
        b"\x7fELF\x02" + b"\xff" * 200,
    ):
        moved.write_bytes(damaged)
        done = _runner("bench", "--library", str(moved), package=copy)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert "does not hold the weights of this runner's model 'toy'" in done.stderr


def test_weights_that_end_early(copy: Path, tmp_path: Path) -> None:
    """A section that is shorter than its header says, at the end of its file: what is behind it is not there."""
    content = (copy / "lib/x86_64-linux/libtoy.so").read_bytes()
    at = content.index(b"pccweigh")
    end = -(-(at + 64) // 4096) * 4096
    short = bytearray(content[:end].ljust(end, b"\0"))
    names = b"\0.pcc_weights\0"
    sections, text = len(short), len(short) + 3 * 64
    short += struct.pack("<IIQQQQIIQQ", *[0] * 10)
    short += struct.pack("<IIQQQQIIQQ", 1, 1, 2, 0, at, 64, 0, 0, 64, 0)
    short += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, text, len(names), 0, 0, 1, 0) + names
    short[40:48], short[58:64] = struct.pack("<Q", sections), struct.pack("<HHH", 64, 3, 2)
    (tmp_path / "short.so").write_bytes(short)
    os.mkfifo(tmp_path / "pipe")
    for library in ("short.so", "pipe", "."):
        done = subprocess.run(
            [copy / "bin/x86_64-linux/pcc-run", "bench", "--library", str(tmp_path / library)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done
        assert "does not hold the weights of this runner's model 'toy'" in done.stderr
