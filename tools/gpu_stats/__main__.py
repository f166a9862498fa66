"""``python -m tools.gpu_stats --gpu adreno-630``: what the 3x3 layers of VGG-16 and ResNet-50 execute in each form."""

from collections.abc import Sequence
from dataclasses import dataclass

import click

from pcc.codegen.opencl.call import DeviceCall
from pcc.codegen.opencl.profiles import PROFILES
from pcc.codegen.opencl.text import opencl_text
from pcc.dtype import FLOAT16, FLOAT32, DType
from tools.gpu_stats.compilers import GPUS, Gpu
from tools.gpu_stats.forms import FORMS, NETWORKS, Form, Shape, trips
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
    counts: Counts
    spilled: bool
    registers: int


def arithmetic_of(form: str, mode: str) -> tuple[DType, DType]:
    dtype, arithmetic = MODES[mode]
    return dtype, FLOAT32 if form == "F(4x4)" else arithmetic


def price(calls: Sequence[DeviceCall], schedule: str, stats: dict[str, KernelStats]) -> Priced:
    total, spilled, registers = Counts(), False, 0
    for call in calls:
        found = stats[call.kernel.name]
        x, y, z = call.range.global_size
        total += found.run(trips(call)) * (x * y * z)
        spilled, registers = spilled or found.spilled, max(registers, found.registers)
    return Priced(schedule, total, spilled, registers)


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
        priced.setdefault(shape, {}).setdefault(name, []).append(price(calls, form.name, stats))
    return priced, stats


def best(priced: Sequence[Priced], gpu: Gpu) -> Priced:
    """The cheapest one by the GPU's profile, of those that do not spill."""
    weight = PROFILES[gpu.profile].memory_weight
    fits = [each for each in priced if not each.spilled] or priced
    return min(fits, key=lambda each: each.counts.slots + weight * each.counts.memory)


@click.command()
@click.option("--gpu", "gpus", type=click.Choice(list(GPUS)), multiple=True, default=("adreno-630",), show_default=True)
@click.option("--mode", type=click.Choice(list(MODES)), default="f16", show_default=True)
@click.option("--network", "networks", type=click.Choice(list(NETWORKS)), multiple=True, default=tuple(NETWORKS))
@click.option("--kernels", is_flag=True, help="The kernels one by one, too.")
def main(gpus: Sequence[str], mode: str, networks: Sequence[str], *, kernels: bool) -> None:
    """Compiles the kernels of all 3x3 layers with Mesa and multiplies what its loops execute out by trip counts.

    Millions of issue slots, and of memory operations, a layer; no times."""
    for gpu in gpus:
        for network in networks:
            shapes = NETWORKS[network]
            priced, stats = collect(shapes, mode, GPUS[gpu])
            forms = FORMS[GPUS[gpu].family.name]
            click.echo(f"\n{network}, {gpu}, {mode}: M slots | M memory operations (schedule)")
            click.echo(f"{'layer':<18}" + "".join(f"{name:>32}" for name in forms))
            for shape in dict.fromkeys(shapes):
                label = f"{shape.channels}->{shape.filters}/{shape.stride} @{shape.size} x{shapes.count(shape)}"
                cells = [_cell(priced[shape].get(name), GPUS[gpu]) for name in forms]
                click.echo(f"{label:<18}" + "".join(f"{cell:>32}" for cell in cells))
            click.echo(_sums(shapes, priced, GPUS[gpu]))
            if kernels:
                click.echo(_kernel_table(stats))


def _cell(priced: Sequence[Priced] | None, gpu: Gpu) -> str:
    if not priced:
        return "-"
    chosen = best(priced, gpu)
    spills = ", spills" if chosen.spilled else ""
    return f"{chosen.counts.slots / 1e6:.1f} | {chosen.counts.memory / 1e6:.2f} ({chosen.schedule}{spills})"


def _sums(shapes: Sequence[Shape], priced: dict[Shape, dict[str, list[Priced]]], gpu: Gpu) -> str:
    """Totals; where a form does not take a stride, the dense direct one stands for it. And of the layers of stride 1
    alone, if there are others."""
    lines = _totals("all", shapes, priced, gpu)
    same = [shape for shape in shapes if shape.stride == 1]
    if len(same) < len(shapes):
        lines += _totals("stride 1", same, priced, gpu)
    return "\n".join(lines)


def _totals(label: str, shapes: Sequence[Shape], priced: dict[Shape, dict[str, list[Priced]]], gpu: Gpu) -> list[str]:
    totals: dict[str, Counts] = {}
    for name in priced[shapes[0]]:
        chosen = [best(priced[shape].get(name) or priced[shape]["dense direct"], gpu) for shape in shapes]
        totals[name] = sum((each.counts for each in chosen), Counts())
    lines = [f"{label:<18}" + "".join(f"{f'{t.slots / 1e6:.1f} | {t.memory / 1e6:.2f}':>32}" for t in totals.values())]
    for dense in ("F(4x4)", "F(2x2)"):
        for sparse in ("free", "shared by 4"):
            a, b = totals[dense], totals[sparse]
            lines.append(
                f"{dense} over {sparse}: {a.slots / b.slots:.2f}x slots, {a.memory / b.memory:.2f}x memory operations"
            )
    return lines


def _kernel_table(stats: dict[str, KernelStats]) -> str:
    head = f"{'kernel':<110} instr regs waves spills  once: slots, memory   loops: slots, reads"
    rows = [
        f"{name[:110]:<110} {s.instructions:>5} {s.registers:>4} {s.waves:>5} {'yes' if s.spilled else 'none':>6}"
        f"  {s.once.slots:.0f}, {s.once.memory:.0f}   "
        + "; ".join(f"{loop.slots:.0f}, {loop.reads:.0f}" for loop in s.loops)
        for name, s in stats.items()
    ]
    return "\n".join([head, *rows])


if __name__ == "__main__":
    main()
