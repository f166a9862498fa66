"""Times schedules of layers on a GPU: packages whose program for it computes a layer by several schedules, one after
the other, run by pcc's own runtime on a device.

The package's processor computes the layer, too, so that the runtime's self-test holds every schedule against it before
it is timed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from pcc.codegen.family import cheapest
from pcc.codegen.gpu_backend import backend_named
from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.copy import emit_copy
from pcc.codegen.layers import Conv2d, Copy, Linear, PooledConv2d
from pcc.codegen.machine import machine_of
from pcc.codegen.objects import compile_kernels
from pcc.codegen.opencl.families.in_planes import border_of
from pcc.codegen.opencl.kernels.map import COPY, emit_map
from pcc.codegen.opencl.lower import planned
from pcc.codegen.opencl.program import DeviceProgramBuilder
from pcc.codegen.plan_memory import PlanMemory
from pcc.codegen.program import Program, ProgramBuilder, View
from pcc.codegen.select_kernels import Priced
from pcc.config import gpu_words
from pcc.deploy.device import BenchResult, Device
from pcc.dtype import FLOAT32
from pcc.errors import PccError
from pcc.ir.graph import arguments, constant
from pcc.package import PackageSpec, SelfTest, TargetBuild, build_package, open_package
from pcc.package.spec import GpuBuild
from pcc.scratch import temporary_folder
from pcc.sparsity.formats import DENSE
from pcc.target import Target
from pcc.tune.network import NetworkLayer

RUNS = 3
"""Of a process, whose mean counts once: what one process meets (where its memory lies, what else runs), another does
not."""

TOLERANCE = {2: 2e-2, 4: 1e-3}
"""What schedules may be wrong by, relative to the largest output, by the bytes of the layer's numbers."""

Emit = Callable[[DeviceProgramBuilder, View, View, View | None], None]
"""Records a layer's calls: ``x``, ``y`` and the residual, which lie in planes where they have four dimensions."""


@dataclass
class GpuJudge:
    """Says how many times what the costs' choice takes a schedule takes on a GPU, by the driver's clock."""

    target: Target
    """The device's processor, with a GPU of one profile."""
    device: Device
    """Whose GPU is used, or, where it has none, another device of the GPU's interface."""
    workers: int = 1
    refused: dict[str, str] = field(default_factory=dict[str, str])
    """Schedules that the device could not run or computed wrongly, by their texts, and why."""
    is_timed = True

    def __post_init__(self) -> None:
        """Asks for the device's name and its driver's version. `PccError` where there is none that can be used."""
        assert self.target.gpu is not None
        self.interface, (self.profile,) = self.target.gpu.interface, self.target.gpu.profiles
        self.device.use = "gpu"
        with temporary_folder() as folder:
            said = self._bench(self._package(folder, *_probe(self.target)), 1).device
        self.name = said.removeprefix("gpu: ").rpartition(", code for ")[0]
        """``NAME, driver VERSION``."""

    @property
    def where(self) -> str:
        return f"{self.target.gpu}, {self.name}"

    @property
    def processor(self) -> str:
        """What its measurements belong to."""
        return gpu_words(self.interface, self.profile, self.name)

    def ratios(self, layer: NetworkLayer, base: Priced, schedules: Sequence[Priced], rounds: int) -> dict[str, float]:
        """By the schedules' texts, without those that the device refuses; `PccError` where it refuses the costs'
        choice."""
        complaint, found = self._time(layer, [base, *schedules], rounds)
        if not complaint:
            return found
        complaint, _ = self._time(layer, [base], 1)
        if complaint:
            raise PccError(f"{layer}, {base}: {complaint}")
        for each in schedules:
            complaint, ratio = self._time(layer, [base, each], rounds)
            found |= ratio
            if complaint:
                self.refused[each.text] = complaint
        return found

    def _time(self, layer: NetworkLayer, schedules: Sequence[Priced], rounds: int) -> tuple[str, dict[str, float]]:
        """Why the device cannot run all of them, or nothing; and by what times longer than the first the others
        take."""
        with temporary_folder() as folder:
            package = self._package(folder, *layer_programs(layer, schedules, self.target, self.interface))
            try:
                results = [self._bench(package, RUNS) for _ in range(ceil(rounds / RUNS))]
            except PccError as error:
                return str(error), {}
        seconds = np.array([_seconds(result, len(schedules)) for result in results])
        if not seconds.all():
            return f"{self.name} tells no times", {}
        ratios = [median(column) for column in (seconds[:, 1:] / seconds[:, :1]).T.tolist()]
        return "", dict(zip([each.text for each in schedules[1:]], ratios, strict=True))

    def _package(self, folder: Path, program: Program, on_gpu: Program[Any], test: SelfTest) -> Path:
        objects = [kernel.object for kernel in compile_kernels(program.kernels, self.target, self.workers)]
        artefact = backend_named(self.interface).compile(on_gpu, self.profile)
        build = TargetBuild(self.target, program, objects, gpu=[GpuBuild(artefact)])
        build_package(PackageSpec(program.name, [build], selftest=test), folder / "package")
        return folder / "package"

    def _bench(self, package: Path, runs: int) -> BenchResult:
        return self.device.bench(open_package(package), warmup=1, runs=runs, profile=True)


def _seconds(result: BenchResult, count: int) -> list[float]:
    """What the calls of each schedule take."""
    taken = dict.fromkeys(map(_trial, range(count)), 0.0)
    for call in result.calls:
        if call.layer in taken:
            taken[call.layer] += call.seconds
    return list(taken.values())


def _trial(place: int) -> str:
    return f"trial{place}"


