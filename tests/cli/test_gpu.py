"""Packages with code for a GPU, by the command line: on PoCL, and where no GPU can be used."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from pcc import compile as pcc_compile
from pcc.deploy import Host, Qemu
from pcc.errors import PccError
from pcc.evaluate.network import of_package
from pcc.frontend import load_factory
from pcc.package.read import open_package
from pcc.package.toolchain import RUNTIME
from tests.cli.conftest import SHAPE, Outcome
from tests.opencl import pocl_environment

Pcc = Callable[..., Outcome]
ONE_IMAGE = "1,3,13,11"
"""What pcc eval takes: it chooses the batch."""
NO_GPU = "pcc: note: the GPU is not used: OpenCL has no GPU\n"


@pytest.fixture(scope="module")
def compiled(factory: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package for this computer and two families of GPUs, what was dumped, and an input."""
    from pcc.cli.app import run

    folder = tmp_path_factory.mktemp("gpu")
    np.save(folder / "x.npy", np.random.default_rng(0).standard_normal(tuple(map(int, SHAPE.split(",")))))
    command = ["compile", factory, "--input-shape", SHAPE, "-o", str(folder / "net"), "--dump-ir", str(folder / "ir")]
    assert run([*command, "--gpu", "opencl:adreno-6xx,generic"]) == 0
    return folder


