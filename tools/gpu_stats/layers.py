"""The layers of networks in each form: what the compiled kernels execute, and what costs count."""

from collections.abc import Sequence
from dataclasses import dataclass

from pcc.codegen.opencl.call import DeviceCall
from pcc.codegen.opencl.profiles import PROFILES, DeviceWork
from pcc.codegen.opencl.text import opencl_text
from pcc.dtype import FLOAT16, FLOAT32, DType
from tools.gpu_stats.compilers import Gpu
from tools.gpu_stats.forms import FORMS, Form, Shape, trips
from tools.gpu_stats.stats import Counts, KernelStats

MODES: dict[str, tuple[DType, DType]] = {
    "f32": (FLOAT32, FLOAT32),
    "f16-in-f32": (FLOAT16, FLOAT32),
    "f16": (FLOAT16, FLOAT16),
}
"""(type in memory, type of arithmetic). F(4x4) computes in fp32 in all of them."""


@dataclass(frozen=True)
class Priced:
    """A layer in a form: all its work-items together."""

    schedule: str
    work: DeviceWork
    """What costs count of it."""
    counts: Counts
    spilled: bool
    registers: int


def arithmetic_of(form: str, mode: str) -> tuple[DType, DType]:
    dtype, arithmetic = MODES[mode]
    return dtype, FLOAT32 if form == "F(4x4)" else arithmetic


def _price(calls: Sequence[DeviceCall], schedule: str, work: DeviceWork, stats: dict[str, KernelStats]) -> Priced:
    total, spilled, registers = Counts(), False, 0
    for call in calls:
        found = stats[call.kernel.name]
        x, y, z = call.range.global_size
        total += found.run(trips(call)) * (x * y * z)
        spilled, registers = spilled or found.spilled, max(registers, found.registers)
    return Priced(schedule, work, total, spilled, registers)


def collect(
    shapes: Sequence[Shape], mode: str, gpu: Gpu
) -> tuple[dict[Shape, dict[str, list[Priced]]], dict[str, KernelStats]]:
    """Every schedule of every form of the layers, and the kernels that they are made of."""
    planned: dict[tuple[Shape, str, Form], list[DeviceCall]] = {}
    for shape in dict.fromkeys(shapes):
        for name, forms in FORMS[gpu.family.name].items():
            for form in forms:
                if form.strided or shape.stride == 1:
                    planned[shape, name, form] = form.calls(shape, *arithmetic_of(name, mode))
    kernels = {call.kernel.name: call.kernel for calls in planned.values() for call in calls}
    stats = gpu.compile({name: opencl_text(kernel) for name, kernel in sorted(kernels.items())})
    priced: dict[Shape, dict[str, list[Priced]]] = {}
    for (shape, name, form), calls in planned.items():
        work = form.work(shape, *arithmetic_of(name, mode))
        priced.setdefault(shape, {}).setdefault(name, []).append(_price(calls, form.name, work, stats))
    return priced, stats


def best(priced: Sequence[Priced], gpu: Gpu) -> Priced:
    """The cheapest one by the GPU's profile, of those that do not spill."""
    weight = PROFILES[gpu.profile].memory_weight
    fits = [each for each in priced if not each.spilled] or priced
    return min(fits, key=lambda each: each.counts.slots + weight * each.counts.memory)
