"""Where a package runs: one interface for this computer, for an emulated one, and for whatever is reached over a wire
later."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from pydantic import BaseModel, Field

from pcc.cache import gpu_cache
from pcc.deploy.process import run_program
from pcc.dtype import dtype_named
from pcc.errors import PccError
from pcc.package.layer_report import LayerReport
from pcc.package.manifest import TargetRecord, TensorRecord
from pcc.package.read import Package, parse_record
from pcc.scratch import temporary_folder

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class CallTime(BaseModel):
    """A kernel call's share of a run: mean seconds over the timed runs."""

    layer: str
    kernel: str
    macs: int
    dense_macs: int
    seconds: Seconds


Answer = TypeVar("Answer", bound="RunResult")


class RunResult(BaseModel):
    """What ``pcc-run run --json`` prints."""

    device: str = "cpu"
    """``gpu: NAME, driver VERSION, code for PROFILE``, ``cpu``, or ``cpu: REASON`` where a GPU cannot be used."""


class BenchResult(RunResult):
    """What ``pcc-run bench --json`` prints; times in seconds."""

    model: str
    target: str
    threads: int
    warmup: int
    runs: int
    median: Seconds
    p10: Seconds
    p90: Seconds
    min: Seconds
    arena_bytes: int
    thread_bytes: int
    """What each thread has besides."""
    weight_bytes: int
    prepared_bytes: int = 0
    """Weights in the form that kernels read, where that is not shipped."""
    calls: tuple[CallTime, ...] = ()
    """Only if a profile was asked for."""


class SelfTestResult(RunResult):
    """What ``pcc-run selftest --json`` prints."""

    passed: bool
    max_error: float
    tolerance: float