def layer_programs(
    layer: NetworkLayer, schedules: Sequence[Priced], target: Target, interface: str
) -> tuple[Program, Program[Any], SelfTest]:
    """A layer by each of some schedules on a GPU, by the processor as many times, and what both have to give. Inputs
    and outputs are fp32 whatever the layer's type; a GPU's tensors lie in planes, as between the layers of a
    network."""
    takers = {family.name: (family, taken) for family, taken in layer.open.takers(interface)}
    dense = next(taken for _, taken in takers.values() if not isinstance(taken, str))
    emits: list[Emit] = []
    for each in schedules:
        family, taken = takers[each.family]
        assert not isinstance(taken, str), taken

        def emit(
            b: DeviceProgramBuilder,
            x: View,
            y: View,
            residual: View | None,
            family: Any = family,
            taken: Any = taken,
            schedule: Any = each.candidate.schedule,
        ) -> None:
            family.emit(replace(taken, name=b.layer, x=x, y=y, residual=residual), schedule, b)

        emits.append(emit)
    return (
        _on_processor(layer, dense, len(schedules), target),
        _on_gpu(dense, emits),
        _self_test(layer, dense, len(schedules)),
    )


def _on_gpu(layer: Conv2d | Linear, emits: Sequence[Emit]) -> Program[Any]:
    b = DeviceProgramBuilder("trial")
    b.layer = b.node = "inputs"
    border = border_of(layer.geometry.padding, 1) if isinstance(layer, Conv2d) else 0
    x = _input(b, "x", layer.x, border)
    residual = None if layer.residual is None else _input(b, "residual", layer.residual, 0)
    for place, emit in enumerate(emits):
        b.layer = b.node = "outputs"
        y, result = _device_tensor(b, "y", layer.y, 0), b.tensor(f"y{place}", layer.y.shape)
        b.layer = b.node = _trial(place)
        emit(b, x, y, residual)
        b.layer = b.node = "outputs"
        emit_map(f"y{place}", result, [y], COPY, b)
        b.output(f"y{place}", result)
    return planned(b.build())


def _input(b: DeviceProgramBuilder, name: str, like: View, border: int) -> View:
    tensor = _device_tensor(b, name, like, border)
    emit_map(name, tensor, [b.input(name, like.shape)], COPY, b)
    return tensor


def _device_tensor(b: DeviceProgramBuilder, name: str, like: View, border: int) -> View:
    if len(like.shape) == 4:
        return b.bordered(name, like.shape, border, like.dtype)
    return b.tensor(name, like.shape, like.dtype)


def _on_processor(layer: NetworkLayer, dense: Conv2d | Linear, count: int, target: Target) -> Program:
    """The layer in fp32 by the cheapest kernel for a dense weight, and copies of what it gives."""
    b, machine = ProgramBuilder("trial", isa_named(target.isa)), machine_of(target)
    b.layer = "layer"

    def placed(name: str, like: View) -> View:
        return b.planes(name, like.shape) if len(like.shape) == 4 else b.tensor(name, like.shape)

    def read(name: str, like: View) -> View:
        tensor = placed(name, like)
        emit_copy(Copy(name, b.input(name, like.shape), tensor), b)
        return tensor

    whole = replace(
        dense,
        name="layer",
        x=read("x", dense.x),
        y=placed("y", dense.y),
        weight=layer.open.weights[DENSE].astype(np.float32),
        residual=None if dense.residual is None else read("residual", dense.residual),
    )
    kinds = [family for family, _ in layer.open.takers() if family.format == DENSE and family.layer is not PooledConv2d]
    offers = [(family, offer) for family in kinds if not isinstance(offer := cheapest(family, whole, machine), str)]
    family, (candidate, _) = min(offers, key=lambda offer: offer[1][1])
    family.emit(whole, candidate.schedule, b)
    for place in range(count):
        result = b.tensor(f"y{place}", dense.y.shape)
        emit_copy(Copy(f"y{place}", whole.y, result), b)
        b.output(f"y{place}", result)
    return PlanMemory()(b.build())


def _self_test(layer: NetworkLayer, dense: Conv2d | Linear, count: int) -> SelfTest:
    """Random inputs, and what the operator gives for them in fp32."""
    generator, args = torch.Generator().manual_seed(0), arguments(layer.open.node)
    x = torch.randn(dense.x.shape, generator=generator)
    residual = None if dense.residual is None else torch.randn(dense.residual.shape, generator=generator)
    parameter = None if dense.parameter is None else torch.from_numpy(dense.parameter.astype(np.float32))
    weight = constant(args["weight"]).float()
    operator: Any = layer.open.node.target
    y = operator(**{**args, "x": x, "weight": weight, "bias": None, "residual": residual, "parameter": parameter})
    inputs = [x.numpy(), *([] if residual is None else [residual.numpy()])]
    return SelfTest(inputs, [y.numpy()] * count, TOLERANCE[dense.x.dtype.bytes])


def _probe(target: Target) -> tuple[Program, Program[Any], SelfTest]:
    """The smallest programs: four numbers that are copied."""
    b, on_gpu, shape = ProgramBuilder("probe", isa_named(target.isa)), DeviceProgramBuilder("probe"), (4,)
    b.layer = on_gpu.layer = "copy"
    for builder in (b, on_gpu):
        x, y = builder.input("x", shape, FLOAT32), builder.tensor("y", shape)
        if isinstance(builder, ProgramBuilder):
            emit_copy(Copy("copy", x, y), builder)
        else:
            emit_map("copy", y, [x], COPY, builder)
        builder.output("y", y)
    values = np.arange(4, dtype=np.float32)
    return PlanMemory()(b.build()), planned(on_gpu.build()), SelfTest([values], [values])
