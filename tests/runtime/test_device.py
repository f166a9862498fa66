"""A model on a GPU: on PoCL, and on a library that fails in every way; results are right in all of them."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pcc.package.toolchain import DEVICE_SOURCES, LIBRARY_SOURCES, RUNTIME
from tests.opencl import pocl_environment

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="not run: gcc not found")

WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wno-sign-conversion", "-Werror"]
AUTO, CPU, GPU = "0", "1", "2"
ON_GPU = "gpu: Fake GPU, driver 1.0, code for generic; self-test without recorded input: the package has none"
TAKEN = [
    "clGetPlatformIDs",
    "clGetDeviceIDs",
    "clGetDeviceInfo",
    "clCreateContext",
    "clCreateCommandQueue",
    "clCreateBuffer",
    "clCreateSubBuffer",
    "clCreateProgramWithSource",
    "clBuildProgram",
    "clCreateKernel",
    "clSetKernelArg",
    "clEnqueueFillBuffer",
    "clEnqueueMapBuffer",
    "clEnqueueUnmapMemObject",
    "clEnqueueNDRangeKernel",
    "clFinish",
]
"""Functions without which there is no result."""

LEAKS = {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "report_thread_leaks=0"}
"""What hangs keeps what it uses."""

WEIGHTS_ARE_LINKED = """
int pcc_map_weights(const char *library, char *error, size_t error_size) {
  (void)library, (void)error, (void)error_size;
  return 0;
}
"""

Run = Callable[..., str]


def _gcc(*arguments: str) -> None:
    built = subprocess.run(["gcc", "-std=c11", "-g", *arguments], capture_output=True, text=True, check=False)
    if "cannot find" in built.stderr:
        pytest.skip("not run: gcc has no such sanitizer here")
    assert not built.returncode, built.stderr


def _application(folder: Path, *flags: str, main: Path = HERE / "device_application.c") -> Path:
    program = folder / "application"
    names = [name for name in LIBRARY_SOURCES if name != "embedded.c"]
    sources = [RUNTIME / name for name in (*names, *DEVICE_SOURCES)]
    sources += [HERE / "toy_model.c", HERE / "toy_device.c", main]
    _gcc("-O1", f"-I{RUNTIME}", *WARNINGS, *flags, *map(str, sources), "-o", str(program), "-pthread", "-ldl", "-lm")
    return program


@pytest.fixture(
    scope="module", params=["address,undefined", "thread", "address,undefined -DTOY_MAX_BATCH=3 -DTOY_AT_ONCE"]
)
def run_on_fake(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs the application with the fake library: arguments, and environment variables by name. Gives what it
    prints."""
    folder = tmp_path_factory.mktemp("fake")
    sanitizer, *defines = request.param.split()
    flags = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", *defines]
    program = _application(folder, "-DPCC_OPENCL_BUILD_SECONDS=1", "-DPCC_OPENCL_WEIGHTS_SECONDS=1",
                           "-DPCC_OPENCL_RUN_SECONDS=1", *flags)  # fmt: skip
    _gcc("-O1", "-shared", "-fPIC", f"-I{RUNTIME}", *WARNINGS, *flags, str(HERE / "fake_opencl.c"), "-o",
         str(folder / "libOpenCL.so"))  # fmt: skip

    def run(device: str = AUTO, cache: str | Path = "-", contexts: int = 1, status: int = 0, **environment: str) -> str:
        return _run(program, folder, device, cache, contexts, status, environment)

    return run