class Device(ABC):
    """Runs a package's runner: the static one, or, where a GPU may compute, the dynamic one. A device says which target
    it executes, and how a program is started on it."""

    name: str
    target: str
    use: str = "cpu"
    """What computes: ``cpu``, ``gpu``, or ``auto``: the GPU where the package has code for it and it can be trusted."""
    used: str = "cpu"
    """What the last run was computed by, as `RunResult.device` has it."""

    @abstractmethod
    def command(self, program: Path) -> list[str]:
        """The words that start a program there. Raises `PccError` if the device is not to be had."""

    def record(self, package: Package) -> TargetRecord:
        """The package's library that the device runs."""
        return package.target(self.target)

    def named(self, package: Package) -> str:
        """The device's name, in lines about a package."""
        return self.name

    def note(self, used: str) -> None:
        """Keeps what a run was computed by. `PccError` where that had to be a GPU, and is none."""
        self.used = used
        if self.use == "gpu" and not used.startswith("gpu"):
            raise PccError(f"{self.name}: no GPU computed this: {used.removeprefix('cpu: ')}")

    def push(self, package: Package) -> Path:
        """Makes the package's files available to the device, checked; the folder under which it sees them."""
        record = self.record(package)
        for name in (record.library, record.runner):
            package.file(name)
        return package.path

    def run(self, package: Package, inputs: Sequence[np.ndarray], threads: int = 1) -> list[np.ndarray]:
        """The model's outputs for its inputs. Raises `PccError` if they do not fit the model."""
        ports = package.manifest.inputs
        if len(inputs) != len(ports):
            raise PccError(
                f"{package.manifest.name} takes {len(ports)} inputs ({', '.join(port.name for port in ports)}), "
                f"{len(inputs)} were given"
            )
        batches = package.manifest.batches
        batch = batches.of([values.shape for values in inputs])
        with temporary_folder() as folder:
            arguments = ["run", "--json", "--threads", str(threads)]
            for port, values in zip(ports, inputs, strict=True):
                dtype = dtype_named(port.dtype).numpy
                if values.shape != (wanted := batches.shape(port.shape, batch)) or values.dtype != dtype:
                    raise PccError(
                        f"input '{port.name}' is {values.dtype} {values.shape}, the model takes {port.dtype} {wanted}"
                    )
                path = folder / f"input_{len(arguments)}.bin"
                np.ascontiguousarray(values, dtype).tofile(path)
                arguments += ["--input", str(path)]
            outputs = [folder / f"output_{index}.bin" for index in range(len(package.manifest.outputs))]
            for path in outputs:
                arguments += ["--output", str(path)]
            printed = self._runner(package, arguments)
            self.note(self._parsed(RunResult, package, printed or b"{}").device)
            return [
                _read_output(package, path, port, batch)
                for path, port in zip(outputs, package.manifest.outputs, strict=True)
            ]

    def bench(
        self,
        package: Package,
        threads: int = 1,
        warmup: int = 3,
        runs: int = 20,
        profile: bool = False,
        batch: int | None = None,
    ) -> BenchResult:
        """Times the model there on made-up input: on the largest batch, or on another of a package that runs any."""
        arguments = ["bench", "--json", "--threads", str(threads), "--warmup", str(warmup), "--runs", str(runs)]
        arguments += [] if batch is None else ["--batch", str(batch)]
        result = self._answer(BenchResult, package, [*arguments, *(["--profile"] if profile else [])])
        recorded = sum(len(layer.calls) for layer in self.layers(package, result))
        if profile and len(result.calls) != recorded:
            raise PccError(
                f"{package.path}: the manifest lists {recorded} kernel calls, the library makes {len(result.calls)}: "
                "compile it again"
            )
        return result

    def layers(self, package: Package, result: BenchResult) -> Sequence[LayerReport]:
        """The layers of what was timed."""
        record = self.record(package)
        if result.device.startswith("gpu") and record.gpu:
            return record.gpu.program(result.device, result.target).layers
        return record.level(result.target).layers

    def selftest(self, package: Package, threads: int = 1) -> SelfTestResult:
        """Runs the package's recorded input and compares with its recorded output."""
        test = package.manifest.selftest
        if test is None:
            raise PccError(f"{package.path} has no self-test: compile it with one")
        for name in package.manifest.files:
            if name.startswith(f"{test.folder}/"):
                package.file(name)
        return self._answer(
            SelfTestResult,
            package,
            ["selftest", str(package.path / test.folder), "--json", "--threads", str(threads)],
            accepted=(0, 1),
        )

    def _answer(
        self, answer: type[Answer], package: Package, arguments: Sequence[str], accepted: tuple[int, ...] = (0,)
    ) -> Answer:
        """What pcc-run prints with ``--json``."""
        result = self._parsed(answer, package, self._runner(package, arguments, accepted))
        self.note(result.device)
        return result

    def _parsed(self, answer: type[Answer], package: Package, printed: bytes) -> Answer:
        try:
            return parse_record(answer, printed)
        except ValueError as error:
            raise PccError(
                f"{package.path}: its runner did not print what this pcc reads ({error}): compile the package again"
            ) from None

    def _runner(self, package: Package, arguments: Sequence[str], accepted: tuple[int, ...] = (0,)) -> bytes:
        """Starts pcc-run and returns what it printed."""
        runner, more = self._chosen_runner(package)
        command = [*self.command(self.push(package) / runner), *arguments, *more]
        try:
            ended = run_program(command)
        except OSError as error:
            raise PccError(f"cannot start {command[0]} on {self.name}: {error.strerror}") from None
        if ended.status not in accepted:
            raise PccError(f"{self.name}: {ended.complaint.removeprefix('pcc-run: ')}")
        return ended.output

    def _chosen_runner(self, package: Package) -> tuple[str, list[str]]:
        """The runner, and the words for a GPU, if one may compute. `PccError` where one has to and cannot."""
        record = self.record(package)
        has_gpu_runner = record.gpu is not None and record.gpu.runner is not None
        if self.use == "cpu" or (self.use == "auto" and not has_gpu_runner):
            return record.runner, []
        if record.gpu is None:
            raise PccError(f"{package.path} has no code for a GPU: compile it with --gpu opencl")
        if record.gpu.runner is None:
            raise PccError(
                f"{package.path} has no runner that uses a GPU: compile it with ANDROID_NDK_HOME set, or use the CPU"
            )
        package.file(record.gpu.runner)
        cache = gpu_cache()
        return record.gpu.runner, ["--device", self.use, *(["--cache", str(cache)] if cache else [])]


def _read_output(package: Package, path: Path, port: TensorRecord, batch: int | None) -> np.ndarray:
    """What the runner wrote for an output."""
    if not path.is_file():
        raise PccError(f"{package.path}: its runner wrote no output '{port.name}': compile it again")
    dtype = dtype_named(port.dtype)
    size, shape = path.stat().st_size, package.manifest.batches.shape(port.shape, batch)
    if size != prod(shape) * dtype.bytes:
        count = size // dtype.bytes
        raise PccError(
            f"{package.path}: output '{port.name}' is {shape} in the manifest, the library gives {count} numbers: "
            "compile it again"
        )
    return np.fromfile(path, dtype.numpy).reshape(shape)
