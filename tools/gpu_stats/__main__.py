"""``python -m tools.gpu_stats --gpu adreno-630``: what the 3x3 layers of VGG-16 and ResNet-50 execute in each form."""

from collections.abc import Sequence

import click

from tools.gpu_stats.compilers import GPUS, Gpu
from tools.gpu_stats.forms import FORMS, NETWORKS, Shape
from tools.gpu_stats.layers import MODES, Priced, best, collect
from tools.gpu_stats.stats import Counts, KernelStats


@click.command()
@click.option("--gpu", "gpus", type=click.Choice(list(GPUS)), multiple=True, default=("adreno-630",), show_default=True)
@click.option("--mode", type=click.Choice(list(MODES)), default="f16", show_default=True)
@click.option("--network", "networks", type=click.Choice(list(NETWORKS)), multiple=True, default=tuple(NETWORKS))
@click.option("--kernels", is_flag=True, help="The kernels one by one, too.")
def main(gpus: Sequence[str], mode: str, networks: Sequence[str], *, kernels: bool) -> None:
    """Compiles the kernels of all 3x3 layers with Mesa and multiplies what its loops execute out by trip counts.

    Millions of issue slots, and of memory operations, a layer; no times."""
    for gpu in gpus:
        priced, stats = collect([shape for network in networks for shape in NETWORKS[network]], mode, GPUS[gpu])
        for network in networks:
            shapes = NETWORKS[network]
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