@pytest.fixture(params=[True, False], ids=["PoCL", "no GPU"])
def has_pocl(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Programs that are started find PoCL, or an OpenCL library without a device; a cache of their own."""
    for name, value in pocl_environment(tmp_path / "opencl", drivers=request.param).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PCC_CACHE", str(tmp_path / "cache"))
    return request.param


def test_the_package_says_what_it_has(compiled: Path, pcc: Pcc) -> None:
    target, *_ = json.loads((compiled / "net" / "manifest.json").read_text())["targets"]
    assert target["gpu"]["interface"] == "opencl"
    assert [program["profile"] for program in target["gpu"]["programs"]] == ["adreno-6xx", "generic"]
    assert (compiled / "net" / target["gpu"]["runner"]).is_file()
    for program in target["gpu"]["programs"]:
        kernels = {call["kernel"] for layer in program["layers"] for call in layer["calls"]}
        dumped = compiled / "ir" / "gpu" / "opencl" / program["profile"]
        text = (dumped / "program.txt").read_text()
        kernels |= set(re.findall(r"^once (\w+)\(", text, re.MULTILINE))
        assert {path.name for path in (dumped / "kernels").iterdir()} == {f"{kernel}.cl" for kernel in kernels}
        assert text == (compiled / "net/ir/gpu/opencl" / program["profile"] / "program.txt").read_text()
        assert text.startswith("program make\n")
        assert pcc("dump", compiled / "net", "--after", f"opencl:{program['profile']}").out == text
    assert "conv_direct" not in pcc("dump", compiled / "net", "--after", "program").out
    said = pcc("inspect", compiled / "net").out
    assert "code for GPUs, adreno-6xx: " in said
    assert ", generic: " in said
    assert "--gpu opencl[:PROFILE,...]: adreno-6xx, adreno-7xx, mali-g5x" in pcc("targets").out


def test_runs(compiled: Path, factory: str, has_pocl: bool, pcc: Pcc, tmp_path: Path) -> None:
    x, y = compiled / "x.npy", tmp_path / "y.npy"
    with torch.no_grad():
        expected = load_factory(factory).eval()(torch.from_numpy(np.load(x)).float()).numpy()
    for use in ("gpu", "auto", "cpu"):
        ran = pcc("run", compiled / "net", "-i", x, "-o", y, "--use", use, "--json")
        if use == "gpu" and not has_pocl:
            assert ran.error == "host: no GPU: OpenCL has no device"
            continue
        assert ran.status == 0, ran.err
        assert ran.err == (NO_GPU if use == "auto" else "")  # PoCL is a processor
        on_gpu = json.loads(ran.out)["computed_by"].endswith(", code for generic")
        assert on_gpu == (use == "gpu")
        np.testing.assert_allclose(np.load(y), expected, atol=1e-5 * float(np.abs(expected).max()))


def test_verifies_and_times(compiled: Path, has_pocl: bool, pcc: Pcc, tmp_path: Path) -> None:
    use = "gpu" if has_pocl else "auto"
    assert "right, largest error" in pcc("verify", compiled / "net", "--use", use).out
    timed = pcc("bench", compiled / "net", "--use", use, "--runs", "2", "--profile", "--json")
    result = json.loads(timed.out)
    assert timed.err == ("" if has_pocl else NO_GPU)
    kernels = {kernel for layer in result["layers"] for kernel in layer["kernels"]}
    assert any("conv_direct" in kernel for kernel in kernels) == has_pocl
    assert sum(layer["seconds"] for layer in result["layers"]) > 0
    text = pcc("bench", compiled / "net", "--use", use, "--runs", "2").out
    assert ("arena of the GPU" in text) == has_pocl
    kept = sorted((tmp_path / "cache" / "gpu").glob("*.bin"))
    assert bool(kept) == has_pocl
    for path in kept:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert pcc("verify", compiled / "net", "--use", use).status == 0


def test_evaluates(compiled: Path, factory: str, has_pocl: bool, pcc_process: Pcc, tmp_path: Path) -> None:
    loader = tmp_path / "data.py"
    loader.write_text(
        "import torch\n\ndef loader():\n    torch.manual_seed(0)\n"
        "    samples = [(torch.randn(3, 13, 11), label % 4) for label in range(8)]\n    return samples, samples\n"
    )
    said = pcc_process(
        "eval", compiled / "net", "--data", f"{loader}:loader", "--against", factory, "--input-shape", ONE_IMAGE,
        "--use", "gpu" if has_pocl else "auto", "--json",
    )  # fmt: skip
    assert said.status == 0, said.err
    result = json.loads(said.out)
    assert (", code for generic" in result["where"]) == has_pocl
    assert has_pocl or result["where"] == "host, cpu: OpenCL has no GPU"
    assert all(output["largest"] < 1e-5 for output in result["against"]["outputs"])


@pytest.mark.skipif(shutil.which("gcc") is None, reason="not run: gcc not found")
@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        ("clCreateContext", "Fake GPU: CL_OUT_OF_RESOURCES"),
        ("clCreateBuffer", "no memory for weights: CL_OUT_OF_RESOURCES"),
        ("clBuildProgram", "the driver's compiler refuses "),
    ],
)
def test_a_driver_that_fails(
    compiled: Path, pcc: Pcc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, reason: str
) -> None:
    fake = Path(__file__).parents[1] / "runtime" / "fake_opencl.c"
    flags = ["-shared", "-fPIC", f"-I{RUNTIME}", str(fake), "-o", str(tmp_path / "libOpenCL.so")]
    subprocess.run(["gcc", "-std=c11", *flags], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("PCC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_FAIL", f"{fails}:1")
    verified = pcc("verify", compiled / "net")
    assert verified.status == 0
    assert verified.err.startswith(f"pcc: note: the GPU is not used: {reason}")
    assert pcc("verify", compiled / "net", "--use", "gpu").error.startswith(f"host: no GPU: {reason}")


LOST_IN_A_RUN = """
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
typedef void *handle;
handle clEnqueueMapBuffer(handle queue, handle buffer, uint32_t wait, uint64_t flags, size_t at, size_t bytes,
                          uint32_t count, const handle *events, handle *event, int32_t *error) {
  static _Atomic int maps;
  *error = -5;
  if (atomic_fetch_add(&maps, 1) > 1) return NULL; /* input and output of the self-test are fine */
  handle (*map)(handle, handle, uint32_t, uint64_t, size_t, size_t, uint32_t, const handle *, handle *, int32_t *);
  map = dlsym(dlopen(REAL, RTLD_NOW), "clEnqueueMapBuffer");
  return map(queue, buffer, wait, flags, at, bytes, count, events, event, error);
}
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="not run: gcc not found")
def test_a_gpu_that_fails_in_the_run(
    compiled: Path, factory: str, pcc: Pcc, pcc_process: Pcc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor repeats the run; where a GPU was asked for, that is no result."""
    for name, value in pocl_environment(tmp_path / "opencl").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PCC_CACHE", str(tmp_path / "cache"))
    real = (tmp_path / "opencl" / "libOpenCL.so").resolve()
    (tmp_path / "lost.c").write_text(LOST_IN_A_RUN)
    flags = ["-std=c11", "-shared", "-fPIC", f'-DREAL="{real}"', "-Wl,--no-as-needed", f"-Wl,-rpath,{real.parent}"]
    files = [tmp_path / "lost.c", real, "-o", tmp_path / "libOpenCL.so"]
    subprocess.run(["gcc", *flags, *map(str, files)], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    loader = tmp_path / "data.py"
    loader.write_text("import torch\n\ndef loader():\n    samples = [(torch.zeros(3, 13, 11), 0)]\n"
                      "    return samples, samples\n")  # fmt: skip
    commands = {
        "verify": (pcc, ("verify", compiled / "net")),
        "run": (pcc, ("run", compiled / "net", "-i", compiled / "x.npy", "-o", tmp_path / "y.npy")),
        "eval": (pcc_process, ("eval", compiled / "net", "--data", f"{loader}:loader", "--against", factory,
                               "--input-shape", ONE_IMAGE)),
    }  # fmt: skip
    for command, (run, words) in commands.items():
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)  # what says that the self-test need not run
        said = run(*words, "--use", "gpu")
        assert (said.status, said.out) == (2, ""), command
        assert re.fullmatch("host: .*the GPU failed in a run: .*CL_OUT_OF_RESOURCES", said.error), command
    assert not (tmp_path / "y.npy").exists()


class LosesItsGpu:
    """What `pcc.load` gives, on a GPU that fails in the first run."""

    device = "gpu: Fake GPU"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.device = "cpu: the GPU failed in a run: lost"
        return np.zeros((len(x), 4), np.float32)


def test_what_is_evaluated_says_what_computed(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcc.runtime.loader.load", lambda *arguments: nullcontext(LosesItsGpu()))
    device, package, x = Host(), open_package(compiled / "net"), np.zeros((2, 3, 13, 11), np.float32)
    device.use = "auto"
    with of_package(package, device, 1) as network:
        assert network.where == "host, gpu: Fake GPU"
        network(x)
        assert network.where == "host, cpu: the GPU failed in a run: lost"
    device.use = "gpu"
    with of_package(package, device, 1) as network, pytest.raises(PccError, match="the GPU failed in a run: lost"):
        network(x)


def test_wrong_use(compiled: Path, factory: str, pcc: Pcc, tmp_path: Path) -> None:
    compiling = ("compile", factory, "--input-shape", SHAPE, "-o", tmp_path / "net", "--gpu")
    assert pcc(*compiling, "vulkan").error == "unknown GPU interface 'vulkan': choose one of opencl"
    assert "unknown GPU profile 'adreno' for opencl: " in pcc(*compiling, "opencl:adreno").error
    assert "unknown GPU profile '' for opencl: " in pcc(*compiling, "opencl:").error
    assert not (tmp_path / "net").exists()
    assert pcc("compile", factory, "--input-shape", SHAPE, "-o", tmp_path / "net").status == 0
    assert pcc("bench", tmp_path / "net", "--use", "gpu").error.endswith("net has no code for a GPU: compile it with "
                                                                        "--gpu opencl")  # fmt: skip
    quiet = pcc("bench", tmp_path / "net", "--runs", "1")
    assert (quiet.status, quiet.err) == (0, "")


@pytest.mark.skipif(Qemu.missing() is not None, reason=f"not run: {Qemu.missing()}")
def test_arm64_without_opencl(factory: str, pcc: Pcc, tmp_path: Path) -> None:
    package, example = tmp_path / "net", torch.zeros(tuple(map(int, SHAPE.split(","))))
    pcc_compile(load_factory(factory).eval(), example, package, target="aarch64-linux", gpu="opencl")
    for use in ("auto", "cpu"):
        ran = pcc("verify", package, "--device", "qemu", "--cpu", "cortex-a53", "--use", use)
        assert "right, largest error" in ran.out, ran.err
        assert ran.err == ("" if use == "cpu" else "pcc: note: the GPU is not used: no OpenCL library is found\n")
    assert pcc("bench", package, "--device", "qemu", "--use", "gpu").error.endswith(": no OpenCL library is found")


def test_android_without_an_ndk(factory: str, pcc: Pcc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANDROID_NDK_HOME", raising=False)
    compiling = ("compile", factory, "--input-shape", SHAPE, "-o", tmp_path / "net", "--gpu", "opencl", "--target")
    assert "no runner that uses the GPU" in pcc(*compiling, "aarch64-android").out
    target, *_ = json.loads((tmp_path / "net" / "manifest.json").read_text())["targets"]
    assert target["gpu"]["runner"] is None


@pytest.mark.slow
def test_pruned_resnet18(pcc: Pcc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in pocl_environment(tmp_path / "opencl").items():
        monkeypatch.setenv(name, value)
    package, pruning = tmp_path / "net", ("--prune", "pattern,connectivity{share=4}")
    compiling = ("compile", "resnet18", "--weights", "none", "--input-shape", "1,3,64,64", "-o", package)
    assert pcc(*compiling, "--gpu", "opencl", *pruning).status == 0
    verified = pcc("verify", package, "--use", "gpu")
    assert ", code for generic: right" in verified.out, verified.err


def test_explains(compiled: Path, factory: str, pcc: Pcc) -> None:
    said = pcc("explain", factory, "--input-shape", SHAPE, "--gpu", "opencl:adreno-6xx").out
    assert ", opencl:adreno-6xx; costs by adreno-6xx, Mesa's compiler for Adreno 630" in said
    assert "the rate of prune-pattern,prune-connectivity{share=4} from which on a sparse kernel costs less" in said
    of_package = pcc("explain", compiled / "net", "--gpu", "opencl:adreno-6xx").out
    for text in (said, of_package):
        assert "sums in float32; opencl-conv-" in text
        assert "not opencl-conv-sparse" in text
    two = pcc("explain", factory, "--input-shape", SHAPE, "--gpu", "opencl:adreno-6xx,generic")
    assert two.error == "explain for one family of GPUs at a time, not for adreno-6xx, generic"
    assert pcc("explain", compiled / "net", "--gpu", "opencl:mali-g7x").error.endswith(
        "net has no code for opencl:mali-g7x"
    )