def _run(
    program: Path, libraries: Path, device: str, cache: str | Path, contexts: int, status: int, more: dict[str, str]
) -> str:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries), **more}
    command = [str(program), device, str(cache), str(contexts)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert ran.returncode == status, ran.stderr[-3000:]
    return ran.stdout.strip()


def test_runs_on_the_gpu(run_on_fake: Run) -> None:
    assert run_on_fake() == ON_GPU
    assert run_on_fake(contexts=4) == ON_GPU
    assert run_on_fake(CPU) == "cpu"


@pytest.mark.parametrize("function", TAKEN)
def test_any_function_fails(run_on_fake: Run, function: str) -> None:
    said = run_on_fake(FAKE_FAIL=f"{function}:1", contexts=2)
    assert said.startswith("cpu: ")
    reasons = {"clGetPlatformIDs": "OpenCL has no GPU", "clGetDeviceIDs": "OpenCL has no GPU"}
    assert reasons.get(function, "CL_OUT_OF_RESOURCES") in said
    assert run_on_fake(GPU, FAKE_FAIL=f"{function}:1", status=3).startswith("no GPU: ")


@pytest.mark.parametrize("function", ["clGetEventProfilingInfo:1", "clGetEventProfilingInfo:300"])
def test_times_fail(run_on_fake: Run, function: str) -> None:
    assert run_on_fake(FAKE_FAIL=function) == "cpu: the GPU failed in a run: the driver does not tell the calls' times"


@pytest.mark.parametrize(
    "at",
    ["clEnqueueNDRangeKernel:200", "clFinish:7", "clEnqueueMapBuffer:5", "clEnqueueMapBuffer:6",
     "clEnqueueUnmapMemObject:5", "clEnqueueUnmapMemObject:6"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["Fake GPU", "Mali-G57"])  # whose program leaves a call to the processor
def test_the_device_is_lost(run_on_fake: Run, at: str, name: str) -> None:
    run_on_fake = partial(run_on_fake, FAKE_NAME=name)
    said = run_on_fake(FAKE_FAIL=at)
    assert said.startswith("cpu: the GPU failed in a run: ")
    assert "CL_OUT_OF_RESOURCES" in said
    assert run_on_fake(GPU, FAKE_FAIL=at) == said
    assert run_on_fake(FAKE_FAIL=at, contexts=4).startswith("cpu: ")


def test_the_compiler_hangs(run_on_fake: Run) -> None:
    said = run_on_fake(FAKE_HANG="clBuildProgram:1", contexts=2, **LEAKS)
    assert said == "cpu: the driver's compiler took more than 1 s"


@pytest.mark.parametrize("function", ["clGetPlatformIDs", "clGetDeviceIDs", "clGetDeviceInfo", "clCreateContext"])
def test_the_driver_hangs(run_on_fake: Run, function: str) -> None:
    said = run_on_fake(FAKE_HANG=f"{function}:1", contexts=2, **LEAKS)
    assert said == "cpu: opening the GPU's driver took more than 1 s"


@pytest.mark.parametrize(
    "at",
    ["clFinish:1", "clFinish:2", "clFinish:3", "clFinish:4", "clFinish:6",  # weights, a context, the self-test, a run
     "clCreateCommandQueue:2", "clEnqueueMapBuffer:1", "clEnqueueMapBuffer:2", "clEnqueueMapBuffer:5",
     "clEnqueueMapBuffer:6"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["Fake GPU", "Mali-G57"])
def test_the_device_hangs(run_on_fake: Run, at: str, name: str) -> None:
    said = run_on_fake(FAKE_HANG=at, contexts=2, FAKE_NAME=name, **LEAKS)
    reason = said.removeprefix("cpu: the GPU failed in a run: ").removeprefix("cpu: ")
    assert reason == f"{'preparing weights' if at == 'clFinish:1' else name} took more than 1 s"


def test_a_call_of_the_processor(run_on_fake: Run) -> None:
    on_mali = "gpu: Mali-G57, driver 1.0, code for chosen"
    assert run_on_fake(FAKE_NAME="Mali-G57") == on_mali
    assert run_on_fake(FAKE_NAME="Mali-G57", contexts=4) == on_mali


@pytest.mark.parametrize(
    ("name", "profile"),
    [("Mali-G57 r0p0", "chosen"), ("QUALCOMM Adreno(TM)", "generic"), ("Adreno (TM) 640", "chosen")],
)
def test_the_program_fits_the_device(run_on_fake: Run, name: str, profile: str) -> None:
    said, _, test = run_on_fake(FAKE_NAME=name).partition("; ")
    assert said == f"gpu: {name}, driver 1.0, code for {profile}"
    assert test == ("" if profile == "chosen" else "self-test without recorded input: the package has none")


def test_a_device_that_tells_its_model_in_the_version_alone(run_on_fake: Run) -> None:
    adreno = {"FAKE_NAME": "QUALCOMM Adreno(TM)", "FAKE_VERSION": "OpenCL 2.0 Adreno (TM) 640"}
    assert run_on_fake(**adreno) == "gpu: QUALCOMM Adreno(TM), driver 1.0, code for chosen"
    assert "code for generic" in run_on_fake(FAKE_VERSION="OpenCL 3.0 v1.r38p1-01eac0.adreno (tm) 6")


def test_a_driver_that_tells_much(run_on_fake: Run) -> None:
    driver = "OpenCL 2.0 QUALCOMM build: commit #" + "272cf717f5 " * 17 + "Compiler E031.38.01.08"
    assert run_on_fake(FAKE_DRIVER=driver) == ON_GPU.replace("1.0", driver)
    said = run_on_fake(FAKE_FAIL="clBuildProgram:2", FAKE_LOG="\n" + "not this " * 300)
    assert "refuses square: CL_OUT_OF_RESOURCES not this not this" in said


def test_texts_are_cut_where_a_character_begins(run_on_fake: Run) -> None:
    """Whatever a driver says, and wherever there is no more room: UTF-8."""
    for length in range(92, 97):  # of the name there is room for 95 bytes
        said = run_on_fake(FAKE_NAME="x" * length + "é" * 5)
        assert said.startswith(f"gpu: {('x' * length)[:95]}{'é' * max(0, (95 - length) // 2)}, driver ")
    odd = os.fsdecode(b"a\xffb\xc0\xafc\xed\xa0\x80d\xf5e\xe2\x82f g\xc3")
    repaired = "a?b??c???d?e??f g"
    said = run_on_fake(FAKE_NAME=odd, FAKE_DRIVER=odd)
    assert said == ON_GPU.replace("Fake GPU", repaired).replace("1.0", repaired)
    for length in range(4):
        log = "x" * length + "\N{GRINNING FACE}" * 100
        said = run_on_fake(FAKE_FAIL="clBuildProgram:2", FAKE_LOG=log)
        assert said.endswith("\N{GRINNING FACE}")
        assert len(said.encode()) > 195


def test_a_verdict_is_of_the_weights_too(run_on_fake: Run, tmp_path: Path) -> None:
    assert run_on_fake(cache=tmp_path) == ON_GPU
    (note,) = tmp_path.glob("*.right")
    note.rename(note.with_name(note.name.replace("-0000", "-0001")))
    assert run_on_fake(cache=tmp_path, FAKE_WRONG="0.01").startswith("cpu: self-test: output 'z' is wrong by")


def test_the_compiler_refuses(run_on_fake: Run) -> None:
    said = run_on_fake(FAKE_FAIL="clBuildProgram:2")
    assert said == "cpu: the driver's compiler refuses square: CL_OUT_OF_RESOURCES line 3: no such thing"


def test_what_a_gpu_is(run_on_fake: Run) -> None:
    assert run_on_fake(FAKE_TYPE="2") == "cpu: OpenCL has no GPU"
    assert run_on_fake(GPU, FAKE_TYPE="2") == ON_GPU
    assert (
        run_on_fake(FAKE_ALIGN="8192")
        == "cpu: Fake GPU: buffers must start at multiples of 1024 bytes, pcc's do at 512"
    )
    assert run_on_fake(GPU, FAKE_FAIL="clGetDeviceIDs:1", status=3) == "no GPU: OpenCL has no device"
    assert "options.device is 7" in run_on_fake("7", status=3)


@pytest.mark.parametrize("wrong", ["0.01", "nan", "inf"])
def test_wrong_results_are_not_trusted(run_on_fake: Run, tmp_path: Path, wrong: str) -> None:
    said = "cpu: self-test: output 'z' is wrong by"
    assert run_on_fake(FAKE_WRONG=wrong).startswith(said)
    assert run_on_fake(FAKE_WRONG=wrong, cache=tmp_path).startswith(said)
    assert run_on_fake(FAKE_WRONG=wrong, FAKE_NAME="Mali-G57", cache=tmp_path).startswith(said)  # recorded input
    assert not list(tmp_path.glob("*.right"))


def test_binaries_are_kept(run_on_fake: Run, tmp_path: Path) -> None:
    no_compiler = {"FAKE_FAIL": "clCreateProgramWithSource:1"}
    assert run_on_fake(cache=tmp_path) == ON_GPU
    kept = sorted(path.suffix for path in tmp_path.iterdir())
    assert kept == [".bin", ".bin", ".bin", ".right"]
    assert run_on_fake(cache=tmp_path, **no_compiler) == ON_GPU
    assert run_on_fake(cache=tmp_path, **no_compiler, FAKE_DRIVER="1.1").startswith("cpu: kernel scale: ")
    for path in tmp_path.glob("*.bin"):
        damaged = bytearray(path.read_bytes())
        for content in (b"", damaged[:20], damaged[:-1], damaged[:-1] + b"?", damaged + b"?"):
            path.write_bytes(content)
            assert run_on_fake(cache=tmp_path, **no_compiler).startswith("cpu: kernel ")
        assert run_on_fake(cache=tmp_path) == ON_GPU
        assert path.read_bytes() == damaged
    assert run_on_fake(cache=tmp_path, FAKE_FAIL="clCreateProgramWithBinary:1") == ON_GPU
    assert run_on_fake(cache=tmp_path / "nowhere") == ON_GPU
    assert run_on_fake(cache="x" * 600).startswith("cpu: the path of the cache is longer")


def test_the_runner_times_one_processor(tmp_path: Path) -> None:
    """Calls and times are the GPU's; a GPU that fails while it is timed leaves none."""
    main = tmp_path / "main.c"
    main.write_text(f'#include "{RUNTIME}/runner.c"\n' + WEIGHTS_ARE_LINKED)
    program = _application(tmp_path, "-fsanitize=address,undefined", main=main)
    _gcc("-shared", "-fPIC", f"-I{RUNTIME}", str(HERE / "fake_opencl.c"), "-o", str(tmp_path / "libOpenCL.so"))

    def bench(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        known = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "ASAN_OPTIONS": "detect_leaks=0", **environment}
        command = [program, "bench", "--runs", "3", "--profile", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=known)

    result = json.loads(bench("--json").stdout)
    assert result["device"] == ON_GPU
    assert [call["kernel"] for call in result["calls"]] == ["scale", "square", "back"] * 20
    assert {round(call["seconds"] * 1e9) for call in result["calls"]} == {2000}
    assert {call["device"] for call in result["calls"]} == {"gpu"}
    mixed = json.loads(bench("--json", FAKE_NAME="Mali-G57").stdout)["calls"]
    assert [(call["kernel"], call["device"]) for call in mixed[3:8]] == [
        ("scale", "gpu"), ("copy-to-processor", "cpu"), ("square", "cpu"), ("copy-to-gpu", "cpu"), ("back", "gpu")
    ]  # fmt: skip
    assert all(call["seconds"] > 0 for call in mixed)
    assert "cpu  square " in bench(FAKE_NAME="Mali-G57").stdout
    assert "copy" in {call["kernel"] for call in json.loads(bench("--json", "--device", "cpu").stdout)["calls"]}
    assert f", {ON_GPU}, " in bench().stdout
    lost = bench(FAKE_FAIL="clFinish:5")
    assert lost.returncode == 2
    assert lost.stderr.startswith("pcc-run: no times: cpu: the GPU failed in a run: Fake GPU: CL_OUT_OF_RESOURCES")
    (tmp_path / "tolerance").write_text("1")
    for name in ("input_0.bin", "output_0.bin"):
        (tmp_path / name).write_bytes(bytes(4000))
    for words in (("selftest", tmp_path), ("run", "--input", tmp_path / "input_0.bin", "--output", tmp_path / "y.bin")):
        known = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "FAKE_FAIL": "clFinish:5"}
        known["ASAN_OPTIONS"] = "detect_leaks=0"
        command = [program, *words, "--device", "gpu"]
        failed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=known)
        assert (failed.returncode, failed.stdout) == (2, "")
        assert failed.stderr == "pcc-run: the GPU failed in a run: Fake GPU: CL_OUT_OF_RESOURCES\n"
        known["FAKE_FAIL"] = ""
        assert subprocess.run(command, capture_output=True, timeout=60, check=False, env=known).returncode < 2
    assert bench("--device", "npu").stderr == "pcc-run: --device npu: auto, cpu or gpu\n"


SLOWER_AND_SLOWER = """
#include <time.h>
static int fake_clock(struct timespec *time) { /* run by run, so many milliseconds */
  static const int took[] = {7, 3, 11, 1, 9, 5, 2, 10, 4, 8, 6};
  static int calls, now;
  if (calls++ % 2) now += took[calls / 2 - 1];
  time->tv_sec = 0;
  time->tv_nsec = now * 1000000;
  return 0;
}
#define clock_gettime(which, time) fake_clock(time)
"""


def test_the_runner_says_what_a_share_of_runs_does_not_exceed(tmp_path: Path) -> None:
    main = tmp_path / "main.c"
    main.write_text(f'#define _GNU_SOURCE\n{SLOWER_AND_SLOWER}#include "{RUNTIME}/runner.c"\n{WEIGHTS_ARE_LINKED}')
    program = _application(tmp_path, main=main)
    command = [str(program), "bench", "--device", "cpu", "--warmup", "0", "--runs", "11"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60, check=True)
    result = json.loads(done.stdout)
    assert [round(result[name] * 1e3) for name in ("min", "p10", "median", "p90")] == [1, 2, 6, 10]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "11 runs: median 6.000 ms, p10 2.000, p90 10.000, min 1.000" in printed


def test_no_library(tmp_path: Path) -> None:
    program = _application(tmp_path)
    lacking = tmp_path / "libOpenCL.so"
    source = tmp_path / "lacking.c"
    source.write_text("int clGetPlatformIDs(void) { return 0; }\n")
    _gcc("-shared", "-fPIC", str(source), "-o", str(lacking))
    said = _run(program, tmp_path, AUTO, "-", 1, 0, {})
    if said != "cpu: libOpenCL.so has no clGetDeviceIDs":  # the system has one, too
        assert said.startswith(("gpu: ", "cpu: OpenCL has no GPU"))


def test_pocl(tmp_path: Path) -> None:
    environment = pocl_environment(tmp_path)
    program, cache = _application(tmp_path), tmp_path / "cache"
    cache.mkdir()
    for contexts in (1, 4):
        said = _run(program, tmp_path, GPU, cache, contexts, 0, environment)
        assert said.startswith("gpu: "), said
    assert len(list(cache.glob("*.bin"))) == 3
    assert _run(program, tmp_path, AUTO, cache, 1, 0, environment) == "cpu: OpenCL has no GPU"
